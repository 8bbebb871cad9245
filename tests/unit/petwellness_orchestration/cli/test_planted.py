"""Whatever differs between what was planted and what was found is told, kind by kind."""

from datetime import date, datetime
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from contracts.consent import AnalyticsDefault
from petwellness_orchestration.cli.demo import differing
from petwellness_orchestration.cli.planted import KINDS, compare, compare_landed

DAY = date(2026, 6, 1)
NOON = datetime(2026, 6, 1, 12)
EVENING = datetime(2026, 6, 1, 18)

# c1 has a span that two pets claim, c2 an irregular cadence, c3 no pulse.
WAREHOUSE = """
    create schema anl;
    create schema cur;
    create schema stg;
    create schema ml;
    create table anl.telemetry_events as
    select 'c' || (1 + n % 3) as device_id, date '2026-06-01' as event_date,
        timestamp '2026-06-01 12:00' + n * interval 1 minute as event_ts,
        if(n % 3 = 0 and n < 360, 'ambiguous', 'assigned') as pet_resolution,
        if(n % 3 = 0 and n < 360, 'unknown', 'p1') as pet_id,
        if(n % 3 = 2, null, 80) as pulse_bpm, 38 as body_temp_c, 20 as respiration_rpm, 47 as gps_lat, 8 as gps_long
    from range(390) as series(n);
    create table anl.device_daily_heartbeat as
    select 'c' || n as device_id, date '2026-06-01' as event_date, if(n = 2, null, 1440) as expected_events,
        130 as event_count
    from range(1, 4) as series(n);
    create table cur.devices as
    select 'c' || n as device_id, true as is_current, 'active' as status,
        if(n = 2, null, 1440) as expected_events_per_day
    from range(1, 4) as series(n);
    create table cur.device_pet_intervals as
    select 'c1' as device_id, timestamp '2026-06-01 12:00' as valid_from, timestamp '2026-06-01 18:00' as valid_to,
        'ambiguous' as pet_resolution;
    create table cur.pets as
    select 'p2' as pet_id, timestamp '2026-06-01 12:00' as valid_from, null::timestamp as valid_to,
        true as is_deleted, 'pet-register' as source_system;
    create table stg.record_duplicates as select 'pets' as feed, 'p3' as entity_id;
    create table cur.record_findings as
    select 'pets' as feed, 'p4' as entity_id, 'contradicted' as finding, true as is_set_aside
    union all select 'pets', 'p5', 'before_birth', false;
    create table anl.owners as
    select 'o1' as owner_id, 'North' as district, true as is_reachable_push, false as is_reachable_sms,
        false as is_reachable_email;
    create table ml.owner_records as select 'o1' as owner_id, null::timestamp as known_to;
    create table ml.feature_catalogue as
    select 'licks' as feature_name, 'v1' as feature_version, 'superseded' as status;
    create table ml.computed_features as
    select 'p1' as pet_id, date '2026-06-01' as event_date, 2.5::double as value, 'licks' as feature_name,
        'v1' as feature_version;
"""

PLANTED: dict[str, list[dict[str, Any]]] = {
    "events_per_device_day": [
        {"device_id": device, "event_date": DAY, "events": 130} for device in ("c1", "c2", "c3")
    ],
    "ambiguous_spans": [{"device_id": "c1", "from_ts": NOON, "to_ts": EVENING, "events": 120}],
    "irregular_days": [{"device_id": "c2", "event_date": DAY, "events": 130}],
    "missing_sensors": [{"device_id": "c3", "sensor": "pulse_bpm", "events": 130}],
    "listed_versions": [{"pet_id": "p2", "valid_from": NOON, "valid_to": None, "is_deleted": True}],
    "set_aside_records": [
        {"feed": "pets", "business_key": "p3", "reason": "repeated", "records": 1},
        {"feed": "pets", "business_key": "p4", "reason": "contradicted", "records": 1},
    ],
    "silent_consents": [
        {"owner_id": "o1", "flag": "push", "last_said": True},
        {"owner_id": "o1", "flag": "share_research", "last_said": True},
        {"owner_id": "o1", "flag": "sms", "last_said": None},
        {"owner_id": "o1", "flag": "email", "last_said": None},
        {"owner_id": "o1", "flag": "analytics", "last_said": None},
    ],
    "superseded_features": [{"pet_id": "p1", "event_date": DAY, "value": 2.5}],
}
NAMES = dict(
    zip(
        (
            "events_per_device_day",
            "ambiguous_spans",
            "irregular_days",
            "missing_sensors",
            "listed_versions",
            "set_aside_records",
            "silent_consents",
            "superseded_features",
        ),
        (kind.name for kind in KINDS),
        strict=True,
    )
)


def differences(
    planted: dict[str, list[dict[str, Any]]],
    default: AnalyticsDefault = AnalyticsDefault.ALLOW,
    change: str = "",
) -> dict[str, tuple[str, ...]]:
    """Names and examples of the kinds that differ from the warehouse above, after `change`."""
    types = {"valid_to": pa.timestamp("us"), "last_said": pa.bool_()}
    truth = {
        name: pa.table(
            {
                column: pa.array([row[column] for row in rows], types.get(column))
                for column in PLANTED[name][0]
            }
        )
        for name, rows in planted.items()
    }
    with duckdb.connect() as con:
        con.execute(WAREHOUSE + change)
        return {one.name: one.examples for one in compare(con, truth, default) if one.differing}


def test_what_was_planted_was_found() -> None:
    assert differences(PLANTED) == {}


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("events_per_device_day", "events", 129),
        ("ambiguous_spans", "events", 119),
        ("ambiguous_spans", "to_ts", datetime(2026, 6, 1, 17)),
        ("irregular_days", "device_id", "c1"),
        ("missing_sensors", "sensor", "body_temp_c"),
        ("listed_versions", "is_deleted", False),
        ("set_aside_records", "reason", "clock_ahead"),
        ("silent_consents", "last_said", False),
        ("superseded_features", "value", 2.25),
    ],
)
def test_another_value_planted_is_told(table: str, column: str, value: Any) -> None:
    first, *others = PLANTED[table]
    found = differences(PLANTED | {table: [first | {column: value}, *others]})
    assert list(found) == [NAMES[table]]
    [missing, unexpected] = found[NAMES[table]]
    assert missing.startswith("missing ")
    assert unexpected.startswith("unexpected ")


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("insert into anl.telemetry_events from anl.telemetry_events where device_id = 'c2' limit 1", "events_per_device_day"),
        ("update anl.telemetry_events set pet_id = 'p1' where event_ts = timestamp '2026-06-01 12:00'", "ambiguous_spans"),
        ("update anl.device_daily_heartbeat set expected_events = 1440", "irregular_days"),
        ("update anl.telemetry_events set pulse_bpm = 70 where event_ts = timestamp '2026-06-01 12:02'", "missing_sensors"),
        ("update anl.telemetry_events set gps_lat = null where device_id = 'c2'", "missing_sensors"),
        ("insert into cur.pets from cur.pets", "listed_versions"),
        ("delete from stg.record_duplicates", "set_aside_records"),
        ("update anl.owners set is_reachable_sms = true", "silent_consents"),
        ("update anl.owners set district = null", "silent_consents"),
        ("delete from ml.owner_records", "silent_consents"),
        ("delete from ml.computed_features", "superseded_features"),
    ],
)  # fmt: skip
def test_another_table_found_is_told(change: str, table: str) -> None:
    assert list(differences(PLANTED, change=change)) == [NAMES[table]]


def test_silence_about_analytics_is_what_the_setting_says() -> None:
    found = differences(PLANTED, AnalyticsDefault.REFUSE)
    assert found == {
        NAMES["silent_consents"]: ("missing o1, analytics, False, 1", "unexpected o1, analytics, True, 1")
    }


LANDED = {
    "messages": 100,
    "rejects_by_reason": {"type": 3, "range": 2},
    "consent_dropped": 10,
    "telemetry_streams": 1,
}
TOTAL = {
    "messages": 100,
    "rejected": {"type": 3, "range": 2},
    "consent_dropped": 10,
    "duplicates": 4,
    "conflicts": 1,
}


def test_messages_landed_are_those_planted() -> None:
    assert [one.differing for one in compare_landed(TOTAL, LANDED, 5)] == [0, 0, 0, 0]
    assert len(compare_landed(TOTAL, LANDED, None)) == 3


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("messages", {"messages": 1}),
        ("rejects", {"rejected": {"type": 1}}),
        ("dropped by consent", {"consent_dropped": 1}),
        ("duplicates and conflicts set aside", {"duplicates": 1, "conflicts": 0}),
    ],
)
def test_other_messages_are_told_unless_a_wave_came_again(
    name: str, change: dict[str, Any], streams: int
) -> None:
    landed = LANDED | {"telemetry_streams": streams}
    more = [one.name for one in compare_landed(TOTAL | change, landed, 5) if one.differing]
    assert more == ([name] if streams == 1 else [])
    larger = {key: {"type": 9} if isinstance(value, dict) else value + 190 for key, value in change.items()}
    lost = [one.name for one in compare_landed(TOTAL | larger, landed, 5) if one.differing]
    assert lost == [name]


def test_the_demo_names_what_differs() -> None:
    same = {"name": "messages", "planted": 2, "found": 2, "differing": 0, "examples": ()}
    other = {"name": "spans", "planted": 2, "found": 1, "differing": 1, "examples": ("missing c1, 3",)}
    assert differing({"planted": [same]}) == []
    assert differing({"planted": [same, other]}) == ["spans: missing c1, 3"]
    assert differing({"planted": [other | {"examples": ()}]}) == ["spans"]
