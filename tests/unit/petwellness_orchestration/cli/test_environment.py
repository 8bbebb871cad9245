"""`petwellness environment` says where everything points and shows no secret; dbt is told the same by its profile."""

import re
from pathlib import Path

import pytest

from petwellness_orchestration.cli.environment import SIGN_IN, described, show_environment
from petwellness_orchestration.defs.warehouse.dbt_run import profile_variables, project_arguments
from petwellness_orchestration.settings import load_settings
from warehouse.environments import ENVIRONMENTS, EnvironmentName

PROFILE = (Path(__file__).resolve().parents[4] / "dbt_project" / "profiles.yml").read_text()
PRODUCTION = {
    "PETWELLNESS_PRODUCTION": "yes",
    "PETWELLNESS_LAKE_URL": "s3://lake/petwellness",
    "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "PETWELLNESS_DATA": "/records",
    "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": "refuse",
    "PETWELLNESS_RETENTION_JURISDICTION": "CH-ZH",
}
SECRETS = {
    "PETWELLNESS_LAKE_ACCESS_KEY_ID": "geheim-1",
    "PETWELLNESS_LAKE_SECRET_ACCESS_KEY": "geheim-2",
    "PETWELLNESS_KAFKA_SASL_PASSWORD": "geheim-3",
    "PETWELLNESS_DAGSTER_POSTGRES_URL": "postgresql+psycopg2://dagster:geheim-4@db/dagster",
    "PETWELLNESS_SNOWFLAKE_ACCOUNT": "geheim-5",
    "PETWELLNESS_SNOWFLAKE_USER": "geheim-6",
    "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PATH": "/geheim-7",
    "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE": "geheim-8",
    "PETWELLNESS_SALT": "geheim-9",
    "PETWELLNESS_ALERT_WEBHOOK_URL": "https://hooks.example/geheim-10",
}


@pytest.fixture(params=EnvironmentName)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> EnvironmentName:
    """Each environment, chosen by the variables of this process."""
    chosen: EnvironmentName = request.param
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", chosen)
    for variable, value in PRODUCTION.items() if ENVIRONMENTS[chosen].is_production else ():
        monkeypatch.setenv(variable, value)
    return chosen


def test_it_is_said_where_everything_points_and_nothing_is_made(
    name: EnvironmentName, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert show_environment() == 0
    shown = capsys.readouterr().out
    assert re.search(rf"^environment +{name}( \(production\))?$", shown, re.M)
    session = load_settings().dbt_session
    places = (str(tmp_path / "warehouse.duckdb"),) if session is None else (session.database, session.role)
    assert [place for place in places if place not in shown] == []
    assert list(tmp_path.iterdir()) == []


def test_no_secret_is_shown(
    name: EnvironmentName, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    show_environment()
    shown = capsys.readouterr().out
    assert "geheim" not in shown
    assert ENVIRONMENTS[name].snowflake is None or re.search(r"^sign-in +set$", shown, re.M)
    assert "PostgreSQL" in shown


def test_what_is_missing_to_sign_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "dev")
    monkeypatch.setenv("PETWELLNESS_SNOWFLAKE_ACCOUNT", "one")
    assert described(load_settings())["sign-in"] == f"not set: {', '.join(SIGN_IN[1:])}"


def test_dbt_is_told_everything_that_its_profile_asks_of_the_environment(name: EnvironmentName) -> None:
    settings = load_settings()
    given = profile_variables(settings)
    output = PROFILE.split(f"    {settings.environment.dbt_target}:\n")[1]
    asked = {*re.findall(r"env_var\('(\w+)'", output.split("\n    lint:")[0])}
    told_otherwise = (
        {*SIGN_IN, "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PASSPHRASE"}
        | {*("PETWELLNESS_DBT_THREADS", "PETWELLNESS_DUCKDB_THREADS", "PETWELLNESS_DUCKDB_MEMORY")}
        | {
            # An emulator's, by whoever starts one.
            f"PETWELLNESS_SNOWFLAKE_{name}"
            for name in ("HOST", "PORT", "PROTOCOL", "PASSWORD")
        }
    )
    assert asked - told_otherwise <= given.keys()
    arguments = project_arguments(settings)
    assert arguments[arguments.index("--target") + 1] == settings.environment.dbt_target


def test_a_schema_of_ones_own_reaches_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "ci")
    monkeypatch.setenv("PETWELLNESS_PULL_REQUEST", "17")
    assert profile_variables(load_settings())["PETWELLNESS_DBT_SCHEMA"] == "pr_17"
