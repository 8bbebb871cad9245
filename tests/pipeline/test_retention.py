"""Retention as a person sees it: the plan, the run with its check, and one command to bring a day back."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from governance.archive.cold import load_cold_days
from lake.store import LocalStore
from warehouse.compare import compare_tables
from warehouse.duckdb.raw import open_warehouse

Petwellness = Callable[..., Any]

# Ten days of events, one every 20 minutes; 95 days after the first of them six are past 90 days.
DUE = [date(2026, 6, day) for day in range(1, 7)]
ROWS_PER_DAY = 72
PRESENT = "2026-09-04 12:00:00"


@pytest.fixture(scope="module")
def home(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder whose warehouse has events, and nothing that waits to be built."""
    folder = tmp_path_factory.mktemp("retained") / "home"
    with open_warehouse(folder / "warehouse.duckdb") as con:
        con.execute("create schema anl")
        con.execute(
            "create table anl.telemetry_events as"
            " select 'e' || i as event_id, 'c1' as device_id, 'p1' as pet_id,"
            " timestamp '2026-06-01' + i * interval 20 minute as event_ts,"
            " cast(timestamp '2026-06-01' + i * interval 20 minute as date) as event_date"
            f" from range({10 * ROWS_PER_DAY}) as t(i)"
        )
        con.execute(
            "create table anl.telemetry_summary_hourly as"
            " select 'p1' as pet_id, timestamp '2026-09-01' as hour_ts, date '2026-09-01' as event_date"
        )
        con.execute("create table raw.before as from anl.telemetry_events")
        con.execute(f"insert into raw.watermark values (timestamp '{PRESENT}')")
    return folder


@pytest.fixture(scope="module")
def environment(home: Path, small_fleet_environment: Callable[..., dict[str, str]]) -> dict[str, str]:
    return small_fleet_environment(home)


def rows_by_day(home: Path, table: str) -> dict[date, int]:
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        return dict(con.execute(f"select event_date, count(*) from {table} group by all").fetchall())


def test_days_are_planned_moved_and_brought_back(
    home: Path, environment: dict[str, str], petwellness: Petwellness
) -> None:
    before = rows_by_day(home, "raw.before")
    assert [before[day] for day in DUE] == [ROWS_PER_DAY] * 6

    planned = petwellness("retain", "--dry-run", env=environment)
    assert planned.returncode == 0, planned.stderr
    [line] = [line for line in planned.stdout.splitlines() if line.startswith("anl.telemetry_events")]
    assert line.split()[1:7] == ["hot", "90", "6", "2026-06-01", "2026-06-06", "432"]
    assert "nothing was changed" in planned.stdout
    assert rows_by_day(home, "anl.telemetry_events") == before
    assert not [path for path in (home / "lake").rglob("*") if path.is_file()]

    moved = petwellness("retain", env=environment)
    assert moved.returncode == 0, moved.stdout + moved.stderr
    assert "cold/anl/telemetry_events: 6 days, 432 rows moved" in moved.stdout
    assert "done; 2 checks passed" in moved.stdout
    assert {*rows_by_day(home, "anl.telemetry_events")} == {*before} - {*DUE}
    in_force = load_cold_days(LocalStore(home / "lake"))
    assert {day: one.rows for (_, day), one in in_force.items()} == dict.fromkeys(DUE, ROWS_PER_DAY)

    restored = petwellness("restore", str(DUE[1]), env=environment)
    assert restored.returncode == 0, restored.stderr
    assert "anl.telemetry_events 2026-06-02: 72 rows are back" in restored.stdout
    day = "where event_date = date '2026-06-02'"
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        assert not compare_tables(con, f"(from raw.before {day})", con, f"(from anl.telemetry_events {day})")

    again = petwellness("restore", str(DUE[1]), "--table", "anl.telemetry_events", env=environment)
    assert "is in the warehouse already" in again.stdout
    released = petwellness("restore", str(DUE[1]), "--release", env=environment)
    assert "the next `petwellness retain` moves it" in released.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("2020-01-01", "--table", "anl.telemetry_events"),
            "anl.telemetry_events has no rows of 2020-01-01",
        ),
        (("2020-01-01",), "has no rows of 2020-01-01"),
        (
            ("2026-06-01", "--table", "cur.owners"),
            "no table 'cur.owners' has a retention limit; choose one of",
        ),
    ],
)
def test_what_cannot_be_restored_is_one_line(
    environment: dict[str, str], petwellness: Petwellness, arguments: tuple[str, ...], line: str
) -> None:
    failed = petwellness("restore", *arguments, env=environment)
    assert failed.returncode == 1
    assert line in failed.stderr and "Traceback" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
