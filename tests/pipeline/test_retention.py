"""Retention as a person sees it: the plan, the run with its check, and one command to bring a day back."""

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingestion.lake.store import LocalStore
from ingestion.tiers.cold import load_cold_days

Petwellness = Callable[..., Any]

# The demo's fleet sends from 1 to 14 June; seen from here, its first six days are past 90 days.
PRESENT = "2026-09-04 12:00:00"
DUE = [date(2026, 6, day) for day in range(1, 7)]


@pytest.fixture(scope="module")
def home(demo_state: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished demo, three months later."""
    assert demo_state.returncode == 0, demo_state.stdout[-2000:] + demo_state.stderr[-2000:]
    copy = tmp_path_factory.mktemp("retained") / "home"
    shutil.copytree(demo_state.home, copy)
    with duckdb.connect(str(copy / "warehouse.duckdb")) as con:
        con.execute(f"update raw.breeds set arrival_ts = timestamp '{PRESENT}'")
        con.execute("create table raw.before as from anl.telemetry_events")
    return copy


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
    due = [day for day in DUE if day in before]
    assert due
    lake = sorted(path for path in (home / "lake").rglob("*") if path.is_file())

    planned = petwellness("retain", "--dry-run", env=environment)
    assert planned.returncode == 0, planned.stderr
    [line] = [line for line in planned.stdout.splitlines() if line.startswith("anl.telemetry_events")]
    rows = f"{sum(before[day] for day in due):,}"
    assert line.split()[1:7] == ["hot", "90", str(len(due)), str(due[0]), str(due[-1]), rows]
    assert "nothing was changed" in planned.stdout
    assert rows_by_day(home, "anl.telemetry_events") == before
    assert sorted(path for path in (home / "lake").rglob("*") if path.is_file()) == lake

    moved = petwellness("retain", env=environment)
    assert moved.returncode == 0, moved.stdout + moved.stderr
    assert f"cold/anl/telemetry_events: {len(due)} days, {rows} rows moved" in moved.stdout
    assert "done; 1 checks passed" in moved.stdout
    assert {*rows_by_day(home, "anl.telemetry_events")} == {*before} - {*due}
    in_force = load_cold_days(LocalStore(home / "lake"))
    assert {day: one.rows for (_, day), one in in_force.items()} == {day: before[day] for day in due}

    restored = petwellness("restore", str(due[1]), env=environment)
    assert restored.returncode == 0, restored.stderr
    assert f"anl.telemetry_events {due[1]}: {before[due[1]]:,} rows are back" in restored.stdout
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        day = f"where event_date = date '{due[1]}'"
        assert con.execute(
            f"select count(*) from (from raw.before {day} except all from anl.telemetry_events {day})"
        ).fetchall() == [(0,)]
    assert rows_by_day(home, "anl.telemetry_events")[due[1]] == before[due[1]]

    again = petwellness("restore", str(due[1]), "--table", "anl.telemetry_events", env=environment)
    assert "is in the warehouse already" in again.stdout
    released = petwellness("restore", str(due[1]), "--release", env=environment)
    assert "the next `petwellness retain` moves it" in released.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("2020-01-01",), "anl.telemetry_events has no rows of 2020-01-01"),
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
