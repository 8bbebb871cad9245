# One image for the code location, the web UI, the daemon and the collectors; its command says which.
# Unverified: never built by this project (docs/production.md).
FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --create-home petwellness \
    && install --directory --owner petwellness /state /app \
    && pip install --no-cache-dir uv
USER petwellness
WORKDIR /app

# What is installed depends on the first two alone: a change of code does not install again.
COPY --chown=petwellness pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir contracts lake ingestion simulation warehouse ml governance petwellness_orchestration \
    && uv venv /app/.venv \
    && uv pip install --python /app/.venv/bin/python --no-cache --constraint constraints.txt --editable '.[postgres]'

COPY --chown=petwellness contracts contracts
COPY --chown=petwellness lake lake
COPY --chown=petwellness ingestion ingestion
COPY --chown=petwellness simulation simulation
COPY --chown=petwellness warehouse warehouse
COPY --chown=petwellness ml ml
COPY --chown=petwellness governance governance
COPY --chown=petwellness petwellness_orchestration petwellness_orchestration
COPY --chown=petwellness dbt_project dbt_project

ENV PATH=/app/.venv/bin:$PATH \
    PETWELLNESS_HOME=/state \
    NUMBA_CACHE_DIR=/state/numba \
    DAGSTER_DISABLE_TELEMETRY=yes \
    DO_NOT_TRACK=1
VOLUME /state
ENTRYPOINT ["petwellness"]
CMD ["--help"]
