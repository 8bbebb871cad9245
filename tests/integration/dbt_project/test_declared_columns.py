"""A column that a YAML does not declare stops the build, named with the file; the manifest is dbt's own."""

from dataclasses import replace

import pytest


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    built = make_warehouse({})
    built.build("--select", "stg_breeds", without=("unit_test", "test"))
    return built


def build(warehouse, monkeypatch, node, left_out=(), too_many=()):
    """Build one node under a manifest whose YAML has other columns; the messages of what failed."""
    with monkeypatch.context() as patched:
        columns = warehouse.manifest.nodes[node].columns
        for name in left_out:
            patched.delitem(columns, name)
        for name in too_many:
            patched.setitem(columns, name, replace(next(iter(columns.values())), name=name))
        outcome = warehouse.invoke(
            "build", "--select", node.rsplit(".", 1)[1], "--exclude-resource-type", "test"
        )
    assert outcome.exception is None
    return [item.message for item in outcome.result.results if str(item.status) == "error"]


@pytest.mark.parametrize(
    ("node", "column", "file"),
    [
        # A seed that readers get, a model without a contract, one with a contract.
        ("seed.petwellness.anl_alert_rules", "severity", "seeds/anl/anl_alert_rules.yml"),
        ("model.petwellness.stg_breeds", "breed_group", "models/stg/stg_breeds.yml"),
        ("model.petwellness.cur_breeds", "breed_group", "models/cur/cur_breeds.sql"),
    ],
)
def test_a_column_that_the_yaml_leaves_out_stops_the_build(warehouse, monkeypatch, node, column, file):
    [message] = build(warehouse, monkeypatch, node, left_out=[column])
    assert column in message
    assert file in message


def test_a_column_that_only_the_yaml_has_stops_the_build(warehouse, monkeypatch):
    [message] = build(warehouse, monkeypatch, "model.petwellness.stg_breeds", too_many=["made_up"])
    assert (
        "stg_breeds lacks columns that its YAML declares: made_up. Mend models/stg/stg_breeds.yml" in message
    )


@pytest.mark.parametrize("node", ["seed.petwellness.anl_alert_rules", "model.petwellness.stg_breeds"])
def test_a_table_as_it_is_declared_is_built(warehouse, monkeypatch, node):
    assert build(warehouse, monkeypatch, node) == []


def test_a_table_of_other_columns_than_its_model_stops_an_increment(warehouse):
    select = ("--select", "cur_breeds")
    warehouse.build(*select, without=("unit_test", "test"))
    with warehouse.connect() as con:
        con.execute("alter table cur.breeds add column made_up integer")
    outcome = warehouse.invoke("build", *select, "--exclude-resource-type", "test")
    [message] = [item.message for item in outcome.result.results if str(item.status) == "error"]
    assert "the table alone has [made_up INTEGER], the model alone []" in message
    warehouse.build(*select, "--full-refresh", without=("unit_test", "test"))
    assert warehouse.rows(
        "from (describe cur.breeds) select count(*) as n where column_name = 'made_up'"
    ) == [{"n": 0}]
