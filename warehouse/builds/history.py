"""Builds of the warehouse in schema `ops`: models, tests, volumes, columns.

One row per build and thing, never changed afterwards. Times are of the wall clock:
this is the history of operations, not data, so it is no part of the equality of
rebuilds and cannot be rebuilt from the lake; a rebuild carries it over. How a
warehouse is asked and written to is `sessions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from contracts.columns import TIMESTAMP

OBSERVED_SCHEMAS = ("raw", "stg", "cur", "anl", "ml")
KEPT_FOR = timedelta(days=400)
# Days of volumes to compare with: 14 of weekends are seven weeks.
VOLUME_DAYS = 60

# What happened to a column; FIRST is the first sight of its table.
FIRST, ADDED, REMOVED, CHANGED = "first", "added", "removed", "changed"

TABLES: dict[str, pa.Schema] = {
    "builds": pa.schema(
        {
            "run_id": pa.string(),
            "started_at": TIMESTAMP,
            "duration_s": pa.float64(),
            "succeeded": pa.bool_(),
            "error": pa.string(),
            "day_count": pa.int32(),
            "is_full": pa.bool_(),
            "as_of_ts": TIMESTAMP,
        }
    ),
    "model_runs": pa.schema(
        {
            "run_id": pa.string(),
            "table_name": pa.string(),
            "status": pa.string(),
            "started_at": TIMESTAMP,
            "duration_s": pa.float64(),
            "row_count": pa.int64(),
        }
    ),
    "test_results": pa.schema(
        {
            "run_id": pa.string(),
            "test_name": pa.string(),
            "status": pa.string(),
            "started_at": TIMESTAMP,
            "duration_s": pa.float64(),
            "failure_count": pa.int64(),
        }
    ),
    "table_volumes": pa.schema(
        {
            "run_id": pa.string(),
            "table_name": pa.string(),
            "event_date": pa.date32(),
            "row_count": pa.int64(),
            "recorded_at": TIMESTAMP,
        }
    ),
    "column_changes": pa.schema(
        {
            "run_id": pa.string(),
            "table_name": pa.string(),
            "column_name": pa.string(),
            "change": pa.string(),
            "data_type": pa.string(),
            "previous_type": pa.string(),
            "recorded_at": TIMESTAMP,
        }
    ),
}


class OpsSession(Protocol):
    """Schema `ops` of a warehouse; each `?` of a statement stands for one of `values`."""

    def query(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        """The rows of one statement."""

    def insert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to one of TABLES; a column that a row has not is null."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside, or nothing."""


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


def record_build(
    session: OpsSession, build: Build, columns: Mapping[str, Mapping[str, str]]
) -> list[ColumnChange]:
    """Write one build and how `columns` (of `present_columns`) differ from those of the build before, in one
    transaction.

    Writing the same build again replaces it. Builds older than KEPT_FOR go; changes of columns stay, because
    they tell what columns there are. Returns the changes.
    """
    recorded_at = build.started_at + timedelta(seconds=build.duration_s)
    with session.transaction():
        for name in TABLES:
            session.query(f"delete from ops.{name} where run_id = ?", [build.run_id])
        _forget_old(session, recorded_at)
        changes = compared_columns(_columns_before(session), columns)
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
            session.insert(name, [{"run_id": build.run_id, **row} for row in found])
    return [change for change in changes if change.change != FIRST]


def _forget_old(session: OpsSession, now: datetime) -> None:
    old = "select run_id from ops.builds where started_at < ?"
    # The list of builds last: the others go by it.
    for name in sorted(TABLES.keys() - {"column_changes"}, key=lambda name: name == "builds"):
        session.query(f"delete from ops.{name} where run_id in ({old})", [now - KEPT_FOR])


def _columns_before(session: OpsSession) -> dict[str, dict[str, str]]:
    """Columns as the last record of each says, by table."""
    before: dict[str, dict[str, str]] = {}
    for table, column, data_type in session.query(
        "select table_name, column_name, data_type from ops.column_changes qualify row_number() over"
        " (partition by table_name, column_name order by recorded_at desc, run_id desc) = 1"
    ):
        if data_type is not None:
            before.setdefault(table, {})[column] = data_type
    return before


def present_columns(query: Callable[[str], Sequence[Sequence[Any]]]) -> dict[str, dict[str, str]]:
    """Columns and their types that there are now, by table; `query` sees the tables of all layers."""
    listed = ", ".join(f"'{schema}'" for schema in OBSERVED_SCHEMAS)
    now: dict[str, dict[str, str]] = {}
    for table, column, data_type in query(
        "select lower(table_schema || '.' || table_name) as full_name, lower(column_name) as column_name, data_type"
        " from information_schema.columns"
        f" where table_catalog = current_database() and lower(table_schema) in ({listed})"
        " order by full_name, ordinal_position"
    ):
        now.setdefault(table, {})[column] = data_type
    return now


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


def kept_build(session: OpsSession, run_id: str | None = None) -> Build | None:
    """A run's build (None: the newest) without its models, tests and volumes; None when it is not in the history."""
    of_run, values = ("where run_id = ?", [run_id]) if run_id else ("", [])
    rows = session.query(
        "select run_id, started_at, duration_s, succeeded, day_count, is_full, as_of_ts, error"
        f" from ops.builds {of_run} order by started_at desc limit 1",
        values,
    )
    return Build(*rows[0]) if rows else None


def volumes(session: OpsSession, since: date) -> dict[str, dict[date, int]]:
    """Rows of each daily table by event date from `since` on, as last counted."""
    found: dict[str, dict[date, int]] = {}
    for table, day, rows in session.query(
        "select table_name, event_date, row_count from ops.table_volumes where event_date >= ?"
        " qualify row_number() over (partition by table_name, event_date order by recorded_at desc) = 1",
        [since],
    ):
        found.setdefault(table, {})[day] = rows
    return found


def column_changes(session: OpsSession, run_id: str) -> list[ColumnChange]:
    """Columns that changed with one build, without those of tables seen for the first time."""
    rows = session.query(
        "select table_name, column_name, change, data_type, previous_type from ops.column_changes"
        f" where run_id = ? and change <> '{FIRST}' order by table_name, column_name",
        [run_id],
    )
    return [ColumnChange(*row) for row in rows]


def model_times(
    session: OpsSession, run_id: str, started_at: datetime
) -> dict[str, tuple[float, list[float]]]:
    """Seconds of each model that one build built, and in comparable builds before it, the newest first.

    Comparable are builds of about as many days, an increment with increments only.
    """
    rows = session.query(
        """
        select runs.table_name, runs.duration_s, earlier.duration_s as earlier_s
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
    )
    found: dict[str, tuple[float, list[float]]] = {}
    for table, seconds, earlier in rows:
        times = found.setdefault(table, (seconds, []))[1]
        if earlier is not None:
            times.append(earlier)
    return found


def failing_tests(session: OpsSession, run_id: str, started_at: datetime, shown: int) -> dict[str, list[str]]:
    """Tests that did not pass in one build, each with its last statuses up to then, the oldest first."""
    rows = session.query(
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
    )
    found: dict[str, list[str]] = {}
    for test, status in rows:
        found.setdefault(test, []).append(status)
    return found
