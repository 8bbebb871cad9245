"""The saved analyses answer correctly on rows whose answers are worked out by hand in the comments."""

from datetime import date, datetime, timedelta
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, record

# Wednesday noon of the first week of June 2026.
PRESENT = datetime(2026, 6, 3, 12)


def event(number: int, pet: str, event_ts: datetime, steps: int | None) -> dict[str, Any]:
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": 0,
        "kafka_offset": number,
        "arrival_ts": event_ts + timedelta(seconds=5),
        "ingested_at": event_ts + timedelta(minutes=1),
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": f"collar of {pet}",
        "event_ts": event_ts,
        "event_id": f"e{number}",
        "step_count": steps,
        "schema_version": 1,
        "payload": "{}",
    }


def telemetry() -> list[dict[str, Any]]:
    hours = timedelta(hours=1)
    tick = timedelta(microseconds=1)
    rows = [
        # 30 + 60 in the last 24 hours, 40 before: 90 / 40 - 1 = 1.25. The event of exactly 24 hours ago is in
        # the last window only, that of exactly 48 hours ago in the one before; older and newer ones in neither.
        ("ada", PRESENT - 48 * hours - tick, 1000),
        ("ada", PRESENT - 48 * hours, 15),
        ("ada", PRESENT - 24 * hours - tick, 25),
        ("ada", PRESENT - 24 * hours, 30),
        ("ada", PRESENT - tick, 60),
        ("ada", PRESENT, 5000),
        # One event a side is no day of steps to compare.
        ("bob", PRESENT - 30 * hours, 3),
        ("bob", PRESENT - 3 * hours, 2),
        # No step before: no share can be given. Nothing before at all: likewise.
        ("cleo", PRESENT - 30 * hours, 0),
        ("cleo", PRESENT - 3 * hours, 7),
        ("dot", PRESENT - 3 * hours, 7),
        # No event in the last 24 hours: no row.
        ("eli", PRESENT - 30 * hours, 7),
        # Of a collar that nobody wears.
        ("nobody", PRESENT - 3 * hours, 7),
    ]
    # Ada's collar reports every minute but those of the 4.5 hours that end 20 hours ago: 1200 minutes of the last
    # 24 hours and 1410 of those before, both more than 80 %.
    for minute in range(48 * 60):
        event_ts = PRESENT - 48 * hours + timedelta(minutes=minute, seconds=30)
        if not 23.5 * 60 <= minute < 28 * 60:
            rows.append(("ada", event_ts, 0))
    return [event(number, *row) for number, row in enumerate(rows)]


def records() -> dict[str, list[dict[str, Any]]]:
    before = FIRST_DAY - 200 * DAY
    pets = ("ada", "bob", "cleo", "dot", "eli", "fay", "gus")
    raw: dict[str, list[dict[str, Any]]] = {"pets": [], "device_assignments": [], "clinic_visits": []}

    def add(feed: str, entity: str, changed_at: datetime, **values: Any) -> None:
        raw[feed].append(record(feed, entity, changed_at, kafka_offset=len(raw[feed]), **values))

    for pet in pets:
        add("pets", pet, before, name=pet.title(), breed="akita", owner_id=f"o-{pet}")
        add(
            "device_assignments",
            f"wear of {pet}",
            before,
            device_id=f"collar of {pet}",
            pet_id=pet,
            assigned_from=before,
        )
    add("pets", "bob", FIRST_DAY, name="Bobby", breed="beagle", owner_id="o-bob")
    add("pets", "gus", FIRST_DAY, op="delete")

    def visit(
        visit_id: str, clinic: str, visit_ts: datetime, status: str | None, pet: str = "ada", **values: Any
    ) -> None:
        add(
            "clinic_visits",
            visit_id,
            min(visit_ts, PRESENT - DAY),
            pet_id=pet,
            clinic_id=clinic,
            visit_ts=visit_ts,
            status=status,
            **values,
        )

    # North: three of the last 90 days, one missed: 1/3. Its day 90 days ago begins at midnight, 2026-03-05.
    visit("n1", "north", datetime(2026, 3, 5), "no_show")
    visit(
        "n2",
        "north",
        datetime(2026, 4, 1, 9),
        "completed",
        is_unplanned=False,
        next_vaccine_due=date(2026, 9, 1),
    )
    visit(
        "n3",
        "north",
        PRESENT - timedelta(minutes=1),
        "completed",
        is_unplanned=False,
        next_vaccine_due=date(2026, 8, 1),
    )
    visit("n-old", "north", datetime(2026, 3, 4, 23, 59), "no_show")
    visit("n-to-come", "north", PRESENT + DAY, "scheduled")
    # South: what was first scheduled and then missed is one visit, a deleted one is none: 1 of 1.
    visit("s1", "south", datetime(2026, 5, 1, 9), "no_show", pet="bob")
    add(
        "clinic_visits",
        "s1",
        datetime(2026, 4, 20),
        pet_id="bob",
        clinic_id="south",
        visit_ts=datetime(2026, 5, 1, 9),
        status="scheduled",
    )
    visit("s2", "south", datetime(2026, 5, 2, 9), "completed", pet="bob")
    add("clinic_visits", "s2", datetime(2026, 5, 3), op="delete")
    # West: nobody says whether the only one was booked.
    visit("w1", "west", datetime(2026, 5, 2, 9), "completed", pet="fay")
    return raw


@pytest.fixture(scope="module")
def answer(make_warehouse):
    warehouse = make_warehouse({"telemetry_events": telemetry(), **records()})
    variables = {"as_of_ts": f"{PRESENT:%Y-%m-%d %H:%M:%S}"}
    models = (
        "+anl_telemetry_events",
        "+anl_daily_activity",
        "ml_feature_catalogue",
        "cur_pets",
        "+cur_bookings",
    )
    warehouse.build("--select", *models, variables=variables, without=("unit_test", "test"))

    def run(name: str) -> list[tuple[Any, ...]]:
        compiled = warehouse.invoke("compile", "--select", name, variables=variables)
        assert compiled.success, compiled.exception
        return [tuple(row.values()) for row in warehouse.rows(compiled.result.results[0].node.compiled_code)]

    return run


def test_activity_delta_of_24_hours(answer):
    assert answer("activity_delta_24h") == [
        ("ada", 90, 40, 1.25),
        ("bob", 2, 3, None),
        ("cleo", 7, 0, None),
        ("dot", 7, None, None),
    ]


def test_no_show_rate_of_90_days(answer):
    assert answer("no_show_rate_90d") == [
        ("north", 1, 3, pytest.approx(1 / 3), 0, 0),
        ("south", 1, 1, 1.0, 0, 0),
        ("west", 0, 0, None, 0, 1),
    ]


def test_overview_has_each_pet_once_a_day_as_it_is_now(answer):
    rows = answer("pet_overview")
    june = {number: date(2026, 6, number) for number in (1, 2, 3)}
    # Ada's events: two on the 1st (1000 and 15), two on the 2nd, two on the 3rd, and minutes
    # without a step: 12 hours, 24 less 4.5 and 12. Her due date is the latest stated.
    ada = ("2026-06-03", date(2026, 9, 1), "o-ada")
    assert [row for row in rows if row[0] == "ada"] == [
        ("ada", "Ada", "akita", june[1], 1015, 2 + 720, date.fromisoformat(ada[0]), *ada[1:]),
        ("ada", "Ada", "akita", june[2], 55, 2 + 1170, date.fromisoformat(ada[0]), *ada[1:]),
        ("ada", "Ada", "akita", june[3], 5060, 2 + 720, date.fromisoformat(ada[0]), *ada[1:]),
    ]
    # Bob changed his name and his only completed visit is deleted; Fay has no collar data; Gus is gone.
    assert {row[:3] + row[6:8] for row in rows if row[0] == "bob"} == {("bob", "Bobby", "beagle", None, None)}
    assert [row[3:7] for row in rows if row[0] == "fay"] == [(None, None, None, date(2026, 5, 2))]
    assert "gus" not in {row[0] for row in rows}
