"""Duplicates, conflicts, pet, owner and clinic as of an event's time, and sums of hours, against plain Python."""

from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from seeded_raw import TIMEZONES, small_world

DAYS = 9
KEY = ("stream_id", "kafka_partition", "kafka_offset")


@pytest.fixture(scope="module")
def world():
    return small_world(seed=11, days=DAYS)


@pytest.fixture(scope="module")
def warehouse(make_warehouse, world):
    built = make_warehouse(world)
    built.build(
        *("--select", "+anl_pet_daily_summary", "stg_event_conflicts", "+anl_dates"),
        without=("unit_test", "test"),
    )
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


def test_conflicts_are_other_content_or_a_neighbouring_date(warehouse, world):
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
    for events in grouped(world["telemetry_events"], "device_id", "event_id").values():
        for event in events:
            day = event["event_ts"].date()
            first = next(other for other in events if abs((other["event_ts"].date() - day).days) <= 1)
            if first["event_ts"].date() != day:
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
        return "unknown", "unassigned"
    return (pets.pop(), "assigned") if len(pets) == 1 else ("unknown", "ambiguous")


def test_the_pet_is_the_one_that_wore_the_device_at_the_events_time(warehouse):
    assignments = warehouse.rows("select * from cur.device_assignments where is_current and not is_deleted")
    events = warehouse.rows("select device_id, event_ts, pet_id, pet_resolution from anl.telemetry_events")
    expected = [reference_pet(assignments, event["device_id"], event["event_ts"]) for event in events]
    assert {resolution for _, resolution in expected} == {"assigned", "unassigned", "ambiguous"}
    assert [(event["pet_id"], event["pet_resolution"]) for event in events] == expected


def version_at(versions, moment):
    [found] = [
        row
        for row in versions
        if row["valid_from"] <= moment and (row["valid_to"] is None or moment < row["valid_to"])
    ] or [None]
    return found


def reference_owner(pets, pet_id, moment):
    version = version_at([row for row in pets if row["pet_id"] == pet_id], moment)
    return version["owner_id"] if version and not version["is_deleted"] else "unknown"


def completed_visits(warehouse):
    return warehouse.rows(
        "select * from cur.clinic_visits where is_current and not is_deleted and status = 'completed'"
    )


def reference_clinic(visits, pet_id, moment, captured):
    past = [
        row for row in visits if row["pet_id"] == pet_id and row["visit_ts"] <= moment and row["clinic_id"]
    ]
    if past:
        return max(past, key=lambda row: (row["visit_ts"], row["visit_id"]))["clinic_id"], "visit"
    return (captured, "capture") if captured else ("unknown", "unknown")


def test_owner_and_clinic_are_those_of_the_pet_at_the_events_time(warehouse):
    pets, visits = warehouse.rows("select * from cur.pets"), completed_visits(warehouse)
    events = warehouse.rows("select * from anl.telemetry_events")
    expected = [
        (
            reference_owner(pets, event["pet_id"], event["event_ts"]),
            *reference_clinic(visits, event["pet_id"], event["event_ts"], event["capture_clinic_id"]),
        )
        for event in events
    ]
    assert {resolution for *_, resolution in expected} == {"visit", "capture", "unknown"}
    assert {event["owner_id"] for event in events} == {"o0", "o1", "o2", "unknown"}
    assert [(row["owner_id"], row["clinic_id"], row["clinic_resolution"]) for row in events] == expected


def reference_hour(events):
    """Figures of one pet and hour, counted event by event."""

    def of(column):
        return [event[column] for event in events if event[column] is not None]

    def minutes(chosen):
        return len({event["event_ts"].replace(second=0, microsecond=0) for event in chosen})

    worn = [event for event in events if event["pulse_bpm"] is not None or event["body_temp_c"] is not None]
    return {
        "event_count": len(events),
        "device_count": len({event["device_id"] for event in events}),
        "observed_minutes": minutes(events),
        "worn_minutes": minutes(worn),
        "total_steps": sum(of("step_count")) if of("step_count") else None,
        "total_licks": sum(of("lick_count")) if of("lick_count") else None,
        "pulse_bpm_sum": sum(of("pulse_bpm")) if of("pulse_bpm") else None,
        "pulse_count": len(of("pulse_bpm")),
        "body_temp_c_sum": sum(of("body_temp_c")) if of("body_temp_c") else None,
        "body_temp_count": len(of("body_temp_c")),
        "body_temp_c_max": max(of("body_temp_c"), default=None),
        "battery_min_pct": min(of("battery_pct"), default=None),
    }


def test_hours_are_counted_from_their_events_and_days_are_sums_of_hours(warehouse):
    events = warehouse.rows("select * from anl.telemetry_events where pet_id <> 'unknown'")
    hours, days = defaultdict(list), defaultdict(list)
    for event in events:
        hours[event["pet_id"], event["event_ts"].replace(minute=0, second=0, microsecond=0)].append(event)
        days[event["pet_id"], event["event_date"]].append(event)
    built = {
        (row["pet_id"], row["hour_ts"]): row
        for row in warehouse.rows("select * from anl.telemetry_summary_hourly")
    }
    assert built.keys() == hours.keys()
    for key, of_hour in hours.items():
        expected = reference_hour(of_hour)
        assert {name: built[key][name] for name in expected} == expected, key
        assert built[key]["event_date"] == key[1].date()
    built_days = {
        (row["pet_id"], row["event_date"]): row for row in warehouse.rows("select * from anl.daily_activity")
    }
    assert built_days.keys() == days.keys()
    for key, of_day in days.items():
        expected = reference_hour(of_day)
        del expected["body_temp_c_max"]
        assert {name: built_days[key][name] for name in expected} == expected, key
        assert built_days[key]["first_event_ts"] == min(event["event_ts"] for event in of_day)


def last_visit_date(past):
    """The date of the last of a pet's visits, on the clocks of its clinic: the last that a visit names."""
    if not past:
        return None
    in_order = sorted(past, key=lambda v: v["visit_ts"])
    clinic = next((v["clinic_id"] for v in reversed(in_order) if v["clinic_id"]), None)
    zone = TIMEZONES[int(clinic.removeprefix("c"))] if clinic else "UTC"
    return in_order[-1]["visit_ts"].replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()


def test_a_pets_day_shows_pet_owner_clinic_and_visits_as_at_its_last_moment(warehouse):
    pets, visits = warehouse.rows("select * from cur.pets"), completed_visits(warehouse)
    summary = warehouse.rows("select * from anl.pet_daily_summary")
    captured = defaultdict(lambda: defaultdict(int))
    for event in warehouse.rows("select * from anl.telemetry_events where capture_clinic_id is not null"):
        captured[event["pet_id"], event["event_date"]][event["capture_clinic_id"]] += 1
    assert len(summary) == warehouse.rows("select count(*) as n from anl.daily_activity")[0]["n"] > 20
    for row in summary:
        last_moment = datetime.combine(row["event_date"], datetime.max.time())
        counts = captured[row["pet_id"], row["event_date"]]
        mostly = min(counts, key=lambda clinic, counts=counts: (-counts[clinic], clinic), default=None)
        past = [v for v in visits if v["pet_id"] == row["pet_id"] and v["visit_ts"] <= last_moment]
        expected = (
            reference_owner(pets, row["pet_id"], last_moment),
            *reference_clinic(visits, row["pet_id"], last_moment, mostly),
            last_visit_date(past),
            max((v["next_vaccine_due"] for v in past if v["next_vaccine_due"]), default=None),
            version_at([pet for pet in pets if pet["pet_id"] == row["pet_id"]], last_moment)["breed"],
        )
        found = ("owner_id", "clinic_id", "clinic_resolution", "last_visit_date", "next_vaccine_due", "breed")
        assert tuple(row[name] for name in found) == expected, (row["pet_id"], row["event_date"])


def test_the_calendar_agrees_with_pythons(warehouse):
    rows = warehouse.rows("select * from anl.dates order by event_date")
    first, last = date(2015, 1, 1), date(2035, 12, 31)
    assert [row["event_date"] for row in rows] == [
        first + timedelta(days=number) for number in range((last - first).days + 1)
    ]
    for row in rows:
        day = row.pop("event_date")
        assert row == {
            "year": day.year,
            "quarter": (day.month + 2) // 3,
            "month": day.month,
            "day_of_month": day.day,
            "month_name": day.strftime("%B"),
            "iso_week": day.isocalendar().week,
            "iso_weekday": day.isoweekday(),
            "weekday_name": day.strftime("%A"),
            "is_weekend": day.isoweekday() in (6, 7),
        }


def test_the_calendar_covers_what_the_data_hold(warehouse):
    """Days before and after those it always has, and one more, on which the last evening's alerts are raised."""

    def built(**stated):
        warehouse.build("--select", "anl_dates", variables=stated, without=("unit_test", "test"))
        return warehouse.rows("select min(event_date) as low, max(event_date) as high from anl.dates")

    [held] = warehouse.rows(
        "select min(event_date) as low, max(event_date) + 1 as high from"
        " (select event_date from stg.telemetry_days union all select event_date from anl.owner_engagement)"
    )
    assert held["low"] < date(2026, 6, 4) < held["high"]
    assert built(calendar_first="2026-06-04", calendar_last="2026-06-04") == [held]
    [usual] = built()
    assert usual == {"low": date(2015, 1, 1), "high": date(2035, 12, 31)}


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
