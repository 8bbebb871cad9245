"""A day's fingerprint stands for exactly what the day reads: the same versions, the same sum; others, another."""

from collections import defaultdict
from datetime import datetime, timedelta

import pytest
from seeded_raw import FIRST_DAY

DAYS = 9
# Begin and end of a version, and what else a day reads of it; a segment's begin is read as a value, too.
# A span of a collar that nobody wears reads like no span.
VERSIONS = {
    "intervals": "select valid_from, valid_to, device_id, pet_id, pet_resolution from cur.device_pet_intervals",
    "expectations": """
        select valid_from, valid_to, device_id, clinic_id, expected_events_per_day from cur.device_expectations
    """,
    "refusals": "select valid_from, valid_to, device_id from cur.device_refusals",
    "assignment_cuts": "select valid_from, valid_to, device_id, valid_from as cut_ts from cur.assignment_cuts",
    "device_contexts": """
        select valid_from, valid_to, device_id, pet_id, pet_resolution, owner_id, clinic_id from cur.device_contexts
        where pet_resolution <> 'unassigned'
    """,
}


@pytest.fixture(scope="module")
def warehouse(whole_world):
    return whole_world()


def fingerprints(warehouse, kind):
    rows = warehouse.rows(f"select event_date, fingerprint from cur.day_inputs where input_kind = '{kind}'")
    return {row["event_date"]: row["fingerprint"] for row in rows}


def assert_stands_for(found, read):
    """`found` and `read` map days to fingerprints and to what was read: each fingerprint has one content and back."""
    assert found.keys() == read.keys()
    contents, sums = defaultdict(set), defaultdict(set)
    for day, fingerprint in found.items():
        contents[fingerprint].add(read[day])
        sums[read[day]].add(fingerprint)
    assert {len(seen) for seen in [*contents.values(), *sums.values()]} == {1}
    assert len(sums) > 1, "every day reads the same; nothing was tested"


@pytest.mark.parametrize("kind", list(VERSIONS))
def test_a_days_fingerprint_stands_for_what_the_day_sees_of_the_versions_that_overlap_it(warehouse, kind):
    versions = [tuple(row.values()) for row in warehouse.rows(VERSIONS[kind])]
    found = fingerprints(warehouse, kind)
    read = {}
    for day in found:
        start = datetime(day.year, day.month, day.day)
        end = start + timedelta(days=1)
        # A bound outside the day is none to the day: a version that ends later is still open in it.
        read[day] = frozenset(
            (
                valid_from if valid_from > start else None,
                valid_to if valid_to and valid_to < end else None,
                *values,
            )
            for valid_from, valid_to, *values in versions
            if valid_from < end and (valid_to is None or valid_to > start)
        )
    assert_stands_for(found, read)


def test_a_days_fingerprint_stands_for_the_records_known_at_its_end(warehouse):
    known = "select stream_id, kafka_partition, kafka_offset, arrival_ts from stg."
    records = [
        tuple(row.values())
        for feed in ("device_assignments", "pets", "clinic_visits")
        for row in warehouse.rows(known + feed)
    ]
    found = fingerprints(warehouse, "known_records")
    read = {}
    for day in found:
        end = datetime(day.year, day.month, day.day) + timedelta(days=1)
        read[day] = frozenset(record for record in records if record[3] <= end)
    assert_stands_for(found, read)


def test_every_day_with_events_has_a_fingerprint_of_each_kind(warehouse):
    days = warehouse.rows(
        "select (select count(distinct event_date) from stg.telemetry_events) as days,"
        " count(distinct event_date) as listed, count(distinct input_kind) as kinds, count(*) as n"
        " from cur.day_inputs where input_kind <> 'expectations'"
    )[0]
    assert days["days"] == days["listed"] >= DAYS
    assert days["n"] == days["listed"] * days["kinds"]
    listed = warehouse.rows("select min(event_date) as first_day from stg.telemetry_days")
    assert listed == [{"first_day": FIRST_DAY.date()}]


def test_events_are_expected_on_every_day_up_to_the_present(warehouse):
    """The world is built as of a midnight: the day before is the last that has passed."""
    days = sorted(fingerprints(warehouse, "expectations"))
    [bounds] = warehouse.rows("select max(event_date) as last_day from stg.telemetry_days")
    assert days == [FIRST_DAY.date() + timedelta(days=n) for n in range(DAYS + 4)]
    assert days[-1] > bounds["last_day"]
