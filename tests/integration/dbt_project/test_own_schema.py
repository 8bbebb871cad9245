"""A schema of one's own (a developer's, a pull request's): whole, beside the layers, and without a trace in them.

On DuckDB, where such a build is never made in earnest: the embedded warehouse is copied instead.
"""

import json
import shutil
from functools import cache

import pytest
from seeded_raw import small_world

from warehouse.compare import compare_tables

CHANGED = "stg_appointments"
SCHEMA = "pr_7"
# What builds note of themselves: an own schema's note nothing.
BOOKKEEPING = {"cur.applied_inputs"}


@pytest.fixture(scope="module")
def main_branch(make_warehouse):
    """The layers, as main builds them."""
    warehouse = make_warehouse(small_world(seed=5, days=3, devices=3))
    warehouse.build(without=("unit_test", "test"))
    return warehouse


@pytest.fixture(scope="module")
def state(main_branch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    main_branch.manifest.write(str(folder / "manifest.json"))
    return folder


@pytest.fixture(scope="module")
def projects(dbt_project, tmp_path_factory):
    """The project for an own schema by what was changed in it, each parsed once; a changed one but for the change."""

    @cache
    def project(change):
        folder = tmp_path_factory.mktemp("own")
        if not change:
            return type(dbt_project)(folder, dbt_project.project, SCHEMA)
        copied = folder / "dbt_project"
        shutil.copytree(dbt_project.project, copied, ignore=shutil.ignore_patterns("target", "logs"))
        [model] = copied.rglob(f"{CHANGED}.sql")
        model.write_text(model.read_text() + change)
        return type(dbt_project)(folder, copied, SCHEMA, parsed_before=project(""))

    return project


@pytest.fixture
def in_own_schema(main_branch, make_warehouse, projects):
    """A copy of main's warehouse under the project, with a changed model or as it is, for an own schema."""

    def make(change=""):
        warehouse = make_warehouse({}).with_project(projects(change))
        shutil.copyfile(main_branch.path, warehouse.path)
        return warehouse

    return make


def shared_tables(warehouse):
    """Every table outside of the own schema, `schema.name`, with all of its rows in order."""
    names = warehouse.rows(
        "select table_schema || '.' || table_name as name from information_schema.tables"
        f" where table_schema <> '{SCHEMA}' order by 1"
    )
    return {
        name: warehouse.rows(f"select * from {name} order by all") for name in (row["name"] for row in names)
    }


def own_tables(warehouse):
    found = warehouse.rows(
        f"select table_name as name from information_schema.tables where table_schema = '{SCHEMA}' order by 1"
    )
    return [row["name"] for row in found]


def test_every_layer_is_built_again_beside_the_layers_and_leaves_them_as_they_are(in_own_schema):
    pull_request = in_own_schema()
    before = shared_tables(pull_request)
    layers = pull_request.tables()
    # The second build is no increment either: what is gone from a day that nothing marks as dirty is built again.
    for models, variables in (((), {}), (("--select", "+anl_daily_activity"), {"dirty_days": []})):
        pull_request.build(*models, without=("unit_test", "test"), variables=variables)
        assert own_tables(pull_request) == sorted(table.replace(".", "_", 1) for table in layers)
        with pull_request.connect() as con:
            for table in sorted({*layers} - BOOKKEEPING):
                assert compare_tables(con, table, con, f"{SCHEMA}.{table.replace('.', '_', 1)}") == []
            con.execute(f"delete from {SCHEMA}.stg_telemetry_events")
    assert shared_tables(pull_request) == before
    assert before["raw.build_marks"]
    assert before["cur.applied_inputs"]


def test_a_slim_build_takes_what_it_did_not_change_from_the_layers(in_own_schema, state):
    pull_request = in_own_schema("\n-- changed\n")
    before = shared_tables(pull_request)
    command = ("--select", "state:modified+", "--defer", "--state", str(state))
    outcome = pull_request.invoke("build", *command, "--exclude-resource-type", "unit_test")
    assert outcome.success, outcome.exception
    built = {item.node.name for item in outcome.result.results if item.node.unique_id.startswith("model.")}
    assert CHANGED in built
    assert own_tables(pull_request) == sorted(built)
    assert len(built) < len(pull_request.tables())
    assert shared_tables(pull_request) == before


def test_another_schema_is_no_change_of_a_model(in_own_schema, state):
    unchanged = in_own_schema()
    command = ("--select", "state:modified+", "--state", str(state), "--resource-type", "model")
    assert unchanged.invoke("ls", *command).result == []


NO_PULL_REQUESTS = (
    "cur",
    "raw",
    "dev_anna",
    "pr_",
    "pr_x",
    "pr_07",
    "PR_7",
    " pr_7",
    "pr_7\n",
    "pr_7; drop schema raw",
)


def drop(warehouse, *schemas, **options):
    arguments = json.dumps({"schemas": schemas, **options})
    return warehouse.invoke("run-operation", "drop_schemas", "--args", arguments)


def schemas_of(warehouse):
    return {
        row["schema_name"]
        for row in warehouse.rows(
            "select schema_name from information_schema.schemata where catalog_name = 'warehouse'"
        )
    }


def test_a_pull_requests_schema_is_dropped_when_somebody_says_so(in_own_schema):
    pull_request = in_own_schema()
    pull_request.build("--select", "stg_breeds", "cur_breeds", without=("unit_test", "test"))
    before = schemas_of(pull_request)
    assert SCHEMA in before
    assert drop(pull_request, SCHEMA).success
    assert schemas_of(pull_request) == before
    assert drop(pull_request, SCHEMA, "pr_8", dry_run=False).success
    assert schemas_of(pull_request) == before - {SCHEMA}


def test_no_other_schema_is_ever_dropped(in_own_schema):
    pull_request = in_own_schema()
    with pull_request.connect() as con:
        con.execute(f"create schema {SCHEMA}")
        con.execute("create schema dev_anna")
    before = schemas_of(pull_request)
    for schema in NO_PULL_REQUESTS:
        outcome = drop(pull_request, SCHEMA, schema, dry_run=False)
        assert not outcome.success, schema
        assert schemas_of(pull_request) == before, schema
