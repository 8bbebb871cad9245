"""Facts as of their time, in one small world worked out by hand: corrections change exactly what they concern.

Collar d1 is on p1 and then on p2; d2 is on q1, a patient of clinic k1. Rows of a day that a run
rewrites lose the mark that is put on them before.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, record

LONG_BEFORE = FIRST_DAY - 200 * DAY
OFFSETS = count()

# A value that no build gives a row, by table.
MARKS = {
    "anl.telemetry_events": "firmware_version = 'kept'",
    "anl.telemetry_summary_hourly": "battery_min_pct = 1.23",
    "anl.daily_activity": "battery_min_pct = 1.23",
    "anl.pet_daily_summary": "breed = 'kept'",
    "anl.device_daily_heartbeat": "heartbeat_ratio = -1",
    "anl.clinic_daily_heartbeat": "heartbeat_ratio = -1",
    "anl.clinic_daily_collars": "silent_collar_count = -1",
    "ml.computed_features": "batch_id = 'kept'",
}


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return FIRST_DAY + day * DAY + timedelta(hours=hour, minutes=minute)


def changed(feed: str, entity: str, changed_at: datetime, **values: Any) -> dict[str, Any]:
    return record(feed, entity, changed_at, kafka_offset=next(OFFSETS), **values)


def visit(
    entity: str, pet_id: str, clinic_id: str, visit_ts: datetime, minutes: int, **values: Any
) -> dict[str, Any]:
    end = visit_ts + timedelta(minutes=minutes)
    stated = {"status": "completed", "is_unplanned": False, **values}
    changed_at = stated.pop("changed_at", end)
    return changed(
        *("clinic_visits", entity, changed_at),
        pet_id=pet_id,
        clinic_id=clinic_id,
        visit_ts=visit_ts,
        visit_end_ts=end,
        **stated,
    )


def event(device_id: str, event_ts: datetime, event_id: str | None = None, **values: Any) -> dict[str, Any]:
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": 0,
        "kafka_offset": next(OFFSETS),
        "arrival_ts": event_ts,
        "ingested_at": event_ts + timedelta(minutes=1),
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": device_id,
        "event_ts": event_ts,
        "event_id": event_id or f"{device_id} {event_ts:%d %H}",
        "step_count": 10,
        "capture_clinic_id": "c9",
        "schema_version": 1,
        "payload": "{}",
        **values,
    }


def events_of(days: Iterable[int]) -> list[dict[str, Any]]:
    return [event("d1", at(day, hour)) for day in days for hour in (0, 6, 12, 18)]


def first_load() -> dict[str, list[dict[str, Any]]]:
    owners = {"p1": "o1", "p2": "o2", "q1": "oq", "q2": "oq", "q3": "oq"}
    assignments = [("a1", "d1", "p1", at(0)), ("a2", "d1", "p2", at(3, 12)), ("a3", "d2", "q1", at(0))]
    return {
        "pets": [
            *(changed("pets", pet, LONG_BEFORE, owner_id=owner) for pet, owner in owners.items()),
            changed("pets", "q2", at(5), owner_id="oq", op="delete"),
        ],
        "devices": [changed("devices", "d2", LONG_BEFORE, status="active", expected_events_per_day=2)],
        "device_assignments": [
            changed("device_assignments", entity, since, device_id=device, pet_id=pet, assigned_from=since)
            for entity, device, pet, since in assignments
        ],
        "clinic_visits": [
            visit("v1", "p1", "c1", at(-1, 9), 30),
            visit("w1", "q1", "k1", at(0, 9), 30, next_vaccine_due=date(2026, 6, 3)),
            visit("w2", "q2", "k1", at(0, 10), 45, is_unplanned=True),
            visit("w3", "q3", "k1", at(0, 11), 15, status="no_show"),
            visit("w4", "q1", "k1", at(1, 9), 15, status="cancelled"),
            visit("w5", "q2", "k1", at(2, 9), 15, next_vaccine_due=date(2026, 6, 2)),
            # 90 and 89 days before June 1st.
            visit("w6", "q3", "k1", datetime(2026, 3, 3, 9), 15, status="no_show"),
            visit("w7", "q3", "k1", datetime(2026, 3, 4, 9), 15),
            visit("w8", "q1", "k1", at(4, 9), 15, next_vaccine_due=date(2027, 6, 5)),
        ],
        "appointments": [
            changed("appointments", entity, LONG_BEFORE, clinic_id="k1", scheduled_ts=due, status=status)
            for entity, due, status in [
                ("ap1", at(0, 9), "completed"),
                ("ap2", at(0, 11), "no_show"),
                ("ap3", at(1, 9), "cancelled"),
                ("ap5", at(2, 9), "completed"),
                ("ap6", datetime(2026, 3, 3, 9), "no_show"),
                ("ap7", datetime(2026, 3, 4, 9), "completed"),
                ("ap8", at(4, 9), "completed"),
            ]
        ],
        # Both feeds have reported up to the last midnight.
        "extracts": [
            statement
            for feed in ("clinic_visits", "appointments")
            for statement in extract(feed, 1, at(6), [], complete=False, source="crm")["extracts"]
        ],
        "telemetry_events": [
            *events_of(range(6)),
            *(event("d2", ts) for ts in (at(0, 6), at(0, 18), at(1, 6))),
        ],
    }


# The same for tables that are kept by key: the column that is marked, and the key.
MARKS_BY_KEY = {
    "cur.pet_contexts": ("pet_context_sk", "pet_id"),
    "cur.device_contexts": ("device_context_sk", "device_id"),
}
MARKED_COLUMNS = {mark.split()[0] for mark in MARKS.values()}
ROW_KEYS = {
    "anl.telemetry_events": "event_id",
    "anl.pet_daily_summary": "pet_id || ' ' || day(event_date)",
    "anl.clinic_daily_collars": "clinic_id || ' ' || day(event_date)",
    "ml.computed_features": "pet_id || ' ' || feature_name || ' ' || day(event_date)",
}

# What the first load is built into, and what most increments are.
ALL = ("+anl_pet_daily_summary", "+anl_clinic_daily_heartbeat", "+anl_clinic_kpis", "+ml_computed_features")
ACTIVITY = (*ALL[:2], "+anl_clinic_daily_collars")


class Step:
    """What one increment did: the rows before and after, marked columns apart, and the days it rewrote."""

    def __init__(
        self,
        warehouse: Any,
        raw: dict[str, list[dict[str, Any]]],
        as_of: datetime,
        models: Sequence[str] = ACTIVITY,
    ) -> None:
        self.before = self.contents(warehouse)
        with warehouse.connect() as con:
            for table, mark in MARKS.items():
                con.execute(f"update {table} set {mark}")
            for table, (column, _) in MARKS_BY_KEY.items():
                con.execute(f"update {table} set {column} = 'kept'")
        warehouse.load(raw)
        build(
            warehouse,
            sorted({f"{row['event_ts']:%Y-%m-%d}" for row in raw.get("telemetry_events", [])}),
            as_of,
            models,
        )
        self.after = self.contents(warehouse)
        self.rewritten = {
            table: tuple(
                (row["event_date"] - FIRST_DAY.date()).days
                for row in warehouse.rows(
                    f"select distinct event_date from {table} where ({mark}) is not true order by event_date"
                )
            )
            for table, mark in MARKS.items()
        }
        self.touched = {
            table: {
                row["row_key"]
                for row in warehouse.rows(f"select {key} as row_key from {table} where {column} <> 'kept'")
            }
            for table, (column, key) in MARKS_BY_KEY.items()
        }

    @staticmethod
    def contents(warehouse: Any) -> dict[str, dict[str, dict[str, Any]]]:
        return {
            table: {
                row.pop("row_key"): {name: row[name] for name in row.keys() - MARKED_COLUMNS}
                for row in warehouse.rows(f"select {key} as row_key, * from {table}")
            }
            for table, key in ROW_KEYS.items()
        }

    def changes(self, table: str, *columns: str) -> dict[str, tuple[Any, ...] | None]:
        """Rows that differ, with their new values of `columns`; None for those that are gone."""
        before, after = self.before[table], self.after[table]
        return {
            key: tuple(after[key][column] for column in columns) if key in after else None
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
        }


def build(warehouse: Any, dirty: list[str] | None, as_of: datetime, models: Sequence[str]) -> None:
    warehouse.build(
        *("--select", *models),
        variables={"dirty_days": dirty, "as_of_ts": f"{as_of:%Y-%m-%d %H:%M:%S}"},
        without=("unit_test", "test"),
    )


@pytest.fixture(scope="module")
def story(make_warehouse: Any) -> dict[str, Any]:
    """The increments after the first load, in their order, and the figures of clinic k1 before them.

    The first increment has features with it, the others what is told of activity."""
    warehouse = make_warehouse(first_load())
    build(warehouse, None, at(6), ALL)
    kpis = warehouse.rows("select * from anl.clinic_kpis where clinic_id = 'k1' order by event_date")
    moved_earlier = changed(
        "device_assignments", "a2", at(4, 10), device_id="d1", pet_id="p2", assigned_from=at(2, 6)
    )
    late_visit = visit("v2", "p1", "c2", at(1, 9), 20, arrival_ts=at(5, 8))
    new_owner = changed("pets", "p2", at(4, 12), arrival_ts=at(5, 9), owner_id="o3")
    moved_back = changed(
        "device_assignments", "a4", at(6, 12), device_id="d1", pet_id="p1", assigned_from=at(6, 12)
    )
    return {
        "kpis": kpis,
        "moved_earlier": Step(
            *(warehouse, {"device_assignments": [moved_earlier]}, at(6)),
            models=(*ACTIVITY, "+ml_computed_features"),
        ),
        "late_visit": Step(warehouse, {"clinic_visits": [late_visit]}, at(6)),
        "new_owner": Step(warehouse, {"pets": [new_owner]}, at(6)),
        "late_event": Step(
            warehouse, {"telemetry_events": [event("d1", at(0, 3), arrival_ts=at(5, 23))]}, at(6)
        ),
        "next_day": Step(
            warehouse, {"device_assignments": [moved_back], "telemetry_events": events_of([6])}, at(7)
        ),
    }


def test_a_corrected_assignment_reattributes_its_span_and_no_other_day(story: dict[str, Any]) -> None:
    step = story["moved_earlier"]
    assert step.changes(
        "anl.telemetry_events", "pet_id", "owner_id", "clinic_id", "clinic_resolution"
    ) == dict.fromkeys(
        ("d1 03 06", "d1 03 12", "d1 03 18", "d1 04 00", "d1 04 06"), ("p2", "o2", "c9", "capture")
    )
    assert step.changes("anl.pet_daily_summary", "event_count", "total_steps") == {
        "p1 3": (1, 10),
        "p2 3": (3, 30),
        "p1 4": None,
        "p2 4": (4, 40),
    }
    by_day = {table: days for table, days in step.rewritten.items() if table.startswith("anl.")}
    # Nothing is expected of d1, whoever wears it.
    unconcerned = {"anl.device_daily_heartbeat", "anl.clinic_daily_heartbeat"}
    assert by_day == {table: () if table in unconcerned else (2, 3) for table in by_day}
    # Known on June 5th at 10:00: features of earlier days say what was known when they ended.
    days_of_features = {key.rsplit(" ", 1)[1] for key in step.changes("ml.computed_features", "value")}
    assert days_of_features == {"5", "6"}
    assert step.rewritten["ml.computed_features"] == (4, 5)


def test_a_late_visit_changes_the_clinic_from_its_time_on(story: dict[str, Any]) -> None:
    step = story["late_visit"]
    assert step.changes("anl.telemetry_events", "clinic_id", "clinic_resolution") == dict.fromkeys(
        ("d1 02 12", "d1 02 18", "d1 03 00"), ("c2", "visit")
    )
    assert step.changes("anl.pet_daily_summary", "clinic_id", "last_visit_date") == {
        "p1 2": ("c2", date(2026, 6, 2)),
        "p1 3": ("c2", date(2026, 6, 2)),
    }
    assert step.changes("anl.clinic_daily_collars", "active_collar_count") == {"c1 2": None, "c2 2": (1,)}
    assert step.rewritten["anl.telemetry_events"] == (1, 2)
    assert step.rewritten["anl.clinic_daily_collars"] == (1, 2)
    # The last visit is part of every later day of the pet.
    assert step.rewritten["anl.pet_daily_summary"] == (1, 2, 3, 4, 5)
    for table in ("anl.telemetry_summary_hourly", "anl.daily_activity", "anl.clinic_daily_heartbeat"):
        assert step.rewritten[table] == (), table


def test_a_new_owner_has_the_events_from_the_change_on(story: dict[str, Any]) -> None:
    step = story["new_owner"]
    assert step.changes("anl.telemetry_events", "owner_id") == dict.fromkeys(
        ("d1 05 12", "d1 05 18", "d1 06 00", "d1 06 06", "d1 06 12", "d1 06 18"), ("o3",)
    )
    assert step.changes("anl.pet_daily_summary", "owner_id") == {"p2 5": ("o3",), "p2 6": ("o3",)}
    assert step.rewritten["anl.telemetry_events"] == (4, 5)
    assert step.rewritten["anl.pet_daily_summary"] == (4, 5)
    assert step.rewritten["anl.daily_activity"] == ()


def test_contexts_are_made_anew_for_the_pets_and_collars_that_records_name(story: dict[str, Any]) -> None:
    touched = {name: tuple(step.touched.values()) for name, step in story.items() if name != "kpis"}
    assert touched == {
        "moved_earlier": (set(), {"d1"}),
        "late_visit": ({"p1"}, {"d1"}),
        "new_owner": ({"p2"}, {"d1"}),
        "late_event": (set(), set()),
        "next_day": (set(), {"d1"}),
    }


def test_a_late_event_lands_in_its_own_day(story: dict[str, Any]) -> None:
    step = story["late_event"]
    assert step.changes("anl.telemetry_events", "pet_id", "owner_id", "clinic_id") == {
        "d1 01 03": ("p1", "o1", "c1")
    }
    assert step.changes("anl.pet_daily_summary", "event_count", "total_steps") == {"p1 1": (5, 50)}
    by_day = {table: days for table, days in step.rewritten.items() if table.startswith("anl.")}
    assert by_day == dict.fromkeys(by_day, (0,))


def test_a_new_day_with_a_move_rewrites_no_day_before_it(story: dict[str, Any]) -> None:
    step = story["next_day"]
    assert step.changes("anl.telemetry_events", "pet_id", "owner_id", "clinic_id") == {
        "d1 07 00": ("p2", "o3", "c9"),
        "d1 07 06": ("p2", "o3", "c9"),
        "d1 07 12": ("p1", "o1", "c2"),
        "d1 07 18": ("p1", "o1", "c2"),
    }
    by_day = {table: days for table, days in step.rewritten.items() if table.startswith("anl.")}
    assert by_day == dict.fromkeys(by_day, (6,))


def test_kpis_of_a_clinic_are_those_counted_by_hand(story: dict[str, Any]) -> None:
    columns = [
        "completed_visit_count",
        "unplanned_visit_count",
        "seen_pet_count",
        "visit_minutes_mean",
        "appointment_count",
        "finished_booking_count",
        "no_show_count",
        "no_show_ratio",
        "no_show_count_90d",
        "finished_booking_count_90d",
        "overdue_vaccination_count",
        "active_collar_count",
        "silent_collar_count",
        "heartbeat_ratio",
    ]
    found = {row["event_date"]: tuple(row[column] for column in columns) for row in story["kpis"]}
    assert min(found) == date(2026, 3, 3)
    assert max(found) == date(2026, 6, 7)
    assert len(found) == 97
    expected = {
        # w6, missed; w7, kept.
        date(2026, 3, 3): (0, 0, 0, None, 1, 1, 1, 1.0, 1, 1, 0, None, None, None),
        date(2026, 3, 4): (1, 0, 1, 15.0, 1, 1, 0, 0.0, 1, 2, 0, None, None, None),
        # The last date whose 90 days hold w6, and the first whose days do not.
        date(2026, 5, 31): (0, 0, 0, None, 0, 0, 0, None, 1, 2, 0, None, None, None),
        date(2026, 6, 1): (2, 1, 2, 37.5, 2, 2, 1, 0.5, 1, 3, 0, 1, 0, 1.0),
        # w7 is 90 days ago; d2 sent one event of two.
        date(2026, 6, 2): (0, 0, 0, None, 0, 0, 0, None, 1, 2, 0, 1, 0, 0.5),
        # q2's due date had passed when it was stated; d2 is silent.
        date(2026, 6, 3): (1, 0, 1, 15.0, 1, 1, 0, 0.0, 1, 3, 1, 0, 1, 0.0),
        date(2026, 6, 4): (0, 0, 0, None, 0, 0, 0, None, 1, 3, 2, 0, 1, 0.0),
        # q1 was vaccinated; then q2's record is deleted.
        date(2026, 6, 5): (1, 0, 1, 15.0, 1, 1, 0, 0.0, 1, 4, 1, 0, 1, 0.0),
        date(2026, 6, 6): (0, 0, 0, None, 0, 0, 0, None, 1, 4, 0, 0, 1, 0.0),
        # Not reported yet.
        date(2026, 6, 7): (*[None] * 10, 0, None, None, None),
    }
    assert {day: found[day] for day in expected} == expected
    for row in story["kpis"]:
        if row["finished_booking_count_90d"]:
            assert row["no_show_ratio_90d"] == row["no_show_count_90d"] / row["finished_booking_count_90d"]


def test_conflicts_follow_records_that_come_or_go_on_a_neighbouring_date(make_warehouse: Any) -> None:
    """The id comes on June 3rd; then, received earlier, on June 2nd; June 5th is too far for a comparison."""
    warehouse = make_warehouse({})

    def conflicts(dirty: list[str] | None) -> dict[str, Any]:
        warehouse.build(
            *("--select", "stg_event_conflicts"),
            variables={"dirty_days": dirty},
            without=("unit_test", "test"),
        )
        rows = warehouse.rows("select event_ts, conflict_kind, first_event_date from stg.event_conflicts")
        return {
            f"{row['event_ts']:%d %H}": (row["conflict_kind"], f"{row['first_event_date']:%d}")
            for row in rows
        }

    later = event("d1", at(2, 8), "twice", arrival_ts=at(2, 9))
    far = event("d1", at(4, 8), "twice", arrival_ts=at(4, 9))
    warehouse.load({"telemetry_events": [later, far]})
    assert conflicts(None) == {}
    other = event("d1", at(2, 10), "twice", arrival_ts=at(2, 11), step_count=11)
    warehouse.load({"telemetry_events": [other]})
    assert conflicts(["2026-06-03"]) == {"03 10": ("content", "03")}
    earlier = event("d1", at(1, 8), "twice", arrival_ts=at(1, 9))
    warehouse.load({"telemetry_events": [earlier]})
    with_earlier = {"03 08": ("date", "02"), "03 10": ("date", "02")}
    assert conflicts(["2026-06-02"]) == with_earlier
    assert conflicts(None) == with_earlier
    with warehouse.connect() as con:
        con.execute("delete from raw.telemetry_events where event_ts < '2026-06-03'")
    assert conflicts(["2026-06-02"]) == {"03 10": ("content", "03")}


def test_a_context_is_owner_and_latest_completed_visit_at_its_time(make_warehouse: Any) -> None:
    """A dbt unit test cannot give a model both layers of a feed, whose tables share their name."""
    warehouse = make_warehouse({})
    select = ("--select", "+cur_pet_contexts")
    warehouse.build(*select, without=("unit_test", "test"))
    with warehouse.connect() as con:
        con.execute("""
            insert into cur.pets by name
            select * from (values
                ('p1', 'o1', timestamp '2026-01-01', false),
                -- Another weight, say.
                ('p1', 'o1', timestamp '2026-02-01', false),
                ('p1', 'o2', timestamp '2026-03-01', false),
                ('p1', 'o2', timestamp '2026-06-01', true),
                ('p2', 'o3', timestamp '2026-01-01', false)
            ) as t (pet_id, owner_id, valid_from, is_deleted)
        """)
        con.execute("""
            insert into cur.clinic_visits by name
            select *, 'p1' as pet_id from (values
                ('v1', 'c1', timestamp '2025-12-01 09:00:00', 'completed', date '2026-12-01', true, false),
                -- Names no clinic, and a due date earlier than the one known.
                ('v2', null, timestamp '2026-04-01 09:00:00', null, date '2026-05-01', true, false),
                -- Missed; deleted; corrected since.
                ('v3', 'c2', timestamp '2026-04-02 09:00:00', 'no_show', null, true, false),
                ('v4', 'c3', timestamp '2026-04-03 09:00:00', 'completed', null, true, true),
                ('v5', 'c4', timestamp '2026-04-04 09:00:00', 'completed', null, false, false),
                -- Two at one moment.
                ('v7', 'c6', timestamp '2026-05-01 09:00:00', 'completed', date '2027-05-01', true, false),
                ('v6', 'c5', timestamp '2026-05-01 09:00:00', 'completed', null, true, false)
            ) as t (visit_id, clinic_id, visit_ts, status, next_vaccine_due, is_current, is_deleted)
        """)
    warehouse.build("--select", "cur_pet_contexts", without=("unit_test", "test"))
    rows = warehouse.rows("select * from cur.pet_contexts order by pet_id, valid_from")
    first, second, third = (
        datetime(2025, 12, 1, 9),
        datetime(2026, 4, 1, 9),
        datetime(2026, 5, 1, 9),
    )
    due, later_due = date(2026, 12, 1), date(2027, 5, 1)
    assert [
        (
            row["valid_from"],
            row["owner_id"],
            row["is_deleted"],
            row["clinic_id"],
            row["last_visit_ts"],
            row["next_vaccine_due"],
        )
        for row in rows
    ] == [
        (first, None, False, "c1", first, due),
        (datetime(2026, 1, 1), "o1", False, "c1", first, due),
        (datetime(2026, 3, 1), "o2", False, "c1", first, due),
        (second, "o2", False, "c1", second, due),
        (third, "o2", False, "c6", third, later_due),
        (datetime(2026, 6, 1), None, True, "c6", third, later_due),
        (datetime(2026, 1, 1), "o3", False, None, None, None),
    ]
    ends = [row["valid_to"] for row in rows]
    assert ends == [*(row["valid_from"] for row in rows[1:6]), None, None]
