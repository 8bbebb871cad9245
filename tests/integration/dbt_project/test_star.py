"""The star: dimensions keep every fact and say nothing personal; metrics are those worked out by hand."""

import json
from datetime import date, datetime
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, record

BEFORE = FIRST_DAY - 100 * DAY


def owner(number: int, entity: str, **consents: bool) -> dict[str, Any]:
    flags = {purpose: {"value": value} for purpose, value in consents.items()}
    return record(
        *("owners", entity, BEFORE),
        kafka_offset=number,
        name=f"Name of {entity}",
        contact_email=f"{entity}@example.org",
        district="North",
        age_band="30-39",
        consent_flags=json.dumps(flags),
    )


def records() -> dict[str, list[dict[str, Any]]]:
    gone = FIRST_DAY - DAY
    return {
        "owners": [
            owner(0, "ada", push=True, sms=False),
            owner(1, "bob", push=True, analytics=False),
            owner(2, "cyd", push=True),
            record("owners", "cyd", gone, kafka_offset=3, op="delete"),
            # Bob's later record mentions one flag only, eve's none.
            {**owner(4, "bob", sms=False), "changed_at": gone, "arrival_ts": gone},
            owner(5, "eve", analytics=True),
            {**owner(6, "eve"), "changed_at": gone, "arrival_ts": gone},
        ],
        "pets": [
            record("pets", "rex", BEFORE, kafka_offset=0, owner_id="ada", name="Rex", dob=date(2020, 5, 1)),
            # An owner of whom there is no record.
            record("pets", "tom", BEFORE, kafka_offset=1, owner_id="dan", name="Tom", birth_year=2019),
            record("pets", "old", BEFORE, kafka_offset=2, owner_id="cyd", name="Old"),
            record("pets", "old", gone, kafka_offset=3, op="delete"),
        ],
        "clinics": [
            record("clinics", "k1", BEFORE, kafka_offset=0, name="North Clinic", timezone="Europe/Zurich")
        ],
        # A pet and a clinic of which there is no record.
        "device_assignments": [
            record(
                *("device_assignments", "a1", BEFORE), device_id="d1", pet_id="ghost", assigned_from=BEFORE
            )
        ],
        "clinic_visits": [
            record(
                *("clinic_visits", "v1", BEFORE),
                pet_id="rex",
                clinic_id="k9",
                visit_ts=BEFORE,
                status="completed",
            )
        ],
    }


@pytest.fixture(scope="module")
def warehouse(make_warehouse: Any) -> Any:
    built = make_warehouse(records())
    built.build(
        *("--select", "+star_keys_have_dimensions"),
        variables={"as_of_ts": f"{FIRST_DAY:%Y-%m-%d %H:%M:%S}"},
        without=("unit_test", "test"),
    )
    checked = built.invoke(
        "test", "--select", "star_keys_have_dimensions", "anl_pets", "anl_owners", "anl_clinics"
    )
    assert checked.success, [item.message for item in checked.result.results]
    return built


def shown(warehouse: Any, table: str, *columns: str) -> list[tuple[Any, ...]]:
    rows = warehouse.rows(f"select {', '.join(columns)} from anl.{table} order by {columns[0]}")
    return [tuple(row.values()) for row in rows]


def test_pets_of_records_and_of_facts_are_there_once(warehouse: Any) -> None:
    assert shown(warehouse, "pets", "pet_id", "pet_name", "birth_year", "is_active") == [
        ("ghost", "Unknown", None, False),
        ("old", "Old", None, False),
        ("rex", "Rex", 2020, True),
        ("tom", "Tom", 2019, True),
        ("unknown", "Unknown", None, False),
    ]


def test_owners_have_no_names_and_who_refuses_analytics_has_no_attributes(warehouse: Any) -> None:
    columns = ("owner_id", "district", "age_band", "is_reachable_push", "is_reachable_sms", "is_active")
    assert shown(warehouse, "owners", *columns) == [
        ("ada", "North", "30-39", True, False, True),
        ("bob", None, None, True, False, True),
        ("cyd", "North", "30-39", False, False, False),
        ("dan", None, None, False, False, False),
        ("eve", "North", "30-39", False, False, True),
        ("unknown", None, None, False, False, False),
    ]


def test_silence_on_analytics_is_what_the_setting_says(
    warehouse: Any, dbt_project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbt_project, "analytics_default", "refuse")
    warehouse.build("--select", "anl_owners", without=("unit_test", "test"))
    shown_now = shown(warehouse, "owners", "owner_id", "district")
    monkeypatch.undo()
    warehouse.build("--select", "anl_owners", without=("unit_test", "test"))
    said_yes = {"eve"}
    assert {owner_id for owner_id, district in shown_now if district is not None} == said_yes
    assert {o for o, district in shown(warehouse, "owners", "owner_id", "district") if district is not None} == {
        "ada", "cyd", "eve"
    }  # fmt: skip


def test_clinics_of_records_and_of_facts_are_there_once(warehouse: Any) -> None:
    assert shown(warehouse, "clinics", "clinic_id", "clinic_name", "is_active") == [
        ("k1", "North Clinic", True),
        ("k9", "Unknown", False),
        ("unknown", "Unknown", False),
    ]


def test_a_fact_of_an_unheard_of_clinic_is_reported(warehouse: Any) -> None:
    keys = "clinic_id, event_date, active_collar_count, silent_collar_count"
    with warehouse.connect() as con:
        con.execute(f"insert into anl.clinic_daily_collars ({keys}) values ('k7', date '2026-06-01', 1, 0)")
    outcome = warehouse.invoke("test", "--select", "star_keys_have_dimensions")
    with warehouse.connect() as con:
        con.execute("delete from anl.clinic_daily_collars where clinic_id = 'k7'")
    [result] = outcome.result.results
    assert (str(result.status), result.failures) == ("fail", 1)


def test_a_fact_that_holds_null_for_unknown_is_reported(warehouse: Any) -> None:
    keys = "event_id, device_id, event_ts, event_date, arrival_ts, pet_resolution, clinic_resolution, pet_id"
    with warehouse.connect() as con:
        con.execute(
            f"insert into anl.telemetry_events ({keys}, owner_id, clinic_id)"
            " values ('e1', 'd1', '2026-06-01', '2026-06-01', '2026-06-01', 'unassigned', 'unknown', null,"
            " 'unknown', 'unknown')"
        )
    outcome = warehouse.invoke("test", "--select", "star_keys_have_dimensions")
    with warehouse.connect() as con:
        con.execute("delete from anl.telemetry_events where event_id = 'e1'")
    [result] = outcome.result.results
    assert (str(result.status), result.failures) == ("fail", 1)


# By clinic and date: due, missed, overdue vaccinations. k1's one bad day weighs little: 4 of 14, not the
# mean of 3/4 and 1/10. The overdue of k1 are those of its last date.
KPIS = [
    ("k1", date(2026, 6, 1), 4, 3, 9),
    ("k1", date(2026, 6, 2), 10, 1, 5),
    ("unknown", date(2026, 6, 1), 0, 0, 0),
    ("unknown", date(2026, 6, 2), 2, 1, 7),
]
# By pet and date: clinic, steps, vaccination due. Two days with steps: 300 over 2.
PET_DAYS = [
    ("rex", date(2026, 6, 1), "k1", 100, date(2026, 6, 1)),
    ("rex", date(2026, 6, 2), "k1", 200, date(2026, 6, 1)),
    ("rex", date(2026, 6, 3), "k1", None, None),
    ("tom", date(2026, 6, 1), "unknown", 70, None),
]
ALERTS = [("x1", "k1", "critical", True), ("x2", "k1", "critical", False), ("x3", "unknown", "info", True)]
# Sent by push, e-mail and SMS; opened. 3 of 3 + 1, whatever SMS were sent.
CONTACTS = [("ada", date(2026, 6, 1), 3, 0, 5, 1), ("tom", date(2026, 6, 2), 0, 1, 0, 2)]


@pytest.fixture(scope="module")
def ask(warehouse: Any, dbt_project: Any) -> Any:
    """Answers of MetricFlow, as rows in the order of the groups."""
    from dbt.contracts.graph.semantic_manifest import SemanticManifest
    from metricflow.engine.metricflow_engine import MetricFlowEngine, MetricFlowQueryRequest
    from metricflow.protocols.sql_client import SqlEngine
    from metricflow.sql.render.duckdb_renderer import DuckDbSqlPlanRenderer
    from metricflow_semantics.model.dbt_manifest_parser import parse_manifest_from_dbt_generated_manifest
    from metricflow_semantics.model.semantic_manifest_lookup import SemanticManifestLookup

    class DuckDb:
        sql_engine_type = SqlEngine.DUCKDB
        sql_plan_renderer = DuckDbSqlPlanRenderer()

    with warehouse.connect() as con:
        con.execute("delete from anl.clinic_kpis")
        con.executemany(
            "insert into anl.clinic_kpis (clinic_id, event_date, finished_booking_count, no_show_count,"
            " overdue_vaccination_count, completed_visit_count) values (?, ?, ?, ?, ?, 0)",
            KPIS,
        )
        con.executemany(
            "insert into anl.pet_daily_summary (pet_id, event_date, clinic_id, total_steps, next_vaccine_due,"
            " clinic_resolution, owner_id) values (?, ?, ?, ?, ?, 'visit', 'unknown')",
            PET_DAYS,
        )
        con.executemany(
            "insert into anl.wellness_alerts (alert_id, clinic_id, severity, is_open, pet_id, rule, raised_at,"
            " raised_date, condition_from_ts, threshold, unit, rule_version) values (?, ?, ?, ?, 'rex', 'fever',"
            " '2026-06-01', '2026-06-01', '2026-06-01', 1, 'x', 'v1')",
            ALERTS,
        )
        con.executemany(
            "insert into anl.owner_engagement (owner_id, event_date, push_sent_count, email_sent_count,"
            " sms_sent_count, opened_count, session_count, sent_count, appointment_kept_count,"
            " is_reachable_push, is_reachable_sms, is_reachable_email)"
            " values (?, ?, ?, ?, ?, ?, 0, 0, 0, true, true, true)",
            CONTACTS,
        )
    written = dbt_project.folder / "semantic_manifest.json"
    SemanticManifest(warehouse.manifest).write_json_to_file(str(written))
    manifest = written.read_text()
    lookup = SemanticManifestLookup(parse_manifest_from_dbt_generated_manifest(manifest))
    engine = MetricFlowEngine(lookup, DuckDb())  # type: ignore[arg-type]

    def answer(metrics: list[str], groups: list[str]) -> list[tuple[Any, ...]]:
        request = MetricFlowQueryRequest.create(
            metric_names=metrics, group_by_names=groups, order_by_names=groups
        )
        return [tuple(row.values()) for row in warehouse.rows(engine.explain(request).sql_statement.sql)]

    return answer


def test_ratios_are_of_sums_and_stocks_are_of_the_last_date(ask: Any) -> None:
    metrics = ["no_shows", "no_show_rate", "overdue_vaccinations"]
    assert ask(metrics, ["clinic__clinic_name"]) == [("North Clinic", 4, 4 / 14, 5), ("Unknown", 1, 1 / 2, 7)]
    assert ask(metrics, []) == [(5, 5 / 16, 12)]


def test_days_without_a_measurement_do_not_count(ask: Any) -> None:
    metrics = ["steps_per_pet_day", "vaccination_overdue_share", "tracked_pets"]
    # Tom's clinic is unknown, and nothing says when his vaccination is due.
    assert ask(metrics, ["clinic"]) == [("k1", 150.0, 0.5, 1), ("unknown", 70.0, None, 1)]


def test_alerts_are_counted_by_whether_they_are_open_and_by_severity(ask: Any) -> None:
    metrics = ["alerts_raised", "open_alerts", "open_critical_alerts"]
    assert ask(metrics, ["clinic"]) == [("k1", 2, 1, 1), ("unknown", 1, 1, None)]


def test_what_cannot_be_seen_opened_is_no_part_of_the_open_rate(ask: Any) -> None:
    assert ask(["messages_opened", "engagement_open_rate"], ["metric_time__month"]) == [
        (datetime(2026, 6, 1), 3, 0.75)
    ]
