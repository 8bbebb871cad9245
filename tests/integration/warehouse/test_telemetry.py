"""Duplicates, conflicts and the pet as of an event's time, against plain Python."""

from collections import defaultdict
from datetime import datetime

import pytest
from seeded_raw import small_world

DAYS = 9
KEY = ("stream_id", "kafka_partition", "kafka_offset")


@pytest.fixture(scope="module")
def world():
    return small_world(seed=11, days=DAYS)


@pytest.fixture(scope="module")
def warehouse(make_warehouse, world):
    built = make_warehouse(world)
    built.build("--select", "+anl_telemetry_events", "stg_event_conflicts", without=("unit_test", "test"))
    return built


def key_of(row):
    return tuple(row[name] for name in KEY)


def arrival_order(row):
    return (row["arrival_ts"], *key_of(row))


def grouped(events, *columns):
    groups = defaultdict(list)
    for event in sorted(events, key=arrival_order):
        groups[tuple(event[column] for column in columns)].append(event)
    return groups


def test_the_first_of_each_key_stays_and_the_rest_point_to_it(warehouse, world):
    events = [{**event, "event_date": event["event_ts"].date()} for event in world["telemetry_events"]]
    groups = grouped(events, "device_id", "event_id", "event_date").values()
    expected = {key_of(event): key_of(group[0]) for group in groups for event in group[1:]}
    built = warehouse.rows("select * from stg.telemetry_duplicates")
    assert expected
    assert expected == {key_of(row): tuple(row[f"kept_{name}"] for name in KEY) for row in built}
    staged = {key_of(row) for row in warehouse.rows("select * from stg.telemetry_events")}
    assert staged == {key_of(group[0]) for group in groups}


def test_conflicts_are_other_content_or_another_date(warehouse, world):
    def content(event):
        not_measured = {
            *KEY,
            "arrival_ts",
            "ingested_at",
            "event_ts",
            "payload",
            "source_file",
            "source_system",
        }
        return {name: value for name, value in event.items() if name not in not_measured}

    expected = {}
    for first, *others in grouped(world["telemetry_events"], "device_id", "event_id").values():
        for event in others:
            if event["event_ts"].date() != first["event_ts"].date():
                expected[key_of(event)] = "date"
            elif content(event) != content(first):
                expected[key_of(event)] = "content"
    assert set(expected.values()) == {"date", "content"}
    built = warehouse.rows("select * from stg.event_conflicts")
    assert {key_of(row): row["conflict_kind"] for row in built} == expected


def reference_pet(assignments, device_id, event_ts):
    mine = [row for row in assignments if row["device_id"] == device_id]

    def end(row):
        later = [other["assigned_from"] for other in mine if other["assigned_from"] > row["assigned_from"]]
        return row["assigned_to"] or min(later, default=datetime.max)

    pets = {row["pet_id"] for row in mine if row["assigned_from"] <= event_ts < end(row)}
    if not pets:
        return None, "unassigned"
    return (pets.pop(), "assigned") if len(pets) == 1 else (None, "ambiguous")


def test_the_pet_is_the_one_that_wore_the_device_at_the_events_time(warehouse):
    assignments = warehouse.rows("select * from cur.device_assignments where is_current and not is_deleted")
    events = warehouse.rows("select device_id, event_ts, pet_id, pet_resolution from anl.telemetry_events")
    expected = [reference_pet(assignments, event["device_id"], event["event_ts"]) for event in events]
    assert {resolution for _, resolution in expected} == {"assigned", "unassigned", "ambiguous"}
    assert [(event["pet_id"], event["pet_resolution"]) for event in events] == expected


def test_analytics_hold_no_exact_position_and_no_payload(warehouse):
    columns = {row["column_name"] for row in warehouse.rows("describe anl.telemetry_events")}
    assert "payload" not in columns
    sharper = "select count(*) as n from anl.telemetry_events where gps_lat <> round(gps_lat, 2)"
    assert warehouse.rows(sharper) == [{"n": 0}]
    moved = """
        select max(abs(a.gps_lat - s.gps_lat)) as shift
        from anl.telemetry_events as a join stg.telemetry_events as s using (device_id, event_id, event_date)
    """
    assert 0 < warehouse.rows(moved)[0]["shift"] <= 0.005
