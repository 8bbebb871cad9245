"""Builds of the warehouse in schema `ops`: models, tests, volumes, columns.

One row per build and thing, never changed afterwards. Times are of the wall clock:
this is the history of operations, not data, so it is no part of the equality of
rebuilds and cannot be rebuilt from the lake; a rebuild carries it over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

OBSERVED_SCHEMAS = ("raw", "stg", "cur", "anl", "ml")
KEPT_FOR = timedelta(days=400)
# Days of volumes to compare with: 14 of weekends are seven weeks.
VOLUME_DAYS = 60

# What happened to a column; FIRST is the first sight of its table.
FIRST, ADDED, REMOVED, CHANGED = "first", "added", "removed", "changed"

_TABLES = {
    "builds": """
        run_id varchar, started_at timestamp, duration_s double, succeeded boolean, error varchar,
        day_count integer, is_full boolean, as_of_ts timestamp
    """,
    "model_runs": """
        run_id varchar, table_name varchar, status varchar, started_at timestamp, duration_s double,
        row_count bigint
    """,
    "test_results": """
        run_id varchar, test_name varchar, status varchar, started_at timestamp, duration_s double,
        failure_count bigint
    """,
    "table_volumes": """
        run_id varchar, table_name varchar, event_date date, row_count bigint, recorded_at timestamp
    """,
    "column_changes": """
        run_id varchar, table_name varchar, column_name varchar, change varchar, data_type varchar,
        previous_type varchar, recorded_at timestamp
    """,
}


@dataclass(frozen=True)
class ModelRun:
    """One model or seed in one build; `row_count` is of the whole table, None when it was not built."""

    table_name: str
    status: str
    started_at: datetime | None
    duration_s: float
    row_count: int | None = None


@dataclass(frozen=True)
class TestRun:
    """One test in one build; `failure_count` in rows, None when it did not run."""

    test_name: str
    status: str
    started_at: datetime | None
    duration_s: float
    failure_count: int | None = None


@dataclass(frozen=True)
class Build:
    """One build of the warehouse. Times are naive UTC; `volumes` are rows by daily table and event date,
    zero for a day that was built and has none; `is_full` says that every day was."""

    run_id: str
    started_at: datetime
    duration_s: float
    succeeded: bool
    day_count: int
    is_full: bool
    as_of_ts: datetime | None
    error: str | None = None
    models: Sequence[ModelRun] = ()
    tests: Sequence[TestRun] = ()
    volumes: Mapping[str, Mapping[date, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class ColumnChange:
    """A column that a table got, lost or holds in another type; types are None where there is none."""

    table_name: str
    column_name: str
    change: str
    data_type: str | None
    previous_type: str | None

    def __str__(self) -> str:
        name = f"{self.table_name}.{self.column_name}"
        if self.change == CHANGED:
            return f"{name} was {self.previous_type} and is {self.data_type}"
        return f"{name} {self.change}" + (f" ({self.data_type})" if self.data_type else "")


def create_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Create what is missing of schema `ops`."""
    con.execute("create schema if not exists ops")
    for name, columns in _TABLES.items():
        con.execute(f"create table if not exists ops.{name} ({columns})")


def record_build(con: duckdb.DuckDBPyConnection, build: Build) -> list[ColumnChange]:
    """Write one build and the columns that changed since the one before, in one transaction.

    Writing the same build again replaces it. Builds older than KEPT_FOR go; changes of columns stay, because
    they tell what columns there are. Returns the changes.
    """
    recorded_at = build.started_at + timedelta(seconds=build.duration_s)
    create_tables(con)
    con.execute("begin transaction")
    try:
        for name in _TABLES:
            con.execute(f"delete from ops.{name} where run_id = ?", [build.run_id])
        _forget_old(con, recorded_at)
        changes = _column_changes(con)
        rows: dict[str, list[dict[str, Any]]] = {
            "builds": [
                {
                    name: getattr(build, name)
                    for name in (
                        "started_at", "duration_s", "succeeded", "error", "day_count", "is_full", "as_of_ts",
                    )
                }
            ],
            "model_runs": [asdict(run) for run in build.models],
            "test_results": [asdict(result) for result in build.tests],
            "table_volumes": [
                {"table_name": table, "event_date": day, "row_count": count, "recorded_at": recorded_at}
                for table, by_day in build.volumes.items()
                for day, count in by_day.items()
            ],
            "column_changes": [{**asdict(change), "recorded_at": recorded_at} for change in changes],
        }  # fmt: skip
        for name, found in rows.items():
            _insert(con, name, [{"run_id": build.run_id, **row} for row in found])
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return [change for change in changes if change.change != FIRST]


def _insert(con: duckdb.DuckDBPyConnection, name: str, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa

    if rows:
        con.register("_ops_rows", pa.Table.from_pylist(rows))
        con.execute(f"insert into ops.{name} by name select * from _ops_rows")
        con.unregister("_ops_rows")


def _forget_old(con: duckdb.DuckDBPyConnection, now: datetime) -> None:
    old = con.execute("select run_id from ops.builds where started_at < ?", [now - KEPT_FOR]).fetchall()
    for name in _TABLES:
        if old and name != "column_changes":
            con.execute(f"delete from ops.{name} where list_contains(?, run_id)", [[row[0] for row in old]])


def _column_changes(con: duckdb.DuckDBPyConnection) -> list[ColumnChange]:
    """Columns there are now against those of the last record."""
    before: dict[str, dict[str, str]] = {}
    for table, column, data_type in con.execute(
        "select table_name, column_name, data_type from ops.column_changes qualify row_number() over"
        " (partition by table_name, column_name order by recorded_at desc, rowid desc) = 1"
    ).fetchall():
        if data_type is not None:
            before.setdefault(table, {})[column] = data_type
    now: dict[str, dict[str, str]] = {}
    for schema, table, column, data_type in con.execute(
        "select table_schema, table_name, column_name, data_type from information_schema.columns"
        " where table_catalog = current_database() and list_contains(?, table_schema)"
        " order by table_schema, table_name, ordinal_position",
        [list(OBSERVED_SCHEMAS)],
    ).fetchall():
        now.setdefault(f"{schema}.{table}", {})[column] = data_type
    return compared_columns(before, now)


def compared_columns(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> list[ColumnChange]:
    """What changed from one set of tables (name to columns to types) to another, by table and column."""
    changes = []
    for table in sorted({*before, *now}):
        old, new = before.get(table, {}), now.get(table, {})
        for column in sorted({*old, *new}):
            if old.get(column) == new.get(column):
                continue
            if column in old and column in new:
                change = CHANGED
            elif column in old:
                change = REMOVED
            else:
                change = ADDED if old else FIRST
            changes.append(ColumnChange(table, column, change, new.get(column), old.get(column)))
    return changes


def carry_over(old: Path, new: Path) -> int:
    """Copy schema `ops` of one warehouse file into another that is made for it; returns the builds in it."""
    import duckdb

    con = duckdb.connect(str(new))
    try:
        create_tables(con)
        con.execute(f"attach '{str(old).replace(chr(39), chr(39) * 2)}' as old_warehouse (read_only)")
        present = con.execute(
            "select table_name from information_schema.tables"
            " where table_catalog = 'old_warehouse' and table_schema = 'ops'"
        ).fetchall()
        for (name,) in present:
            con.execute(f"insert into ops.{name} by name select * from old_warehouse.ops.{name}")
        con.execute("detach old_warehouse")
        row = con.execute("select count(*) from ops.builds").fetchone()
        return int(row[0]) if row else 0
    finally:
        con.close()


def volumes(con: duckdb.DuckDBPyConnection, since: date) -> dict[str, dict[date, int]]:
    """Rows of each daily table by event date from `since` on, as last counted."""
    found: dict[str, dict[date, int]] = {}
    for table, day, rows in con.execute(
        "select table_name, event_date, row_count from ops.table_volumes where event_date >= ?"
        " qualify row_number() over (partition by table_name, event_date order by recorded_at desc) = 1",
        [since],
    ).fetchall():
        found.setdefault(table, {})[day] = rows
    return found


def column_changes(con: duckdb.DuckDBPyConnection, run_id: str) -> list[ColumnChange]:
    """Columns that changed with one build, without those of tables seen for the first time."""
    rows = con.execute(
        "select table_name, column_name, change, data_type, previous_type from ops.column_changes"
        f" where run_id = ? and change <> '{FIRST}' order by table_name, column_name",
        [run_id],
    ).fetchall()
    return [ColumnChange(*row) for row in rows]


def model_times(
    con: duckdb.DuckDBPyConnection, run_id: str, started_at: datetime
) -> dict[str, tuple[float, list[float]]]:
    """Seconds of each model that one build built, and in comparable builds before it, the newest first.

    Comparable are builds of about as many days, an increment with increments only.
    """
    rows = con.execute(
        """
        select runs.table_name, runs.duration_s, earlier.duration_s
        from ops.model_runs as runs
        inner join ops.builds as builds on runs.run_id = builds.run_id
        left join (
            select model_runs.table_name, model_runs.duration_s, builds.started_at, builds.is_full, builds.day_count
            from ops.model_runs as model_runs
            inner join ops.builds as builds on model_runs.run_id = builds.run_id
            where model_runs.status = 'success'
        ) as earlier
            on
                runs.table_name = earlier.table_name
                and earlier.started_at < ?
                and earlier.is_full = builds.is_full
                and earlier.day_count <= 2 * builds.day_count
                and builds.day_count <= 2 * earlier.day_count
        where runs.run_id = ? and runs.status = 'success'
        order by runs.table_name, earlier.started_at desc
        """,
        [started_at, run_id],
    ).fetchall()
    found: dict[str, tuple[float, list[float]]] = {}
    for table, seconds, earlier in rows:
        times = found.setdefault(table, (seconds, []))[1]
        if earlier is not None:
            times.append(earlier)
    return found


def failing_tests(
    con: duckdb.DuckDBPyConnection, run_id: str, started_at: datetime, shown: int
) -> dict[str, list[str]]:
    """Tests that did not pass in one build, each with its last statuses up to then, the oldest first."""
    rows = con.execute(
        """
        select results.test_name, results.status
        from ops.test_results as results
        inner join ops.builds as builds on results.run_id = builds.run_id
        where
            builds.started_at <= ?
            and results.test_name in (
                select test_name from ops.test_results where run_id = ? and status not in ('pass', 'skipped')
            )
        qualify row_number() over (partition by results.test_name order by builds.started_at desc) <= ?
        order by results.test_name, builds.started_at
        """,
        [started_at, run_id, shown],
    ).fetchall()
    found: dict[str, list[str]] = {}
    for test, status in rows:
        found.setdefault(test, []).append(status)
    return found
