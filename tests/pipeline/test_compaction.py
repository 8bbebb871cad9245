"""Compaction as a person and the schedules see it: commands, runs, the check, the table of files."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from lake.snapshots import latest_snapshot
from lake.store import LocalStore

Petwellness = Callable[..., Any]


@pytest.fixture(scope="module")
def home(demo_state: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished demo, to compact."""
    assert demo_state.returncode == 0, demo_state.stdout[-2000:] + demo_state.stderr[-2000:]
    copy = tmp_path_factory.mktemp("compacted") / "home"
    shutil.copytree(demo_state.home, copy)
    return copy


@pytest.fixture(scope="module")
def environment(home: Path, small_fleet_environment: Callable[..., dict[str, str]]) -> dict[str, str]:
    return small_fleet_environment(home)


def arrival_days(home: Path) -> list[date]:
    folders = (home / "lake" / "landing" / "telemetry_events").iterdir()
    return sorted(date.fromisoformat(folder.name.removeprefix("date=")) for folder in folders)


@pytest.fixture(scope="module")
def compacted(home: Path, environment: dict[str, str], petwellness: Petwellness) -> list[Any]:
    return [
        petwellness("compact", "--day", day.isoformat(), "--even-if-open", env=environment)
        for day in arrival_days(home)
    ]


def test_an_open_day_is_refused_in_one_line(
    home: Path, environment: dict[str, str], petwellness: Petwellness
) -> None:
    today = arrival_days(home)[-1]
    if today != datetime.now(UTC).date():
        pytest.skip("midnight passed since the demo")
    refused = petwellness("compact", "--day", today.isoformat(), env=environment)
    assert refused.returncode == 1
    assert f"arrival day {today} may still get claims" in refused.stderr
    assert "Traceback" not in refused.stderr
    waits = petwellness("compact", "--dry-run", env=environment)
    assert waits.returncode == 0 and "nothing was changed" in waits.stdout


def test_a_day_is_compacted_and_checked(home: Path, compacted: list[Any]) -> None:
    for done in compacted:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "done; 1 checks passed" in done.stdout
    summary = json.loads((home / "demo_summary.json").read_text())
    store = LocalStore(home / "lake")
    snapshots = [latest_snapshot(store, day) for day in arrival_days(home)]
    assert sum(s.rows for s in snapshots if s) == summary["lake"]["telemetry_rows"]
    assert not [*(home / "scratch").iterdir()]


def test_compacting_again_changes_nothing(
    home: Path, environment: dict[str, str], compacted: list[Any], petwellness: Petwellness
) -> None:
    before = sorted(path for path in (home / "lake").rglob("*") if path.is_file())
    day = arrival_days(home)[0]
    assert petwellness("compact", "--day", day.isoformat(), "--even-if-open", env=environment).returncode == 0
    assert sorted(path for path in (home / "lake").rglob("*") if path.is_file()) == before


def test_the_table_of_files_follows(
    home: Path, environment: dict[str, str], compacted: list[Any], petwellness: Petwellness
) -> None:
    def files() -> dict[str, tuple[int, int, int]]:
        with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
            found = con.execute(
                "select kind, count(*), sum(row_count), sum(file_bytes) from raw.lake_files"
                " where feed = 'telemetry_events' group by all"
            ).fetchall()
        return {kind: tuple(rest) for kind, *rest in found}

    assert files().keys() == {"landing"}
    assert petwellness("load", env=environment).returncode == 0
    after = files()
    assert after["compacted"][1] == after["landing"][1]
    # Small as the fleet is, the originals are many.
    assert after["compacted"][0] < after["landing"][0]
    lake = home / "lake"
    on_disk = sum(path.stat().st_size for path in (lake / "compacted").rglob("*.parquet"))
    assert after["compacted"][2] == on_disk
    assert petwellness("load", env=environment).returncode == 0
    assert files() == after


def test_a_check_finds_a_damaged_file(
    home: Path, environment: dict[str, str], compacted: list[Any], petwellness: Petwellness, tmp_path: Path
) -> None:
    broken = tmp_path / "home"
    shutil.copytree(home, broken)
    file = next((broken / "lake" / "compacted").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    day = arrival_days(home)[0].isoformat()
    done = petwellness(
        "compact", "--day", day, "--even-if-open", env={**environment, "PETWELLNESS_HOME": str(broken)}
    )
    assert done.returncode == 1
    assert file.name in done.stderr and "sha256 differs" in done.stderr
    assert "Traceback" not in done.stderr


def test_orphans_are_shown_and_removed(
    home: Path, environment: dict[str, str], compacted: list[Any], petwellness: Petwellness
) -> None:
    folder = home / "lake" / "compacted" / "telemetry_events" / "date=2020-01-01"
    folder.mkdir()
    orphan = folder / "20200101T000000-abcdef-00000.parquet"
    orphan.write_bytes(b"x")
    told = petwellness("clean", "--dry-run", env=environment)
    assert told.returncode == 0 and "would remove 1 files" in told.stdout and orphan.exists()
    done = petwellness("clean", env=environment)
    assert done.returncode == 0 and "removed 1 files" in done.stdout and not orphan.exists()


def test_the_catalogue_is_rolled_up_and_shown(
    home: Path, environment: dict[str, str], petwellness: Petwellness
) -> None:
    shown = petwellness("catalogue", env=environment)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "telemetry_events" in shown.stdout and "owners" in shown.stdout


def test_the_nightly_tick_asks_for_each_day_that_waits(
    home: Path, manifest: Path, compacted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from petwellness_orchestration.definitions import build_definitions

    definitions = build_definitions()
    schedule = definitions.resolve_schedule_def("nightly_compaction")
    repository = definitions.get_repository_def()
    last = arrival_days(home)[-1]
    tick = datetime(last.year, last.month, last.day, 2, 30, tzinfo=UTC) + timedelta(days=1)

    def requests(at: datetime) -> Any:
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_schedule_context(
                instance=instance, scheduled_execution_time=at, repository_def=repository
            )
            return schedule.evaluate_tick(context)

    monkeypatch.setenv("PETWELLNESS_HOME", str(home))
    assert requests(tick).run_requests == []
    assert requests(tick).skip_message == "no closed arrival day waits"
    for path in (home / "lake" / "_snapshots").rglob("*.json"):
        path.unlink()
    asked = requests(tick).run_requests
    assert [request.partition_key for request in asked] == [day.isoformat() for day in arrival_days(home)]
    assert requests(tick - timedelta(hours=24)).run_requests == [] or len(arrival_days(home)) > 1
