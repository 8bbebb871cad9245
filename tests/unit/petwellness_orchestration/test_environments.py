"""The map of environments, and settings that contradict the environment they are in."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from petwellness_orchestration.settings import load_settings
from warehouse.environments import (
    ENVIRONMENTS,
    LAYERS,
    DbtSession,
    Environment,
    EnvironmentName,
    EnvironmentSettingError,
    ProductionRefusedError,
    UnknownEnvironmentError,
    WarehouseKind,
    dbt_session,
    environment_named,
)

ROOT = Path(__file__).resolve().parents[3]
PROFILE = yaml.safe_load((ROOT / "dbt_project" / "profiles.yml").read_text())["petwellness"]

# What production is refused without.
REAL_PARTS = {
    "PETWELLNESS_LAKE_URL": "s3://lake/petwellness",
    "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "PETWELLNESS_DATA": "/records",
    "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": "refuse",
    "PETWELLNESS_RETENTION_JURISDICTION": "CH-ZH",
}
PRODUCTION = {"PETWELLNESS_ENVIRONMENT": "prod", "PETWELLNESS_PRODUCTION": "yes", **REAL_PARTS}


@pytest.fixture(params=ENVIRONMENTS.values(), ids=lambda one: one.name)
def environment(request: pytest.FixtureRequest) -> Environment:
    one: Environment = request.param
    return one


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch):
    def choose(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return choose


def test_the_map_has_an_entry_for_every_name_and_no_other() -> None:
    assert [*ENVIRONMENTS] == [*EnvironmentName] == ["embedded", "dev", "ci", "prod"]


def test_a_name_without_an_entry_is_an_error() -> None:
    from warehouse import environments

    with pytest.raises(AssertionError, match="staging"):
        environments._environment("staging")  # type: ignore[arg-type]


def test_an_entry_says_everything_and_belongs_to_its_name(environment: Environment) -> None:
    assert environment.name in ENVIRONMENTS
    assert ENVIRONMENTS[environment.name] is environment
    # What an environment is, its entry says: no field has a default.
    assert [field.name for field in fields(environment) if field.default is not MISSING] == []
    assert (environment.warehouse is WarehouseKind.SNOWFLAKE) == (environment.snowflake is not None)


def test_its_dbt_target_is_in_the_profile_and_of_its_warehouses_kind(environment: Environment) -> None:
    assert PROFILE["outputs"][environment.dbt_target]["type"] == environment.warehouse


def test_production_is_one_and_alone_starts_by_itself() -> None:
    assert [one.name for one in ENVIRONMENTS.values() if one.is_production] == ["prod"]
    assert [one.name for one in ENVIRONMENTS.values() if one.has_automation] == ["prod"]


def test_what_they_call_things_is_what_the_plans_make(environment: Environment) -> None:
    from infrastructure.snowflake.account import ENVIRONMENTS as WITH_ACCOUNT
    from infrastructure.snowflake.planning import offline_plan

    if environment.snowflake is None:
        assert environment.name not in WITH_ACCOUNT
        return
    plan = "\n".join(offline_plan(WITH_ACCOUNT[environment.name]).suggested)
    developer = "example" if environment.own_schema == "dev" else None
    sessions = [dbt_session(environment), dbt_session(environment, developer=developer)]
    for session in sessions:
        assert session is not None
        for created in (
            f'DATABASE "{session.database}"',
            f'SCHEMA "{session.database}"."{session.schema.upper()}"',
            f'ROLE "{session.role}"',
            f'WAREHOUSE "{session.warehouse}"',
        ):
            assert f"{created}\n" in plan or f"{created};" in plan, created
    for layer in LAYERS:
        assert f'SCHEMA "{environment.snowflake.database}"."{layer.upper()}"' in plan
    for role in ("ingestion", "ml", "operations"):
        assert f'CREATE ROLE "{environment.snowflake.role(role)}"' in plan


def test_a_developer_and_a_pull_request_have_a_schema_and_the_layers_are_the_environments() -> None:
    dev, ci = ENVIRONMENTS[EnvironmentName.DEV], ENVIRONMENTS[EnvironmentName.CI]
    assert dbt_session(dev, developer="anna") == DbtSession(
        "DEV__PETWELLNESS", "DEV__DEVELOPER_ANNA__B_ROLE", "DEV__DEV_WH", "DEV__DEV_WH", "dev_anna"
    )
    assert dbt_session(ci, pull_request=17) == DbtSession(
        "CI__PETWELLNESS", "CI__TRANSFORMER__B_ROLE", "CI__TRANSFORMING_WH", "CI__TELEMETRY_WH", "pr_17"
    )
    assert dbt_session(environment_named("prod")) == DbtSession(
        "PROD__PETWELLNESS", "PROD__TRANSFORMER__B_ROLE", "PROD__TRANSFORMING_WH", "PROD__TELEMETRY_WH", "stg"
    )
    assert dbt_session(environment_named("embedded")) is None


@pytest.mark.parametrize("name", ["embedded", "dev", "ci", "prod"])
@pytest.mark.parametrize(
    ("setting", "value", "place"), [("DEVELOPER", "anna", "dev"), ("PULL_REQUEST", "17", "ci")]
)
def test_a_schema_of_ones_own_is_asked_for_where_there_are_such(choose, name, setting, value, place) -> None:
    choose(**(PRODUCTION if name == "prod" else {"PETWELLNESS_ENVIRONMENT": name}))
    choose(**{f"PETWELLNESS_{setting}": value})
    if name == place:
        assert load_settings().dbt_session.schema.endswith(f"_{value}")
        return
    with pytest.raises(EnvironmentSettingError, match=f"{setting} is for the environment '{place}'.*{name}"):
        load_settings()


def test_the_default_is_embedded() -> None:
    settings = load_settings()
    assert (settings.environment.name, settings.dbt_session) == ("embedded", None)


def test_an_unknown_environment_is_an_error_that_lists_the_known(choose) -> None:
    choose(PETWELLNESS_ENVIRONMENT="staging")
    with pytest.raises(UnknownEnvironmentError, match=r"'staging'.*embedded, dev, ci, prod"):
        load_settings()


def test_production_needs_its_switch(choose) -> None:
    choose(PETWELLNESS_ENVIRONMENT="prod", **REAL_PARTS)
    with pytest.raises(ProductionRefusedError, match=r"set PETWELLNESS_PRODUCTION=yes"):
        load_settings()
    choose(PETWELLNESS_PRODUCTION="yes")
    assert load_settings().environment.is_production


@pytest.mark.parametrize("name", ["embedded", "dev", "ci"])
def test_the_switch_is_refused_where_it_is_not_production(choose, name) -> None:
    choose(PETWELLNESS_ENVIRONMENT=name, PETWELLNESS_PRODUCTION="yes")
    with pytest.raises(EnvironmentSettingError, match="PETWELLNESS_PRODUCTION is set"):
        load_settings()


@pytest.mark.parametrize("missing", REAL_PARTS)
def test_production_stands_on_real_parts(choose, monkeypatch, missing) -> None:
    choose(**PRODUCTION)
    monkeypatch.delenv(missing)
    with pytest.raises(ProductionRefusedError, match=f"set {missing}") as refused:
        load_settings()
    assert not [name for name in REAL_PARTS if name != missing and name in str(refused.value)]


def test_a_refusal_is_one_line_for_the_command_line(choose) -> None:
    from petwellness_orchestration.cli import expected_line

    choose(PETWELLNESS_ENVIRONMENT="prod")
    with pytest.raises(ProductionRefusedError) as refused:
        load_settings()
    assert "PETWELLNESS_PRODUCTION" in (expected_line(refused.value) or "")


@pytest.mark.parametrize("name", ["embedded", "dev", "ci"])
def test_outside_production_silence_on_analytics_allows_it_unless_set(choose, name) -> None:
    choose(PETWELLNESS_ENVIRONMENT=name)
    assert load_settings().analytics_default == "allow"
    choose(PETWELLNESS_CONSENT_ANALYTICS_DEFAULT="refuse")
    assert load_settings().analytics_default == "refuse"
    choose(PETWELLNESS_CONSENT_ANALYTICS_DEFAULT="perhaps")
    with pytest.raises(ValidationError, match="analytics_default"):
        load_settings()


@pytest.mark.parametrize("name", ["embedded", "dev", "ci"])
def test_whose_terms_hold_is_that_of_the_demo_unless_set(choose, name) -> None:
    choose(PETWELLNESS_ENVIRONMENT=name)
    assert load_settings().jurisdictions.practice == "CH-ZH"
    choose(
        PETWELLNESS_RETENTION_JURISDICTION="US-CA",
        PETWELLNESS_RETENTION_CLINIC_JURISDICTIONS='{"clinic-03": "US-TX"}',
    )
    set_so = load_settings().jurisdictions
    assert (set_so.practice, set_so.clinics) == ("US-CA", {"clinic-03": "US-TX"})
    choose(PETWELLNESS_RETENTION_JURISDICTION="XX")
    with pytest.raises(EnvironmentSettingError, match="nothing says how long records are kept in 'XX'"):
        _ = load_settings().jurisdictions


@pytest.mark.parametrize(("asked", "runs"), [(None, False), ("true", True), ("false", False)])
@pytest.mark.parametrize("name", ["embedded", "dev", "ci"])
def test_outside_production_automation_is_asked_for(choose, name, asked, runs) -> None:
    choose(PETWELLNESS_ENVIRONMENT=name, **({} if asked is None else {"PETWELLNESS_AUTOMATION": asked}))
    assert load_settings().has_automation is runs


@pytest.mark.parametrize(("asked", "runs"), [(None, True), ("true", True), ("false", False)])
def test_in_production_automation_runs_unless_it_is_stopped(choose, asked, runs) -> None:
    choose(**PRODUCTION, **({} if asked is None else {"PETWELLNESS_AUTOMATION": asked}))
    assert load_settings().has_automation is runs
