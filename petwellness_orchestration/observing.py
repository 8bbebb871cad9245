"""What a build of the warehouse did, into the tables of `ops`, and what they say is out of the ordinary.

The tables are `warehouse.builds.history`, thresholds and their reasons
`warehouse.builds.anomalies`; here they meet dbt's results and manifest, and
the session that an environment's warehouse keeps them in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.account_usage import operations_session
from petwellness_orchestration.defs.warehouse.translator import is_daily, table_name
from petwellness_orchestration.loading import is_on_snowflake
from petwellness_orchestration.published import day_column
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    import duckdb

    from petwellness_orchestration.defs.warehouse.dbt_run import DbtRun
    from warehouse.builds.anomalies import FreshnessVerdict, TimeVerdict, VolumeVerdict
    from warehouse.builds.history import Build, OpsSession

# Late events still come in for the days before the last, so these are looked at again.
DAYS_JUDGED = 3
# A failing test is told with its last results.
RESULTS_SHOWN = 10


@dataclass(frozen=True)
class TableCount:
    """Rows of a table that was built, and of a daily one by event date: zero on a day without any."""

    rows: int
    by_day: dict[date, int] | None


def days_to_judge(as_of_ts: datetime | None) -> tuple[date, ...]:
    """The last whole days of the data's own time, the oldest first."""
    if as_of_ts is None:
        return ()
    return tuple(as_of_ts.date() - timedelta(days=back) for back in range(DAYS_JUDGED, 0, -1))


def count_tables(
    query: Callable[[str], Sequence[Sequence[Any]]],
    run: DbtRun,
    manifest: Mapping[str, Any],
    days: Collection[date],
) -> dict[str, TableCount]:
    """Rows of every table that this run built, by dbt's unique id, and of daily ones on `days`.

    `query` gives the rows of a statement, on whichever warehouse.
    """
    counts = {}
    listed = ", ".join(f"date '{day}'" for day in sorted(days))
    for node in run.nodes:
        props = manifest["nodes"].get(node.unique_id, {})
        if node.status != "success" or props.get("resource_type") not in ("model", "seed"):
            continue
        if props["config"]["materialized"] == "view":
            continue
        relation = f"{props['schema']}.{props['alias']}"
        [(rows,)] = query(f"select count(*) as row_count from {relation}")
        by_day = None
        if is_daily(props) and listed:
            day = f"cast({day_column(props)} as date)"
            found = query(
                f"select {day} as day, count(*) as row_count from {relation} where {day} in ({listed}) group by 1"
            )
            by_day = {**dict.fromkeys(sorted(days), 0), **{key: int(value) for key, value in found}}
        counts[node.unique_id] = TableCount(int(rows), by_day)
    return counts


def build_of(
    run: DbtRun,
    manifest: Mapping[str, Any],
    counts: Mapping[str, TableCount],
    run_id: str,
    started_at: datetime,
    days: Sequence[date],
    is_full: bool,
    as_of_ts: datetime | None,
) -> Build:
    """One build as `ops` keeps it."""
    from lake.landing import utc_now
    from warehouse.builds.history import Build, ModelRun, TestRun

    nodes = manifest["nodes"]
    models, tests = [], []
    for node in run.nodes:
        props = nodes.get(node.unique_id)
        if props is None:
            continue
        if props["resource_type"] == "test":
            tests.append(TestRun(props["name"], node.status, node.started_at, node.duration_s, node.failures))
        else:
            count = counts.get(node.unique_id)
            models.append(
                ModelRun(
                    _full_name(props),
                    node.status,
                    node.started_at,
                    node.duration_s,
                    count.rows if count else None,
                )
            )
    return Build(
        run_id=run_id,
        started_at=started_at,
        duration_s=(utc_now() - started_at).total_seconds(),
        succeeded=run.succeeded,
        error=run.error or (run.failures[0] if run.failures else None),
        day_count=len(days),
        is_full=is_full,
        as_of_ts=as_of_ts,
        models=models,
        tests=tests,
        volumes={
            _full_name(nodes[unique_id]): count.by_day
            for unique_id, count in counts.items()
            if count.by_day is not None
        },
    )


def _full_name(props: Mapping[str, Any]) -> str:
    return f"{props['schema']}.{table_name(props)}"


@contextmanager
def open_ops(platform: PlatformResource, asset: str, run: str) -> Iterator[OpsSession]:
    """Schema `ops` of the environment's warehouse. Raises on Snowflake what `operations_session` raises."""
    from warehouse.builds.sessions import SnowflakeOps

    if is_on_snowflake(platform):
        with operations_session(platform.settings(), asset, run) as account:
            yield SnowflakeOps(account)
    else:
        with platform.warehouse() as con, duckdb_ops(con) as session:
            yield session


@contextmanager
def duckdb_ops(con: duckdb.DuckDBPyConnection) -> Iterator[OpsSession]:
    """Schema `ops` of the embedded warehouse over an open connection."""
    from warehouse.builds.sessions import DuckDBOps

    yield DuckDBOps(con)


def keep_history(
    ops: AbstractContextManager[OpsSession],
    query: Callable[[str], Sequence[Sequence[Any]]],
    build: Build,
    complain: Callable[[str], None],
) -> None:
    """Write a build into `ops`; `query` sees the tables it built. What goes wrong is said and does not undo the build,
    which stands without its history; the checks on `ops` fail for a build that is not there."""
    from warehouse.builds.history import present_columns, record_build

    try:
        columns = present_columns(query)
        with ops as session:
            for change in record_build(session, build, columns):
                complain(f"columns changed: {change}")
    except Exception as error:
        complain(f"the history of this build could not be written to ops: {error}")


@dataclass(frozen=True)
class Observations:
    """What the history says of one build. `failing_tests`: each with its last statuses, the newest last."""

    run_id: str
    succeeded: bool
    column_changes: list[str]
    volumes: list[VolumeVerdict]
    times: list[TimeVerdict]
    freshness: list[FreshnessVerdict]
    failing_tests: dict[str, list[str]]


def observe(session: OpsSession, run_id: str | None = None) -> Observations | None:
    """The build of a run (None: the newest) against those before it; None when it is not in the history."""
    from warehouse.builds import anomalies, history

    build = history.kept_build(session, run_id)
    if build is None:
        return None
    days = days_to_judge(build.as_of_ts)
    volumes = history.volumes(session, days[-1] - timedelta(days=history.VOLUME_DAYS)) if days else {}
    return Observations(
        run_id=build.run_id,
        succeeded=build.succeeded,
        column_changes=[str(change) for change in history.column_changes(session, build.run_id)],
        volumes=anomalies.volume_verdicts(volumes, days),
        times=[
            anomalies.time_verdict(table, seconds, earlier)
            for table, (seconds, earlier) in history.model_times(
                session, build.run_id, build.started_at
            ).items()
        ],
        freshness=anomalies.freshness_verdicts(volumes, days[-1]) if days else [],
        failing_tests=history.failing_tests(session, build.run_id, build.started_at, RESULTS_SHOWN),
    )
