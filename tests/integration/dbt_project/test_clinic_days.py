"""Days of clinics and nights of pets follow the clinic's clocks, and bookings end as one rule says.

Los Angeles is at UTC-8 and from 8 March to 1 November 2026 at UTC-7, Zurich at UTC+1 and from
29 March to 25 October at UTC+2. The home zone of the tests is UTC.
"""

from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from seeded_raw import extract, merged, record

BEFORE = datetime(2026, 2, 1)
AS_OF = "2026-11-02 00:00:00"
TABLES = ("--select", "+ml_computed_features", "+anl_clinic_kpis", "+anl_wellness_alerts")
OFFSETS = count()
# When each pet's night begins and ends on a UTC date: its last minute before, first, last, first after.
NIGHTS = {
    # PST in, PDT out: 300 minutes.
    ("la", "03-08"): ("07:59", "08:00", "12:59", "13:00"),
    # PDT in, PST out: 420.
    ("la", "11-01"): ("06:59", "07:00", "13:59", "14:00"),
    # The night that ends at 04:00 UTC, in CEST, and the one that begins at 22:00.
    ("zh", "03-29"): ("04:00", "00:00", "23:59", "21:59"),
    # CET from 01:00 on: the nights of this UTC date end at 05:00 and begin at 23:00.
    ("zh", "10-25"): ("05:00", "04:59", "23:00", "22:59"),
    # Its record names no zone that exists: the home zone.
    ("mars", "10-25"): ("23:59", "00:00", "05:59", "06:00"),
}


def event(pet: str, event_ts: datetime, steps: int) -> dict[str, Any]:
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": 0,
        "kafka_offset": next(OFFSETS),
        "arrival_ts": event_ts,
        "ingested_at": event_ts,
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": f"collar of {pet}",
        "event_ts": event_ts,
        "event_id": f"{pet} {event_ts}",
        "step_count": steps,
        "body_temp_c": Decimal("38.00"),
        "schema_version": 1,
    }


def moment(day: str, time: str = "00:00") -> datetime:
    return datetime.fromisoformat(f"2026-{day} {time}")


def changed(feed: str, entity: str, changed_at: datetime, **values: Any) -> dict[str, Any]:
    return record(feed, entity, changed_at, kafka_offset=next(OFFSETS), **values)


def visit(entity: str, pet: str, visit_ts: datetime, **values: Any) -> dict[str, Any]:
    end = visit_ts + timedelta(minutes=20)
    stated = {"clinic_id": pet, "status": "completed", "is_unplanned": False, **values}
    return changed("clinic_visits", entity, end, pet_id=pet, visit_ts=visit_ts, visit_end_ts=end, **stated)


def bookings() -> dict[str, list[dict[str, Any]]]:
    """Of clinic `desk`, in Zurich: appointments of one source, visits of another that has none."""

    def appointment(
        day: str, time: str, status: str | None, known: str = "2026-10-20 08:00"
    ) -> dict[str, Any]:
        return changed(
            *("appointments", f"desk {day} {time}", datetime.fromisoformat(known)),
            source_system="front",
            clinic_id="desk",
            pet_id="la",
            scheduled_ts=moment(day, time),
            status=status,
        )

    def old_visit(day: str, time: str, status: str, is_unplanned: bool | None) -> dict[str, Any]:
        stated = {"status": status, "is_unplanned": is_unplanned, "source_system": "old", "clinic_id": "desk"}
        # A visit that took place would make `desk` the clinic of the pet.
        pet = "la" if status == "no_show" else "nobody's"
        return visit(f"old {day} {time}", pet, moment(day, time), **stated)

    return merged(
        [
            {
                "clinics": [changed("clinics", "desk", BEFORE, timezone="Europe/Zurich")],
                "appointments": [
                    appointment("10-26", "12:00", "completed"),
                    appointment("10-26", "13:00", "no_show", "2026-10-26 14:00"),
                    # A minute less than 24 hours before, and 24 hours.
                    appointment("10-27", "12:00", "cancelled", "2026-10-26 12:01"),
                    appointment("10-27", "13:00", "cancelled", "2026-10-26 13:00"),
                    appointment("10-28", "12:00", "cancelled_by_clinic"),
                    appointment("10-28", "13:00", "rescheduled"),
                    appointment("10-29", "12:00", "scheduled"),
                    appointment("10-29", "13:00", None),
                    # Past by the data's present, but not by the last report.
                    appointment("10-31", "12:00", "scheduled"),
                ],
                "clinic_visits": [
                    old_visit("10-26", "15:00", "no_show", None),
                    old_visit("10-26", "16:00", "completed", False),
                    old_visit("10-26", "17:00", "completed", True),
                    old_visit("10-29", "16:00", "completed", None),
                ],
            },
            extract("appointments", 1, moment("10-30", "12:00"), [], complete=False, source="front"),
            extract("clinic_visits", 1, moment("10-31"), [], complete=False, source="old"),
            extract("appointments", 2, moment("11-01"), [], complete=False, source="crm"),
        ]
    )


def world() -> dict[str, list[dict[str, Any]]]:
    zones = {"la": "America/Los_Angeles", "zh": "Europe/Zurich", "mars": "Mars/Olympus Mons"}
    events = []
    for (pet, day), times in NIGHTS.items():
        events += [
            event(pet, moment(day, time), steps) for time, steps in zip(times, (1, 2, 4, 8), strict=True)
        ]
    # Between the steps at 00:00 and at 23:59, in two nights.
    events += [event("zh", moment("03-29", time), 0) for time in ("03:58", "22:00", "22:01")]
    evenings = [
        # 17:30 on the day the clocks change; half an hour before midnight the day before.
        ("la1", "la", "03-09", "00:30"),
        ("la2", "la", "03-08", "07:30"),
        # Half an hour after midnight, before and after the change.
        ("zh1", "zh", "03-28", "23:30"),
        ("zh2", "zh", "03-29", "22:30"),
        ("mars1", "mars", "03-28", "23:30"),
    ]
    local: dict[str, list[dict[str, Any]]] = {
        "clinics": [changed("clinics", clinic, BEFORE, timezone=zone) for clinic, zone in zones.items()],
        "pets": [changed("pets", pet, BEFORE, owner_id="ann") for pet in zones],
        "device_assignments": [
            changed(
                *("device_assignments", f"wear of {pet}", BEFORE),
                device_id=f"collar of {pet}",
                pet_id=pet,
                assigned_from=BEFORE,
            )
            for pet in zones
        ],
        "clinic_visits": [
            *(visit(f"first {pet}", pet, moment("02-02", "12:00")) for pet in zones),
            *(visit(name, pet, moment(day, time)) for name, pet, day, time in evenings),
            visit("due", "la", moment("10-20", "18:00"), next_vaccine_due=date(2026, 10, 30)),
        ],
        "appointments": [
            changed(
                "appointments",
                name,
                BEFORE,
                clinic_id=clinic,
                scheduled_ts=moment(day, time),
                status="completed",
            )
            for name, clinic, day, time in evenings
        ],
        "telemetry_events": events,
    }
    return merged([local, bookings()])


@pytest.fixture(scope="module")
def warehouse(make_warehouse: Any) -> Any:
    built = make_warehouse(world())
    built.build(*TABLES, variables={"as_of_ts": AS_OF}, without=("unit_test", "test"))
    return built


def nights(warehouse: Any) -> dict[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in warehouse.rows(
        "select pet_id, strftime(event_date, '%m-%d') as day, night_steps, night_length_minutes,"
        " night_longest_rest_minutes from ml.pet_day_measures where night_length_minutes is not null"
    ):
        found[row.pop("pet_id"), row.pop("day")] = row
    return found


def test_the_night_is_that_of_the_clinic(warehouse: Any) -> None:
    found = nights(warehouse)
    assert {key: row["night_steps"] for key, row in found.items()} == dict.fromkeys(NIGHTS, 6)
    assert {key: row["night_length_minutes"] for key, row in found.items()} == {
        **dict.fromkeys(NIGHTS, 360),
        ("la", "03-08"): 300,
        ("la", "11-01"): 420,
    }


def test_no_rest_reaches_from_one_night_into_the_next(warehouse: Any) -> None:
    # 03:58 is alone in its night; 22:00 and 22:01 are in the next one.
    assert nights(warehouse)["zh", "03-29"]["night_longest_rest_minutes"] == 2


def test_visits_and_appointments_are_of_the_clinics_day(warehouse: Any) -> None:
    found = warehouse.rows(
        "select clinic_id, strftime(event_date, '%m-%d') as day, completed_visit_count, appointment_count"
        " from anl.clinic_kpis where appointment_count > 0 and clinic_id <> 'desk' order by all"
    )
    assert [tuple(row.values()) for row in found] == [
        ("la", "03-07", 1, 1),
        ("la", "03-08", 1, 1),
        ("mars", "03-28", 1, 1),
        ("zh", "03-29", 1, 1),
        ("zh", "03-30", 1, 1),
    ]


def test_a_vaccination_is_due_until_the_clinics_midnight(warehouse: Any) -> None:
    [first] = warehouse.rows(
        "select min(event_date) as day from anl.clinic_kpis where clinic_id = 'la' and overdue_vaccination_count > 0"
    )
    assert first["day"] == date(2026, 10, 31)
    # The UTC date 1 November ends at 16:00 of the same date there, two days after the due date.
    [due] = warehouse.rows(
        "select value from ml.computed_features where pet_id = 'la' and feature_name = 'vaccine_due_in_days'"
        " and event_date = date '2026-11-01'"
    )
    assert due["value"] == -2


def test_a_zone_that_is_none_is_named_and_the_home_zone_holds(warehouse: Any) -> None:
    [check] = warehouse.invoke("test", "--select", "clinics_have_timezones").result.results
    assert (check.status, check.failures) == ("warn", 1)
    assert warehouse.rows(
        "select clinic_id, stated_timezone, timezone from cur.clinic_timezones where is_assumed"
    ) == [{"clinic_id": "mars", "stated_timezone": "Mars/Olympus Mons", "timezone": "UTC"}]


BOOKINGS = (
    *("attended_count", "no_show_count", "late_cancellation_count", "cancellation_count"),
    *("clinic_cancellation_count", "rescheduled_count", "unresolved_booking_count", "unknown_booking_count"),
    *("finished_booking_count", "no_show_ratio", "no_show_count_90d", "no_show_ratio_90d"),
)


def test_each_outcome_is_counted_and_what_is_not_known_is_not_in_the_rate(warehouse: Any) -> None:
    found = warehouse.rows(
        f"select strftime(event_date, '%m-%d') as day, {', '.join(BOOKINGS)} from anl.clinic_kpis"
        " where clinic_id = 'desk' and event_date >= date '2026-10-26'"
    )
    nothing = (None,) * len(BOOKINGS)
    assert {row.pop("day"): tuple(row.values()) for row in found} == {
        "10-26": (2, 2, 0, 0, 0, 0, 0, 0, 4, 0.5, 2, 0.5),
        "10-27": (0, 0, 1, 1, 0, 0, 0, 0, 1, 0.0, 2, 0.4),
        "10-28": (0, 0, 0, 0, 1, 1, 0, 0, 0, None, 2, 0.4),
        "10-29": (0, 0, 0, 0, 0, 0, 1, 2, 0, None, 2, 0.4),
        # Not over when the source last reported, whatever telemetry came since.
        **dict.fromkeys(("10-30", "10-31", "11-01", "11-02"), nothing),
    }


def test_visits_end_with_the_last_report_of_visits(warehouse: Any) -> None:
    found = warehouse.rows(
        "select strftime(event_date, '%m-%d') as day, completed_visit_count from anl.clinic_kpis"
        " where clinic_id = 'desk' and event_date >= date '2026-10-29'"
    )
    assert [tuple(row.values()) for row in found] == [
        *(("10-29", 1), ("10-30", 0)),
        *((day, None) for day in ("10-31", "11-01", "11-02")),
    ]


def test_the_saved_analysis_and_the_feature_follow_the_same_rule(warehouse: Any) -> None:
    compiled = warehouse.invoke("compile", "--select", "no_show_rate_90d", variables={"as_of_ts": AS_OF})
    [rate] = [
        tuple(row.values())
        for row in warehouse.rows(compiled.result.results[0].node.compiled_code)
        if row["clinic_id"] == "desk"
    ]
    assert rate == ("desk", 2, 5, 0.4, 1, 2)
    [feature] = warehouse.rows(
        "select value from ml.computed_features where pet_id = 'la' and feature_name = 'no_shows_365d'"
        " and event_date = date '2026-11-01'"
    )
    assert feature["value"] == 2


def test_a_corrected_zone_corrects_every_day(warehouse: Any) -> None:
    # In Kolkata, at UTC+5:30, the nights of a UTC date end at 00:30 and begin at 18:30.
    corrected = changed("clinics", "mars", moment("10-30"), timezone="Asia/Kolkata")
    warehouse.load({"clinics": [corrected]})
    warehouse.build(*TABLES, variables={"as_of_ts": AS_OF, "dirty_days": []}, without=("unit_test", "test"))
    found = nights(warehouse)["mars", "10-25"]
    assert (found["night_steps"], found["night_length_minutes"]) == (3, 360)
    [visited] = warehouse.rows(
        "select strftime(event_date, '%m-%d') as day from anl.clinic_kpis"
        " where clinic_id = 'mars' and appointment_count > 0"
    )
    assert visited["day"] == "03-29"
