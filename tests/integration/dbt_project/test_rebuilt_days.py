"""What a build rebuilt is noted before it is rebuilt: all days at first, then dirty days and those of changed inputs."""

from datetime import date

import pytest
from seeded_raw import DAY, FIRST_DAY, record, small_world

from warehouse.duckdb.rebuilt import rebuilt_last

DAYS = [(FIRST_DAY + number * DAY).date() for number in range(9)]


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    built = make_warehouse(small_world(seed=11, days=len(DAYS)))
    build(built, 1, None)
    return built


def build(warehouse, build_seq, dirty_days):
    """Builds what telemetry and its pets need."""
    warehouse.build(
        *("--select", "+anl_daily_activity"),
        variables={"dirty_days": dirty_days, "as_of_ts": "2026-06-20 00:00:00", "build_seq": build_seq},
        without=("unit_test", "test"),
    )


def noted(warehouse, build_seq):
    rows = warehouse.rows(
        f"select table_name, event_date from raw.rebuilt_days where build_seq = {build_seq}"
    )
    found = {}
    for row in rows:
        found.setdefault(row["table_name"], set()).add(row["event_date"])
    return found


def test_first_builds_dirty_days_and_changed_inputs_are_noted(warehouse):
    first = noted(warehouse, 1)
    assert {"stg.telemetry_events", "anl.telemetry_events", "anl.daily_activity"} <= first.keys()
    assert not {"cur.pets", "stg.owners"} & first.keys(), "tables that have no days"
    assert all(days == {None} for days in first.values())

    build(warehouse, 2, ["2026-06-03"])
    assert noted(warehouse, 2)["stg.telemetry_events"] == {date(2026, 6, 3)}
    assert noted(warehouse, 2)["anl.daily_activity"] == {date(2026, 6, 3)}

    build(warehouse, 3, [])
    assert noted(warehouse, 3) == {}

    # From the sixth day on the last collar, which had no pet, is worn: only tables that read assignments change.
    worn_from = FIRST_DAY + 5 * DAY
    assignment = record(
        *("device_assignments", "as-new", worn_from),
        stream_id="cluster.device_assignments.2",
        arrival_ts=FIRST_DAY + 12 * DAY,
        device_id="d4",
        pet_id="p4",
        assigned_from=worn_from,
        assigned_to=FIRST_DAY + 7 * DAY,
    )
    warehouse.load({"device_assignments": [assignment]})
    build(warehouse, 4, [])
    assert "stg.telemetry_events" not in noted(warehouse, 4)
    assert noted(warehouse, 4)["anl.telemetry_events"] == set(DAYS[5:7])
    assert noted(warehouse, 4)["anl.daily_activity"] == set(DAYS[5:7])
    with warehouse.connect() as con:
        assert rebuilt_last(con, "anl.daily_activity") == frozenset(DAYS[5:7])
        assert rebuilt_last(con, "stg.telemetry_events") == frozenset({date(2026, 6, 3)})
        assert rebuilt_last(con, "cur.pets") is None
