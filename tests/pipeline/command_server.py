"""Runs `petwellness` commands as forks of one process that has imported the large libraries already.

Importing Dagster, dbt and the rest takes each command some five seconds of a core. A fork starts with them, and with
nothing of the platform's own: settings are read anew in every one. Requests are lines of JSON on standard input; the
answers, on standard output, are the fork's process id at its start and its exit code at its end.
"""

import json
import os
import sys
from typing import Any, NoReturn

PRELOADED = (
    "dagster",
    "dagster_dbt",
    "dbt.adapters.duckdb",
    "dbt.cli.main",
    "duckdb",
    "great_expectations",
    "mlflow.sklearn",
    "pyarrow.compute",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "typer",
)


def serve() -> None:
    for name in PRELOADED:
        __import__(name)
    assert not [name for name in sys.modules if name.startswith(("petwellness_orchestration", "ingestion"))]
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in requests:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            # Not closed by name: what Python has read ahead of the requests is this process's alone.
            os.close(requests.fileno())
            os.close(answers.fileno())
            become(request)
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def become(request: dict[str, Any]) -> NoReturn:
    """Be the command: in a process group of its own, with its environment, folder and streams."""
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, file in enumerate((os.devnull, request["stdout"], request["stderr"])):
        os.dup2(os.open(file, writing if number else os.O_RDONLY), number)
    sys.argv = ["petwellness", *request["arguments"]]

    from petwellness_orchestration.cli import main

    main()
    sys.exit(0)


if __name__ == "__main__":
    serve()
