"""The graph's loads in an environment on Snowflake, on the emulator, with a stand-in for the account's pipes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from moto.server import ThreadedMotoServer

from infrastructure.snowflake_emulator.local import LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database
from petwellness_orchestration import loading, names
from petwellness_orchestration.defs.raw.assets import lake_and_raw_reconcile, raw_loads
from petwellness_orchestration.defs.raw.snowflake import pipes_run, reconciliation, waiting_ranges_sensor
from petwellness_orchestration.resources import PlatformResource
from warehouse.environments import environment_named
from warehouse.snowflake.pipes import MISSING
from warehouse.snowflake.settings import SnowflakeSettings

from .stand_in import KEYS, Zone, landing_zone, lose

FEED = "telemetry_events"


@pytest.fixture
def zone(emulator: LocalEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    """A landing zone whose database is that of the environment `dev`, and settings that say so."""
    account = environment_named("dev").snowflake
    assert account is not None
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    emulator.use_s3(endpoint, KEYS["aws_access_key_id"], KEYS["aws_secret_access_key"])

    def sign_in_to(landing_url: str) -> SnowflakeSettings:
        with emulator.connect() as con:
            create_database(con, account.database, landing_url)
        for name, value in emulator.dbt_environment(account.database).items():
            monkeypatch.setenv(name, value)
        lake = {"URL": landing_url.removesuffix("/landing/"), "ENDPOINT_URL": endpoint, "REGION": "us-east-1"}
        lake |= {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}
        for name, value in lake.items():
            monkeypatch.setenv(f"PETWELLNESS_LAKE_{name}", value)
        monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "dev")
        monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
        return SnowflakeSettings()

    with landing_zone(endpoint, tmp_path, sign_in_to) as found:
        yield found
    server.stop()


def test_raw_is_loaded_reconciled_and_its_pipes_looked_at(zone: Zone) -> None:
    zone.land(5)
    zone.deliver()
    zone.land(4)
    lose(zone.pipes)

    class Platform(PlatformResource):
        def pipes(self, con: Any) -> Any:
            return zone.pipes

    platform = Platform()
    instance = dg.DagsterInstance.ephemeral()

    def materialized(*definitions: Any) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [*definitions], resources={"platform": platform}, instance=instance, raise_on_error=False
        )

    def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
        return {one.check_name: one for one in result.get_asset_check_evaluations()}

    loaded = materialized(raw_loads, lake_and_raw_reconcile, pipes_run)
    assert loaded.success
    said = {one.check_name: one.passed for one in loaded.get_asset_check_evaluations()}
    assert said == {"lake_and_raw_reconcile": True, "pipes_run": True}
    [event] = [
        one
        for one in loaded.asset_materializations_for_node("raw_loads")
        if one.asset_key == names.LOAD_HISTORY
    ]
    metadata = {key: value.value for key, value in event.metadata.items()}
    assert (metadata["ranges_adopted"], metadata["ranges_copied"], metadata[names.RANGES_WAITING]) == (
        1,
        1,
        0,
    )
    assert zone.content() == zone.embedded_content()

    # A stopped pipe warns, one that cannot be seen blocks; loads copy what a stopped one does not bring.
    zone.pipes.states[FEED] = "STOPPED_STAGE_DROPPED"
    stopped = checks(materialized(raw_loads, pipes_run))["pipes_run"]
    assert (stopped.passed, stopped.severity) == (False, dg.AssetCheckSeverity.WARN)
    zone.pipes.states[FEED] = MISSING
    missing = checks(materialized(raw_loads, pipes_run))["pipes_run"]
    assert (missing.passed, missing.severity) == (False, dg.AssetCheckSeverity.ERROR)

    # What is left of a range by hand is found by the whole reconciliation and by nothing else.
    zone.rows(f"delete from raw.{FEED} where kafka_offset = 1")
    found = materialized(reconciliation)
    assert not found.success
    gaps = loading.reconcile_account(platform, "test")
    assert {"rows differ", "pipe missing"} <= {gap.kind.name for gap in gaps.gaps}
    assert loading.forget(platform, "test", gaps.to_reload) == 4
    assert materialized(raw_loads).success
    assert zone.content() == zone.embedded_content()


def test_ranges_that_were_left_to_their_pipes_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = dg.DagsterInstance.ephemeral()
    context = dg.build_sensor_context(instance=instance)
    assert isinstance(waiting_ranges_sensor(context), dg.SkipReason)

    @dg.asset(key=names.LOAD_HISTORY)
    def a_load() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={names.RANGES_WAITING: 2})

    loaded = dg.materialize([a_load], instance=instance)
    waits = waiting_ranges_sensor(context)
    assert isinstance(waits, dg.SkipReason)
    assert "2 ranges were left" in str(waits.skip_message)
    monkeypatch.setenv("PETWELLNESS_SNOWFLAKE_PIPE_GRACE_S", "0")
    asked = waiting_ranges_sensor(context)
    assert isinstance(asked, dg.RunRequest)
    assert loaded.run_id in str(asked.run_key)
