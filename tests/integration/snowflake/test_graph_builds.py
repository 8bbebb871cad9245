"""The graph's build in an environment on Snowflake, on the emulator: what it starts from, what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infrastructure.snowflake_emulator.local import LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database
from ingestion.environments import environment_named
from ingestion.lake.landing import list_manifests
from ingestion.lake.store import LocalStore
from ingestion.loading import snowflake_raw
from ingestion.loading.ledger import WAREHOUSE_MARK
from ingestion.loading.snowflake_connection import open_snowflake, run
from ingestion.settings import SnowflakeSettings
from parity.targets import NoPipes
from parity.world import World, WorldSize

# In a process of its own: the graph is made of the project as its environment parses it.
BUILD = """
import json
import dagster as dg
from petwellness_orchestration.defs.warehouse.assets import warehouse
from petwellness_orchestration.defs.warehouse.partitions import DIRTY_TAGS, EVENT_DAYS
from petwellness_orchestration.resources import PlatformResource

done = dg.materialize(
    [warehouse],
    resources={"platform": PlatformResource()},
    partition_key=EVENT_DAYS.get_last_partition_key(),
    tags=DIRTY_TAGS,
    instance=dg.DagsterInstance.ephemeral(),
    raise_on_error=False,
)
rows = {
    event.asset_key.to_user_string(): event.materialization.metadata["dagster/row_count"].value
    for event in done.get_asset_materialization_events()
    if "dagster/row_count" in event.materialization.metadata
}
failed = [event.step_failure_data.error.to_string()[-2000:] for event in done.get_step_failure_events()]
checks = [one.passed for one in done.get_asset_check_evaluations()]
print(json.dumps([done.success, failed, rows, len(checks), all(checks)]))
"""

pytestmark = pytest.mark.timeout(1800)


def test_a_build_takes_up_what_was_loaded_and_vouches_for_it(
    emulator: LocalEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = environment_named("ci").snowflake
    assert account is not None
    store = LocalStore(tmp_path / "lake")
    with emulator.connect() as con:
        create_database(con, account.database, f"file://{store.url}/landing/")
    for name, value in emulator.dbt_environment(account.database).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "ci")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PETWELLNESS_LAKE_URL", str(store.url))

    world = World(WorldSize(collars=2, initial_days=1, increments=0, with_end=False))
    world.land(store, next(iter(world.steps())))
    with open_snowflake(SnowflakeSettings(), {"run": "test"}) as con:
        snowflake_raw.load_pending(con, store, list_manifests(store), NoPipes())
        assert snowflake_raw.build_mark(con, WAREHOUSE_MARK) == 0
        assert snowflake_raw.dirty_days(con, 0)

    done = subprocess.run(
        [sys.executable, "-c", BUILD], env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    success, failed, rows, check_count, passed = json.loads(done.stdout.splitlines()[-1])
    assert success, failed
    assert passed
    assert check_count > 100
    with open_snowflake(SnowflakeSettings(), {"run": "test"}) as con:
        assert snowflake_raw.build_mark(con, WAREHOUSE_MARK) == snowflake_raw.latest_load_seq(con)
        assert snowflake_raw.dirty_days(con, snowflake_raw.build_mark(con, WAREHOUSE_MARK)) == []
        for table in ("anl.telemetry_events", "cur.pets", "ml.computed_features"):
            [(there,)] = run(con, f"select count(*) as row_count from {table}")
            assert rows[table.replace(".", "/")] == there, table
        [(events,)] = run(con, "select count(*) as row_count from anl.telemetry_events")
        assert events > 0
        assert len(run(con, "select salt from raw.hash_salt")) == 1
