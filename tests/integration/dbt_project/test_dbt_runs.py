"""Two dbt runs at once: in one process the second waits, from another process it says who holds the file."""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from warehouse.duckdb.raw import open_warehouse
from contracts.settings import StateSettings
from petwellness_orchestration.defs.warehouse.dbt_run import DbtRun, run_dbt
from petwellness_orchestration.defs.warehouse.manifest import parsed_project
from petwellness_orchestration.settings import PlatformSettings, load_settings


def settings_at(home: Path) -> PlatformSettings:
    return dataclasses.replace(load_settings(), state=StateSettings(home=home))


def build_clinics(settings: PlatformSettings) -> DbtRun:
    return run_dbt(
        settings,
        ["run", "--select", "stg_clinics", "cur_clinics"],
        {"dirty_days": [], "as_of_ts": None},
        settings.state.home / "dbt",
        project=parsed_project(),
    )


def land_clinic(settings: PlatformSettings, clinic: str) -> None:
    moment = "timestamp '2026-06-01 08:00:00'"
    with open_warehouse(settings.state.warehouse_path) as con:
        con.execute(
            "insert into raw.clinics by name select 's' as stream_id, 0 as kafka_partition, 0 as kafka_offset,"
            f" {moment} as arrival_ts, {moment} as ingested_at, 'crm' as source_system, 'f' as source_file,"
            f" '{clinic}' as business_key, '{clinic}' as clinic_id, 'upsert' as op, {moment} as changed_at,"
            f" {moment} as extracted_at, '{{}}' as payload"
        )


def test_two_runs_in_one_process_each_build_their_own_warehouse(tmp_path: Path) -> None:
    all_settings = [settings_at(tmp_path / name) for name in ("north", "south")]
    for settings in all_settings:
        land_clinic(settings, settings.state.home.name)
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(build_clinics, all_settings))
    assert [(run.failures, run.error) for run in runs] == [([], None), ([], None)]
    for settings in all_settings:
        with duckdb.connect(str(settings.state.warehouse_path), read_only=True) as con:
            assert con.execute("select clinic_id from cur.clinics").fetchall() == [
                (settings.state.home.name,)
            ]


def test_a_run_on_a_file_that_another_process_holds_fails_and_the_next_goes_through(tmp_path: Path) -> None:
    """Runs of the platform wait for each other in the pool `duckdb`; this is what guards against all others."""
    settings = settings_at(tmp_path / "held")
    land_clinic(settings, "c1")
    hold = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.readline()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(settings.state.warehouse_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        blocked = build_clinics(settings)
        assert not blocked.succeeded
        assert "lock" in f"{blocked.error} {blocked.failures}"
    finally:
        holder.communicate("done\n")
    assert build_clinics(settings).succeeded
