"""dbt's own unit tests run and pass: dagster-dbt does not surface them as checks, so this does."""

import pytest


@pytest.fixture(scope="module")
def results(make_warehouse):
    warehouse = make_warehouse({})
    warehouse.build("--select", "+anl_telemetry_events", without=("unit_test", "test"))
    outcome = warehouse.invoke("test", "--select", "test_type:unit")
    assert outcome.exception is None
    return outcome.result.results


def test_every_unit_test_passes(results):
    assert [(item.node.name, item.message) for item in results if str(item.status) != "pass"] == []
    assert len(results) == 6
