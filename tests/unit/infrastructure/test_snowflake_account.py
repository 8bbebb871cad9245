"""The Snowflake account as code: plans for an empty account, held against what they have to say. No account."""

import re

import pytest
import yaml

from contracts.ledgers import LEDGERS
from contracts.registry import FEEDS
from infrastructure.snowflake.account import (
    ENVIRONMENTS,
    FOLDER,
    PREFIX,
    Environment,
    environment_named,
    example_account,
    load_account,
)
from infrastructure.snowflake.planning import (
    EmptyAccount,
    UnknownQuestionError,
    apply,
    configured_names,
    offline_plan,
    reviewed_text,
)
from infrastructure.snowflake.rights import READING, WRITING, reach, schemas_with
from lake.landing import feed_schema
from warehouse.environments import ProductionRefusedError, UnknownEnvironmentError
from warehouse.snowflake.sql import FILE_FORMAT, LANDING_STAGE, STAGES


@pytest.fixture(params=ENVIRONMENTS.values(), ids=lambda one: one.name)
def environment(request: pytest.FixtureRequest) -> Environment:
    one: Environment = request.param
    return one


@pytest.fixture
def plan(environment: Environment) -> list[str]:
    return [*offline_plan(environment).suggested]


def test_a_plan_for_an_empty_account_is_the_one_that_was_reviewed(environment: Environment) -> None:
    assert reviewed_text(environment) == environment.plan_file.read_text(), (
        "run `make snowflake-plans` and read what changed"
    )


def test_the_plan_makes_every_object_of_the_configuration(environment: Environment, plan: list[str]) -> None:
    text = "\n".join(plan).replace('"', "")
    names = configured_names(environment)
    assert len(names) > 60
    assert [name for name in names if name not in text] == []


def test_every_name_an_account_shares_begins_with_the_environment(
    environment: Environment, plan: list[str]
) -> None:
    made = re.findall(
        r'^CREATE (?:DATABASE|WAREHOUSE|ROLE|USER|RESOURCE MONITOR) "([^"]+)"', "\n".join(plan), re.M
    )
    assert made
    assert [name for name in made if not name.startswith(f"{environment.prefix}__")] == []


def test_raw_has_the_columns_of_the_contract(environment: Environment, plan: list[str]) -> None:
    feeds = {feed: feed_schema(feed) for feed in FEEDS}
    for name, schema in {**feeds, **LEDGERS}.items():
        [statement] = [
            one for one in plan if re.match(rf'CREATE TABLE "[^"]+"\."RAW"\."{name.upper()}"', one)
        ]
        columns = re.findall(r'^ *,? *"([A-Z0-9_]+)" ([A-Z_]+(?:\([\d,]+\))?)( NOT NULL)?', statement, re.M)
        assert [(column.lower(), bool(not_null)) for column, _, not_null in columns] == [
            (field.name, not field.nullable) for field in schema
        ]


def test_each_feed_has_one_pipe_on_its_own_prefix(plan: list[str]) -> None:
    watched = {}
    for statement in plan:
        if statement.startswith("CREATE PIPE"):
            table, path = re.search(
                r'COPY INTO "[^"]+"\."RAW"\."([^"]+)".*FROM @"[^"]+"\."RAW"\."LANDING"(\S+)', statement, re.S
            ).groups()  # type: ignore[union-attr]
            assert "AUTO_INGEST = TRUE" in statement
            watched[table.lower()] = path
    assert watched == {feed: f"/{feed}/" for feed in FEEDS}


def test_stages_reach_what_the_loader_reads_and_nothing_else_of_the_lake(plan: list[str]) -> None:
    text = "\n".join(plan)
    stages = re.findall(
        r'CREATE STAGE "[^"]+"\."RAW"\."([^"]+)"\s+URL = \'s3://example-bucket/([^\']+)\'', text
    )
    assert {prefix: stage.lower() for stage, prefix in stages} == STAGES
    assert len(re.findall("URL = ", text)) == len(STAGES)
    # Only the prefix that collectors land in is under pipes.
    assert not re.findall(rf'@"[^"]+"\."RAW"\."(?!{LANDING_STAGE.upper()}")', text)
    assert re.findall(rf'CREATE FILE FORMAT "[^"]+"\."RAW"\."{FILE_FORMAT.upper()}"', text)


def test_roles_reach_what_they_are_for_and_nothing_else(plan: list[str]) -> None:
    roles = reach(plan)
    readable = {role: schemas_with(privileges, READING) for role, privileges in roles.items()}
    written = {role: schemas_with(privileges, WRITING) for role, privileges in roles.items()}
    people = {role for role in roles if role.startswith("developer_")}
    assert {role: readable[role] for role in roles if role not in people} == {
        "ingestion": {"raw"},
        "transformer": {"raw", "stg", "cur", "anl", "ml", "clinic", "governance"},
        "analytics": {"anl"},
        # Nothing but views over tables with a row filter: tests/integration/dbt_project/test_snowflake_sql.py.
        "clinic_bi": {"clinic"},
        "ml": {"anl", "ml"},
        "operations": {"raw", "ops"},
        "data_protection": {"raw", "stg", "cur", "governance", "ops"},
    }
    assert {role: written[role] for role in roles if role not in people} == {
        "ingestion": {"raw"},
        "transformer": {"stg", "cur", "anl", "ml", "clinic"},
        "analytics": set(),
        "clinic_bi": set(),
        # And the table of scores, by name.
        "ml": set(),
        "operations": {"ops"},
        "data_protection": {"governance"},
    }
    for role in people:
        assert written[role] == {f"dev_{role.removeprefix('developer_')}"}


def test_only_development_has_developers(environment: Environment, plan: list[str]) -> None:
    assert ('."DEV_' in "\n".join(plan)) is (environment.name == "dev")


def test_services_sign_in_with_keys_alone(plan: list[str]) -> None:
    users = [statement for statement in plan if statement.startswith("CREATE USER")]
    assert len(users) == 6
    for statement in users:
        assert "TYPE = 'SERVICE'" in statement
        assert "RSA_PUBLIC_KEY" in statement
        assert "PASSWORD" not in statement


def test_the_platforms_user_has_every_role_that_a_run_takes_and_these_their_warehouses(
    environment: Environment, plan: list[str]
) -> None:
    from petwellness_orchestration import account, account_usage, learning, loading

    taken = {
        (loading.ROLE, loading.WAREHOUSE),
        (account.OWNING_ROLE, account.OWNING_WAREHOUSE),
        (learning.ROLE, learning.WAREHOUSE),
        (account_usage.ROLE, account_usage.WAREHOUSE),
    }
    user = f"{environment.prefix}__PLATFORM_SERVICE__U_ROLE"
    granted = {
        found[1].lower()
        for one in plan
        if (found := re.match(rf'GRANT ROLE "{environment.prefix}__(\w+)__B_ROLE" TO ROLE "{user}"', one))
    }
    assert granted == {role for role, _ in taken}
    roles = yaml.safe_load((FOLDER / "config" / "business_role.yaml").read_text())
    for role, warehouse in taken:
        assert warehouse in roles[role]["warehouse_usage"], role


def test_every_warehouse_stops_when_idle_and_ends_long_statements(plan: list[str]) -> None:
    warehouses = [statement for statement in plan if statement.startswith("CREATE WAREHOUSE")]
    assert len(warehouses) == 5
    for statement in warehouses:
        suspended_after_s = int(re.search(r"AUTO_SUSPEND = (\d+)", statement)[1])  # type: ignore[index]
        assert 60 <= suspended_after_s <= 600
        assert re.search(r"STATEMENT_TIMEOUT_IN_SECONDS = \d+", statement)
    limited = [one for one in plan if re.match(r"ALTER WAREHOUSE .* SET RESOURCE_MONITOR", one)]
    assert len(limited) == 5


def test_schemas_are_made_by_dbt_in_ci_only(environment: Environment, plan: list[str]) -> None:
    granted = [one for one in plan if re.match(r"GRANT CREATE SCHEMA ON DATABASE", one)]
    if environment.name != "ci":
        assert granted == []
        return
    role = "CI__PULL_REQUEST_SCHEMAS__T_ROLE"
    assert granted == [f'GRANT CREATE SCHEMA ON DATABASE "CI__PETWELLNESS" TO ROLE "{role}"']
    holders = [one for one in plan if one.startswith(f'GRANT ROLE "{role}" TO ROLE')]
    assert [re.search(r'"([^"]+)"$', one)[1] for one in holders if "SNOWDDL_ADMIN" not in one] == [  # type: ignore[index]
        "CI__TRANSFORMER__B_ROLE"
    ]


def test_an_unknown_environment_is_named_with_those_there_are() -> None:
    with pytest.raises(UnknownEnvironmentError, match=r"'staging'.*dev, ci, prod"):
        environment_named("staging")


def test_production_is_not_changed_unless_somebody_says_so() -> None:
    with pytest.raises(ProductionRefusedError, match="--production"):
        apply(ENVIRONMENTS["prod"], example_account())


def test_the_stand_in_answers_no_question_it_does_not_know() -> None:
    with pytest.raises(UnknownQuestionError, match="SELECT 1"):
        EmptyAccount().cursor().execute("SELECT 1")


def test_a_landing_prefix_without_its_slash_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in example_account().model_dump().items():
        if value is not None:
            monkeypatch.setenv(f"{PREFIX}{name.upper()}", str(value))
    assert load_account().landing_url == example_account().landing_url
    monkeypatch.setenv(f"{PREFIX}LANDING_URL", "s3://bucket/landing")
    with pytest.raises(ValueError, match="landing_url"):
        load_account()
