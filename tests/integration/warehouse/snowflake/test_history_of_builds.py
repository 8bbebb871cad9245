"""The history of builds on Snowflake says what that of the embedded warehouse says, on the emulator."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pytest

from infrastructure.snowflake_emulator.local import LocalEmulator
from petwellness_orchestration.observing import observe
from warehouse.builds.history import (
    TABLES,
    Build,
    ModelRun,
    OpsSession,
    TestRun,
    present_columns,
    record_build,
)
from warehouse.builds.sessions import DuckDBOps, SnowflakeOps
from warehouse.snowflake.session import SnowflakeError, run

START = datetime(2026, 6, 20, 3)
AS_OF = datetime(2026, 6, 20, 2)
DAYS = [date(2026, 6, 1) + timedelta(days=number) for number in range(19)]

COLUMNS = {"anl.events": {"event_id": "TEXT", "steps": "NUMBER"}}
WIDER = {"anl.events": {"event_id": "TEXT", "steps": "FLOAT", "licks": "NUMBER"}, "anl.more": {"x": "TEXT"}}


def build(number: int, hours: int | None = None, **more: Any) -> Build:
    """The last but one is slow, has few rows on its last day and a failing test."""
    is_odd = number == 5
    started_at = START + timedelta(hours=number if hours is None else hours)
    return Build(
        run_id=f"run-{number}",
        started_at=started_at,
        duration_s=9.5,
        succeeded=not is_odd,
        day_count=1,
        is_full=False,
        as_of_ts=AS_OF,
        error="it's 100 % wrong" if is_odd else None,
        models=[
            ModelRun("anl.events", "success", started_at, 9.0 if is_odd else 1.0, 1900),
            ModelRun("anl.gone", "skipped", None, 0.0),
        ],
        tests=[TestRun("key_is_unique", "fail" if is_odd else "pass", started_at, 0.1, 3 if is_odd else 0)],
        volumes={"anl.events": {**dict.fromkeys(DAYS, 100), DAYS[-1]: 40 if is_odd else 100}},
        **more,
    )


def builds() -> list[tuple[Build, dict[str, dict[str, str]]]]:
    """A build written twice, columns that come and change, and at last one after which the first are too old."""
    usual = [(build(number), COLUMNS) for number in (0, 1, 1, 2, 3, 4)]
    return [*usual, (build(5), WIDER), (build(6, hours=24 * 401), WIDER)]


def rows(session: OpsSession, name: str) -> list[tuple[Any, ...]]:
    found = session.query(f"select {', '.join(TABLES[name].names)} from ops.{name}")
    return sorted((tuple(row) for row in found), key=repr)


def test_both_keep_and_say_the_same(emulator: LocalEmulator, make_database: Callable[[str], str]) -> None:
    database = make_database("file:///nowhere/landing/")
    with duckdb.connect() as con, emulator.connect(database, "RAW") as account:
        embedded, snowflake = DuckDBOps(con), SnowflakeOps(account)
        assert observe(snowflake) is observe(embedded) is None
        for one, columns in builds():
            told = [[str(change) for change in record_build(s, one, columns)] for s in (embedded, snowflake)]
            assert told[0] == told[1]
            assert bool(told[0]) == (one.run_id == "run-5")
            for name in TABLES:
                assert rows(embedded, name) == rows(snowflake, name), (one.run_id, name)
            for run_id in (None, "run-0", one.run_id, "nobody"):
                assert observe(embedded, run_id) == observe(snowflake, run_id), (one.run_id, run_id)
        assert {row[0] for row in rows(snowflake, "builds")} == {"run-6"}


def test_what_is_out_of_the_ordinary_is_told(
    emulator: LocalEmulator, make_database: Callable[[str], str]
) -> None:
    with emulator.connect(make_database("file:///nowhere/landing/"), "RAW") as account:
        session = SnowflakeOps(account)
        for one, columns in builds()[:-1]:
            record_build(session, one, columns)
        seen = observe(session)
    assert seen is not None
    assert (seen.run_id, seen.succeeded) == ("run-5", False)
    assert seen.failing_tests == {"key_is_unique": ["pass"] * 5 + ["fail"]}
    assert [str(one) for one in seen.volumes if one.is_anomaly]
    assert [one.table_name for one in seen.times if one.is_slow] == ["anl.events"]
    assert seen.column_changes == [
        "anl.events.licks added (NUMBER)",
        "anl.events.steps was NUMBER and is FLOAT",
    ]


def test_a_build_is_kept_whole_or_not(emulator: LocalEmulator, make_database: Callable[[str], str]) -> None:
    with emulator.connect(make_database("file:///nowhere/landing/"), "RAW") as account:
        session = SnowflakeOps(account)
        record_build(session, build(0), COLUMNS)
        run(account, "alter table ops.test_results rename column status to other")
        with pytest.raises(SnowflakeError):
            record_build(session, build(1), COLUMNS)
        assert [row[0] for row in rows(session, "builds")] == ["run-0"]


def test_columns_of_all_layers_are_seen(emulator: LocalEmulator, make_database: Callable[[str], str]) -> None:
    database = make_database("file:///nowhere/landing/")
    with emulator.connect(database, "RAW") as account:
        run(account, "create table anl.events (event_id varchar, event_ts timestamp_ntz)")
        found = present_columns(lambda sql: run(account, sql))
    assert list(found["anl.events"]) == ["event_id", "event_ts"]
    assert "raw.load_history" in found
    assert not [table for table in found if table.startswith("ops.")]
