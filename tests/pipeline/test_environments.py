"""The code location of every environment: loads without a connection, has what its warehouse can do, starts by itself
in production only."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from petwellness_orchestration.defs.warehouse.manifest import parsed_dir
from warehouse.environments import ENVIRONMENTS, EnvironmentName, WarehouseKind

PRODUCTION = {
    "PETWELLNESS_PRODUCTION": "yes",
    "PETWELLNESS_LAKE_URL": "s3://lake/petwellness",
    "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS": "kafka.invalid:9092",
    "PETWELLNESS_DATA": "/nowhere",
    "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": "refuse",
    "PETWELLNESS_RETENTION_JURISDICTION": "CH-ZH",
}

# Prints the graph of each environment: a fork of its own for each, because what is on follows from settings at import,
# of one process that has imported what takes long. To each belongs where its parsed project is, if not at its own place.
LOADED = """
import gc, json, os, socket, sys
from pathlib import Path

import dagster as dg
import dagster_dbt
import dagster.components.core.defs_module, pydantic_settings
import dbt.adapters.duckdb, dbt.adapters.snowflake, dbt.cli.main

# No fork collects, and so copies, what all of them share.
gc.freeze()

def refuse(*_, **__):
    raise AssertionError("a connection was opened while the graph was loaded")

socket.socket.connect = refuse

def graph_of(settings, parsed):
    os.environ.update(settings)
    if parsed is not None:
        from petwellness_orchestration.defs.warehouse import manifest
        manifest.parsed_dir = lambda: Path(parsed)
    from petwellness_orchestration.definitions import definitions
    defs = definitions()
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    graph = defs.resolve_asset_graph()
    return {
        "assets": {n.key.to_user_string(): sorted(n.kinds) for n in graph.asset_nodes if n.is_executable},
        "checks": sorted(f"{n.key.asset_key.to_user_string()}:{n.key.name}" for n in graph.asset_check_nodes),
        "jobs": {
            job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
            for job in repository.get_all_jobs()
            if not job.name.startswith("__")
        },
        "statuses": {
            one.name: one.default_status.value for one in (*repository.schedule_defs, *repository.sensor_defs)
        },
    }

assert not [name for name in sys.modules if name.startswith("petwellness_orchestration")]
for settings, parsed in json.loads(sys.argv[1]):
    sys.stdout.flush()
    if not (pid := os.fork()):
        print(json.dumps(graph_of(settings, parsed)))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, settings
"""

# What the tests below ask for: an environment, and settings beside it. The one whose parsed project stands for those of
# all environments on Snowflake comes first: theirs differ from it in the database's name alone, and each takes 8 s.
PARSED = EnvironmentName.CI
ASKED: tuple[tuple[str, dict[str, str]], ...] = (
    *((name.value, {}) for name in sorted(EnvironmentName, key=lambda name: name is not PARSED)),
    ("embedded", {"PETWELLNESS_AUTOMATION": "true"}),
    ("prod", {"PETWELLNESS_AUTOMATION": "false"}),
    ("dev", {"PETWELLNESS_DEVELOPER": "anna"}),
)


def settings_of(name: str, more: dict[str, str]) -> dict[str, str]:
    """Variables of an environment that is one."""
    return {"PETWELLNESS_ENVIRONMENT": name, **(PRODUCTION if name == "prod" else {}), **more}


def parse_of(name: str, more: dict[str, str]) -> str | None:
    """Where the parsed project of another environment is that will do."""
    if name not in on_snowflake() or name == PARSED or "PETWELLNESS_DEVELOPER" in more:
        return None
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PETWELLNESS_ENVIRONMENT", PARSED)
        return str(parsed_dir())


@cache
def all_loaded(each_with_its_own_parse: bool = False) -> list[dict[str, Any]]:
    """The graph of everything that is asked for, in that order."""
    asked = [
        (settings_of(name, more), None if each_with_its_own_parse else parse_of(name, more))
        for name, more in ASKED
    ]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED, json.dumps(asked)],
        check=False,
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def loaded(name: str, **more: str) -> dict[str, Any]:
    """The graph of an environment."""
    return all_loaded()[ASKED.index((name, more))]


# What an account has beside the embedded graph: costs, access audit, and what looks after pipes.
ACCOUNT_ASSETS = {"operations/costs", "ops/access_audit", "operations/reconciliation", "ops/builds"}
ACCOUNT_JOBS = {
    "report_costs": ["operations/costs"],
    "audit_access": ["ops/access_audit"],
    "reconcile_raw": ["operations/reconciliation"],
}
ACCOUNT_SCHEDULES = {
    "hourly_costs",
    "nightly_access_audit",
    "nightly_reconciliation",
    "waiting_ranges_sensor",
}
# What is said of builds stands on the published copy, and where there is none on their history.
OBSERVATIONS = {
    "volumes_are_usual",
    "columns_are_unchanged",
    "models_take_their_usual_time",
    "tables_are_fresh",
}
ACCOUNT_CHECKS = {"raw/load_history:pipes_run", *(f"ops/builds:{name}" for name in OBSERVATIONS)}


def on_snowflake() -> list[str]:
    return [one.name for one in ENVIRONMENTS.values() if one.warehouse is WarehouseKind.SNOWFLAKE]


@pytest.mark.full
@pytest.mark.usefixtures("manifest")
def test_the_graph_is_the_same_from_every_environments_own_parse() -> None:
    assert all_loaded(each_with_its_own_parse=True) == all_loaded()


@pytest.mark.usefixtures("manifest")
@pytest.mark.parametrize("name", [*EnvironmentName])
def test_only_production_starts_by_itself(name: EnvironmentName) -> None:
    statuses = loaded(name)["statuses"]
    # None is left out by being absent.
    embedded = loaded("embedded")["statuses"].keys()
    expected = embedded - {"nightly_retention"} | ACCOUNT_SCHEDULES if name in on_snowflake() else embedded
    assert statuses.keys() == expected
    assert set(statuses.values()) == {"RUNNING" if name == "prod" else "STOPPED"}


@pytest.mark.usefixtures("manifest")
def test_it_starts_where_somebody_asks_and_stops_in_production_where_somebody_says_so() -> None:
    assert set(loaded("embedded", PETWELLNESS_AUTOMATION="true")["statuses"].values()) == {"RUNNING"}
    assert set(loaded("prod", PETWELLNESS_AUTOMATION="false")["statuses"].values()) == {"STOPPED"}


@pytest.mark.parametrize("name", on_snowflake())
def test_the_graph_on_snowflake_is_the_embedded_one_without_what_opens_duckdb_and_the_account(
    name: str,
) -> None:
    found = loaded(name)
    whole = loaded("embedded")
    absent = {
        "raw/lake_files",
        *(key for key in whole["assets"] if key.startswith(("published/", "cold/"))),
    }
    assert not ACCOUNT_ASSETS & whole["assets"].keys()
    assert found["assets"].keys() == whole["assets"].keys() - absent | ACCOUNT_ASSETS
    assert not [key for key, kinds in found["assets"].items() if "duckdb" in kinds]
    assert "snowflake" in found["assets"]["raw/telemetry_events"]
    assert "snowflake" in found["assets"]["cur/pets"]
    assert "snowflake" in found["assets"]["anl/visit_risk_scores"]
    # Every dbt test is there, and no check that queries DuckDB.
    queries_duckdb = {
        *("anl/clinic_daily_heartbeat:clinic_heartbeat", "anl/device_daily_heartbeat:device_heartbeat"),
        *("anl/daily_activity:values_in_range", "anl/documents_to_review:reviews_keep_up"),
        *("anl/telemetry_events:layers_add_up", "anl/wellness_alerts:no_critical_alert_is_open"),
    }
    gone = {check for check in whole["checks"] if check.split(":")[0] in absent}
    assert {f"published/warehouse_tables:{name}" for name in OBSERVATIONS} <= gone
    assert {*found["checks"]} == {*whole["checks"]} - gone - queries_duckdb | ACCOUNT_CHECKS


@pytest.mark.parametrize("name", on_snowflake())
def test_jobs_on_snowflake_run_what_is_there(name: str) -> None:
    found = loaded(name)
    whole = loaded("embedded")
    assert found["jobs"].keys() == whole["jobs"].keys() - {"retain"} | ACCOUNT_JOBS.keys()
    for job, assets in found["jobs"].items():
        expected = {*ACCOUNT_JOBS.get(job, ())} or {*whole["jobs"].get(job, [])} & found["assets"].keys()
        if job in ("everything", "refresh"):
            expected |= {"ops/builds"}
        assert {*assets} == {*expected}, job


def test_a_developers_schema_changes_no_key_of_the_graph() -> None:
    assert loaded("dev", PETWELLNESS_DEVELOPER="anna") == loaded("dev")


def test_what_opens_duckdb_says_so_on_snowflake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from petwellness_orchestration.cli.privacy import look_for_personal_data
    from petwellness_orchestration.cli.steps import rebuild_warehouse
    from petwellness_orchestration.resources import PlatformResource
    from petwellness_orchestration.retaining import plan
    from warehouse.environments import NotOnThisWarehouseError

    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "dev")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    platform = PlatformResource()
    for opens in (
        lambda: rebuild_warehouse(confirmed=True),
        look_for_personal_data,
        lambda: plan(platform.settings(), None),
    ):
        with pytest.raises(NotOnThisWarehouseError, match=r"'dev' is snowflake"):
            opens()
    with (
        pytest.raises(NotOnThisWarehouseError, match=r"'dev' is snowflake"),
        platform.warehouse(),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
