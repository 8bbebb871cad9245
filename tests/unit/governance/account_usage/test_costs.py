"""Credits by asset: rows as account usage gives them, sums worked out by hand, and the law that all of it adds up."""

import json
from collections import defaultdict
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.account_usage.costs import (
    CostKind,
    Prices,
    as_json,
    asset_name,
    attribute,
    cost_report,
    node_name,
    read_tag,
    totals,
    warehouse_name,
)
from governance.account_usage.questions import (
    MeteredDay,
    ServiceDay,
    StatementCosts,
    StatementRuns,
    TableStorage,
    read_usage,
)
from warehouse.environments import SnowflakeNames

PROD = SnowflakeNames("PROD")
FIRST, SECOND = date(2026, 11, 26), date(2026, 11, 27)
DBT, TELEMETRY, BI = "PROD__TRANSFORMING_WH", "PROD__TELEMETRY_WH", "PROD__BI_WH"
PRICES = Prices(credit=Decimal(2), terabyte_month=Decimal(23))


def tag(asset: str | None, node: str) -> str:
    return json.dumps({"app": "dbt", "run": "r1", "asset": asset, "node": node, "target": "snowflake"})


PETS = tag("anl/pets", "model.petwellness.anl_pets")
PETS_TEST = tag("anl/pets", "test.petwellness.anl_pets_key_is_unique")
EVENTS = tag("stg/telemetry_events", "model.petwellness.stg_telemetry_events")
NO_TAG = '{"app": "dbt"}'

# By view: its rows, in the columns that its question selects.
RECORDED = {
    "warehouse_metering_history": [
        (FIRST, DBT, Decimal("4.000000000"), Decimal("0.250000000")),
        (FIRST, TELEMETRY, Decimal("8.500000000"), Decimal("0.100000000")),
        (SECOND, BI, Decimal("2.000000000"), Decimal("0.000000000")),
    ],
    "query_attribution_history": [
        (FIRST, DBT, "DBT_SERVICE", PETS, Decimal("1.500000000000")),
        (FIRST, DBT, "DBT_SERVICE", PETS_TEST, Decimal("0.300000000000")),
        (FIRST, DBT, "DBT_SERVICE", NO_TAG, Decimal("0.200000000000")),
        (FIRST, TELEMETRY, "DBT_SERVICE", EVENTS, Decimal("8.000000000000")),
        (SECOND, BI, "POWER_BI_SERVICE", "", Decimal("1.250000000000")),
        (SECOND, BI, "people", "", Decimal("0.250000000000")),
    ],
    "query_history": [
        (FIRST, DBT, "DBT_SERVICE", PETS, 3, Decimal("61.500"), 5_000_000),
        (FIRST, DBT, "DBT_SERVICE", PETS_TEST, 2, Decimal("4.000"), 1_000),
        # Too short to be attributed any credits.
        (FIRST, DBT, "INGESTION_SERVICE", "", 7, Decimal("0.210"), 0),
        (SECOND, BI, "people", "", 12, Decimal("30.000"), 900),
    ],
    "automatic_clustering_history": [
        (FIRST, "automatic clustering", "anl/pets", Decimal("0.700000000")),
        (FIRST, "snowpipe", "raw/pets", Decimal("0.050000000")),
    ],
    "table_storage_metrics": [
        ("anl", "telemetry_events", 1_500_000_000_000, 500_000_000_000),
        ("cur", "owners", 2_000_000, 0),
    ],
}


def ask(sql: str) -> list[tuple]:
    [view] = [view for view in RECORDED if f"snowflake.account_usage.{view}\n" in sql]
    return RECORDED[view]


@pytest.fixture
def report():
    return cost_report("prod", read_usage(ask, PROD, FIRST, SECOND), PRICES)


def test_credits_of_statements_go_to_their_asset_and_the_rest_is_idle(report):
    assert {total.name: total.credits for total in totals(report.lines, asset_name)} == {
        "stg/telemetry_events": Decimal(8),
        # The model's 1.5, its test's 0.3, and 0.7 of clustering.
        "anl/pets": Decimal("2.5"),
        "raw/pets": Decimal("0.05"),
        "(POWER_BI_SERVICE)": Decimal("1.25"),
        "(people)": Decimal("0.25"),
        "(DBT_SERVICE)": Decimal("0.2"),
        "(INGESTION_SERVICE)": Decimal(0),
        # 4 - 1.5 - 0.3 - 0.2, 8.5 - 8, 2 - 1.25 - 0.25.
        "(idle)": Decimal("3.0"),
        "(cloud services)": Decimal("0.35"),
    }
    [pets] = [total for total in totals(report.lines, asset_name) if total.name == "anl/pets"]
    assert (pets.statements, pets.seconds, pets.bytes_scanned) == (5, Decimal("65.5"), 5_001_000)


def test_a_model_and_its_tests_are_told_apart(report):
    by_node = {total.name: total.credits for total in totals(report.lines, node_name)}
    assert by_node["model.petwellness.anl_pets"] == Decimal("1.5")
    assert by_node["(automatic clustering)"] == Decimal("0.7")
    assert by_node["test.petwellness.anl_pets_key_is_unique"] == Decimal("0.3")


def test_warehouses_and_days_cost_what_was_metered(report):
    assert {total.name: total.credits for total in totals(report.lines, warehouse_name)} == {
        DBT: Decimal("4.25"),
        TELEMETRY: Decimal("8.6"),
        BI: Decimal(2),
        "(automatic clustering)": Decimal("0.7"),
        "(snowpipe)": Decimal("0.05"),
    }
    assert report.credits == Decimal("15.6")
    assert report.by_day() == {FIRST: Decimal("27.2"), SECOND: Decimal(4)}


def test_storage_is_what_a_month_of_it_costs(report):
    # Two terabytes and two megabytes.
    assert [report.storage_dollars(table) for table in report.storage] == [46, Decimal("0.000046")]


def test_the_report_as_json_has_no_number_that_lost_digits(report):
    plain = as_json(report)
    assert json.loads(json.dumps(plain)) == plain
    assert plain["credits"] == "15.600000000000"
    assert Decimal(plain["dollars"]) == Decimal("31.2")
    assert plain["assets"][0] == {
        "name": "stg/telemetry_events",
        "credits": "8.000000000000",
        "statements": 0,
        "seconds": "0",
        "bytes_scanned": 0,
        "dollars": "16.000000000000",
    }


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (PETS, ("anl/pets", "model.petwellness.anl_pets")),
        ('{"app": "petwellness", "asset": "raw/pets", "run": "r"}', ("raw/pets", None)),
        (tag(None, "test.petwellness.x"), (None, "test.petwellness.x")),
        ("", (None, None)),
        ("petwellness-infrastructure", (None, None)),
        ("[1]", (None, None)),
        ('{"asset": 7, "node": ""}', (None, None)),
        ('{"asset": ', (None, None)),
    ],
)
def test_a_tag_says_what_it_can(text, read):
    assert read_tag(text) == read


def test_a_statement_over_midnight_leaves_a_day_below_zero_and_the_sum_right():
    lines = attribute(
        [MeteredDay(FIRST, DBT, Decimal(1), Decimal(0)), MeteredDay(SECOND, DBT, Decimal(3), Decimal(0))],
        [StatementCosts(FIRST, DBT, "DBT_SERVICE", PETS, Decimal("3.5"))],
        [],
    )
    assert [(line.day, line.credits) for line in lines if line.kind is CostKind.IDLE] == [
        (FIRST, Decimal("-2.5")),
        (SECOND, Decimal(3)),
    ]


days = st.sampled_from([FIRST, SECOND])
warehouses = st.sampled_from([DBT, TELEMETRY, BI])
users = st.sampled_from(["DBT_SERVICE", "people"])
tags = st.sampled_from([PETS, PETS_TEST, EVENTS, NO_TAG, "", "{", "x"])
credits = st.decimals(min_value=0, max_value=1000, places=9)
metered_days = st.builds(MeteredDay, days, warehouses, credits, credits)
service_days = st.builds(
    ServiceDay, days, st.sampled_from(["snowpipe", "automatic clustering"]), st.just("anl/pets"), credits
)
statement_costs = st.builds(StatementCosts, days, warehouses, users, tags, credits)
statement_runs = st.builds(
    StatementRuns, days, warehouses, users, tags, st.integers(1, 9), credits, st.integers(0, 9)
)


@given(
    st.lists(metered_days, max_size=6),
    # Questions group by these.
    st.lists(statement_costs, max_size=8, unique_by=lambda one: (one.day, one.warehouse, one.user, one.tag)),
    st.lists(statement_runs, max_size=8, unique_by=lambda one: (one.day, one.warehouse, one.user, one.tag)),
    st.lists(service_days, max_size=4),
)
def test_every_credit_that_was_metered_is_in_one_line(metered, costs, runs, services):
    lines = attribute(metered, costs, runs, services)
    used = sum((one.compute + one.cloud_services for one in metered), Decimal(0)) + sum(
        one.credits for one in services
    )
    for name in (asset_name, node_name, warehouse_name):
        assert sum(total.credits for total in totals(lines, name)) == used
    expected: dict = defaultdict(Decimal)
    for one in metered:
        expected[one.day, one.warehouse] += one.compute + one.cloud_services
    for service in services:
        expected[service.day, f"({service.service})"] += service.credits
    found: dict = defaultdict(Decimal)
    for line in lines:
        found[line.day, line.warehouse] += line.credits
    assert {key: value for key, value in found.items() if value} == {
        key: value for key, value in expected.items() if value
    }
    # And every statement that was attributed or run, with what it used.
    assert sum(line.credits for line in lines if line.kind is CostKind.STATEMENTS) == sum(
        one.compute for one in costs
    )
    assert sum(line.statements for line in lines) == sum(one.statements for one in runs)


def test_questions_are_about_one_environment_and_whole_utc_days():
    asked = []

    def listen(sql: str) -> list[tuple]:
        asked.append(sql)
        return []

    read_usage(listen, PROD, FIRST, SECOND)
    *windows, services, storage = asked
    assert len(windows) == 3
    assert services.count("= 'PROD__PETWELLNESS'") == 2
    assert services.count("start_time >= to_timestamp_tz('2026-11-26 00:00:00 +0000')") == 2
    for sql in windows:
        assert "startswith(warehouse_name, 'PROD__')" in sql
        assert "start_time >= to_timestamp_tz('2026-11-26 00:00:00 +0000')" in sql
        assert "start_time < to_timestamp_tz('2026-11-28 00:00:00 +0000')" in sql
    assert "table_catalog = 'PROD__PETWELLNESS'" in storage


def test_numbers_stay_exact_whatever_the_driver_gives():
    def floats(sql: str) -> list[tuple]:
        return [(FIRST, DBT, 0.1, 3)] if "warehouse_metering" in sql else []

    [metered] = read_usage(floats, PROD, FIRST, FIRST).metered
    assert metered == MeteredDay(FIRST, DBT, Decimal("0.1"), Decimal(3))
    assert TableStorage("a", "b", 1, 2).kept_bytes == 2
