"""The checks on the kept history: what they say of a build that is usual, unusual, missing or the first."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from petwellness_orchestration.defs.quality.observability import results
from petwellness_orchestration.resources import PlatformResource
from warehouse.builds.history import Build, ModelRun, TestRun, present_columns, record_build
from warehouse.builds.sessions import DuckDBOps

START = datetime(2026, 6, 20, 3)
AS_OF = datetime(2026, 6, 20, 2)  # a Saturday: Wednesday to Friday are judged


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    return tmp_path


def keep(home: Path, number: int, seconds: float = 1.0, friday: int = 100, status: str = "pass") -> None:
    """One build, of nineteen days with 100 rows each but for the last."""
    started_at = START + timedelta(hours=number)
    by_day = {date(2026, 6, 1) + timedelta(days=back): 100 for back in range(19)}
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        record_build(
            DuckDBOps(con),
            Build(
                run_id=f"run-{number}",
                started_at=started_at,
                duration_s=9,
                succeeded=True,
                day_count=1,
                is_full=False,
                as_of_ts=AS_OF,
                models=[ModelRun("anl.events", "success", started_at, seconds, 1900)],
                tests=[TestRun("key_is_unique", status, started_at, 0.1, 0)],
                volumes={"anl.events": {**by_day, date(2026, 6, 19): friday}},
            ),
            present_columns(lambda sql: con.execute(sql).fetchall()),
        )


def told(run_id: str) -> dict[str, tuple[bool, dict[str, Any]]]:
    found = list(results(PlatformResource(), run_id))
    assert {one.severity for one in found} == {dg.AssetCheckSeverity.WARN}
    return {
        str(one.check_name): (one.passed, {name: value.value for name, value in one.metadata.items()})
        for one in found
    }


def test_usual_builds_pass_and_a_first_one_has_nothing_to_compare_times_with(home: Path) -> None:
    keep(home, 0)
    first = told("run-0")
    assert {name: passed for name, (passed, _) in first.items()} == {
        "volumes_are_usual": True,
        "columns_are_unchanged": True,
        "models_take_their_usual_time": True,
        "tables_are_fresh": True,
    }
    assert first["models_take_their_usual_time"][1]["status"] == "not applicable"
    assert first["volumes_are_usual"][1]["judged"] == 3
    assert first["tables_are_fresh"][1]["seen"] == {"anl.events": "2026-06-19 (0 days late)"}


def test_what_is_unusual_warns_with_names_and_figures(home: Path) -> None:
    for number in range(5):
        keep(home, number)
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("create schema anl")
        con.execute("create table anl.events (steps integer)")
    keep(home, 5)
    with duckdb.connect(str(home / "warehouse.duckdb")) as con:
        con.execute("alter table anl.events add column licks integer")
    keep(home, 6, seconds=9.0, friday=60, status="fail")
    found = told("run-6")
    assert not any(passed for name, (passed, _) in found.items() if name != "tables_are_fresh")
    assert found["volumes_are_usual"][1]["found"] == ["anl.events 2026-06-19: 60 rows, usually 100"]
    assert found["columns_are_unchanged"][1]["found"] == ["anl.events.licks added (INTEGER)"]
    assert found["models_take_their_usual_time"][1]["found"] == ["anl.events: 9.0 s, usually 1.0 s"]
    assert found["models_take_their_usual_time"][1]["seen"]["test key_is_unique"].endswith("pass, fail")


def test_a_build_that_was_not_recorded_fails_and_before_any_build_nothing_applies(home: Path) -> None:
    before = told("run-0")
    assert all(passed for passed, _ in before.values())
    assert {metadata["status"] for _, metadata in before.values()} == {"not applicable"}
    keep(home, 0)
    # A run that only publishes looks at the newest build.
    assert told("a run without a build")["columns_are_unchanged"][0]
    # dbt's folder of the run says that it built.
    (home / "dbt" / "run-1").mkdir(parents=True)
    lost = told("run-1")
    assert not any(passed for passed, _ in lost.values())
    assert {metadata["reason"] for _, metadata in lost.values()} == {
        "this build is not in ops.builds; the run's log says why"
    }
    # Tests alone leave a folder, too, and are about the newest build.
    assert all(one.passed for one in results(PlatformResource(), "run-1", builds=False))
