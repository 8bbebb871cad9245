"""Records that cannot be right: what becomes of each, and where it says so.

Nothing is dropped without a row in `cur.record_findings` or `stg.record_duplicates`.
"""

from datetime import timedelta

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, merged, record

HOUR = timedelta(hours=1)
MODELS = ("stg_owners", "stg_pets", "stg_clinic_visits", "stg_device_assignments", "stg_appointments")
MODELS += ("stg_devices", "stg_clinics", "stg_breeds", "stg_record_duplicates", "cur_owners", "cur_pets")
MODELS += ("cur_clinic_visits", "cur_record_findings")


@pytest.fixture
def built(make_warehouse):
    """A function that loads each part as a load of its own, builds after each, and runs the tests of the models."""

    def build(*loads):
        warehouse = make_warehouse({})
        for number, load in enumerate(loads, start=1):
            warehouse.load(load)
            last = number == len(loads)
            warehouse.build(
                *("--select", *MODELS),
                variables={"dirty_days": []},
                without=("unit_test",) if last else ("unit_test", "test"),
            )
        return warehouse

    return build


def findings(warehouse):
    rows = warehouse.rows(
        "select entity_id, finding, is_set_aside, named_id, stream_id, kafka_offset"
        " from cur.record_findings order by all"
    )
    return [tuple(row.values()) for row in rows]


def versions(warehouse, feed, *columns):
    rows = warehouse.rows(
        f"select {', '.join(columns)}, is_deleted from cur.{feed} order by {columns[0]}, valid_from"
    )
    return [tuple(row.values()) for row in rows]


def test_of_a_key_that_an_extract_has_twice_the_last_row_counts_and_the_other_is_set_aside(built):
    rows = [record("owners", "o1", FIRST_DAY, district=district) for district in ("1", "2")]
    warehouse = built(extract("owners", 1, FIRST_DAY, rows))
    assert versions(warehouse, "owners", "owner_id", "district") == [("o1", "2", False)]
    assert findings(warehouse) == [("o1", "duplicate_key", True, None, "registry.owners.001", 0)]


def test_of_two_systems_that_contradict_each_other_the_later_received_counts(built):
    crm = record("owners", "o1", FIRST_DAY, district="1", kafka_offset=7)
    registry = record("owners", "o1", FIRST_DAY, arrival_ts=FIRST_DAY + HOUR, district="2")
    warehouse = built({"owners": [crm]}, extract("owners", 1, FIRST_DAY, [registry]))
    assert versions(warehouse, "owners", "owner_id", "district") == [("o1", "2", False)]
    assert findings(warehouse) == [("o1", "contradicted", True, None, "cluster.owners.1", 7)]


def test_a_visit_before_the_pets_birth_stays_and_is_named(built):
    """Whether the visit or the date of birth is wrong, only the clinic knows. The correction ends the finding."""
    pet = record("pets", "p1", FIRST_DAY, dob=FIRST_DAY.date(), kafka_offset=1)
    visit = record(
        *("clinic_visits", "v1", FIRST_DAY), pet_id="p1", visit_ts=FIRST_DAY - DAY, status="completed"
    )
    load = {"pets": [pet], "clinic_visits": [visit]}
    warehouse = built(load)
    assert versions(warehouse, "clinic_visits", "visit_id", "pet_id") == [("v1", "p1", False)]
    assert findings(warehouse) == [("v1", "before_birth", False, "p1", "cluster.clinic_visits.1", 0)]
    corrected = {**pet, "changed_at": FIRST_DAY + DAY, "arrival_ts": FIRST_DAY + DAY, "kafka_offset": 2}
    corrected["dob"] = FIRST_DAY.date() - timedelta(days=400)
    assert findings(built(load, {"pets": [corrected]})) == []


def test_a_change_dated_before_the_pets_own_birth_stays_and_is_named(built):
    by_date = record("pets", "p1", FIRST_DAY, dob=FIRST_DAY.date() + timedelta(days=1), kafka_offset=1)
    by_year = record("pets", "p2", FIRST_DAY, birth_year=5012, kafka_offset=2)
    on_the_day = record("pets", "p3", FIRST_DAY, dob=FIRST_DAY.date(), birth_year=2026, kafka_offset=3)
    warehouse = built({"pets": [by_date, by_year, on_the_day]})
    assert len(versions(warehouse, "pets", "pet_id")) == 3
    assert findings(warehouse) == [
        ("p1", "before_birth", False, None, "cluster.pets.1", 1),
        ("p2", "before_birth", False, None, "cluster.pets.1", 2),
    ]


def test_a_visit_for_an_unknown_pet_waits_for_the_pet(built):
    visit = record("clinic_visits", "v1", FIRST_DAY, pet_id="p1", visit_ts=FIRST_DAY)
    warehouse = built({"clinic_visits": [visit]})
    assert versions(warehouse, "clinic_visits", "visit_id", "pet_id") == [("v1", "p1", False)]
    assert findings(warehouse) == [("v1", "unknown_pet", False, "p1", "cluster.clinic_visits.1", 0)]
    pet = record("pets", "p1", FIRST_DAY + DAY)
    assert findings(built({"clinic_visits": [visit]}, {"pets": [pet]})) == []


def test_an_owner_merged_into_another_is_deleted_and_the_pets_move(built):
    """A source says it by deleting the old id and giving its pets to the other; nothing is guessed beyond that."""
    merged_at = FIRST_DAY + DAY
    before = {
        "owners": [record("owners", f"o{n}", FIRST_DAY, kafka_offset=n) for n in (1, 2)],
        "pets": [record("pets", f"p{n}", FIRST_DAY, owner_id="o1", kafka_offset=n) for n in (1, 2)],
    }
    merge = {
        "owners": [record("owners", "o1", merged_at, op="delete", kafka_offset=10)],
        "pets": [record("pets", "p1", merged_at, owner_id="o2", kafka_offset=10)],
    }
    warehouse = built(before, merge)
    assert versions(warehouse, "owners", "owner_id") == [("o1", False), ("o1", True), ("o2", False)]
    assert versions(warehouse, "pets", "pet_id", "owner_id") == [
        ("p1", "o1", False),
        ("p1", "o2", False),
        ("p2", "o1", False),
    ]
    # p2 was forgotten: it still names the owner who is gone.
    assert findings(warehouse) == [("p2", "owner_gone", False, "o1", "cluster.pets.1", 2)]
    late = {
        "pets": [record("pets", "p2", merged_at, arrival_ts=merged_at + DAY, owner_id="o2", kafka_offset=11)]
    }
    assert findings(built(before, merge, late)) == []


def test_a_change_from_a_clock_in_the_future_changes_nothing(built):
    """Up to 24 hours ahead a clock is only fast, as for telemetry; further ahead the record is set aside."""
    now = record("owners", "o1", FIRST_DAY, district="1", kafka_offset=1)
    fast = record("owners", "o1", FIRST_DAY + DAY, arrival_ts=FIRST_DAY, district="2", kafka_offset=2)
    ahead = record(
        *("owners", "o1", FIRST_DAY + DAY + timedelta(microseconds=1)),
        arrival_ts=FIRST_DAY,
        district="3",
        kafka_offset=3,
    )
    warehouse = built({"owners": [now, fast, ahead]})
    assert versions(warehouse, "owners", "owner_id", "district") == [("o1", "1", False), ("o1", "2", False)]
    assert findings(warehouse) == [("o1", "clock_ahead", True, None, "cluster.owners.1", 3)]


def test_half_an_extract_says_nothing_about_who_is_absent(built):
    def said(*owners):
        return [record("owners", owner, FIRST_DAY, district="1") for owner in owners]

    whole = extract("owners", 1, FIRST_DAY, said("o1", "o2"))
    half = extract("owners", 2, FIRST_DAY + DAY, said("o1"), complete=False)
    warehouse = built(whole, half)
    assert versions(warehouse, "owners", "owner_id") == [("o1", False), ("o2", False)]
    assert findings(warehouse) == []


def test_an_extract_that_comes_again_under_another_name_changes_nothing(built):
    """The same extract id is one range of the ledger and is loaded once; see the tests of loading."""

    def load(number, moment):
        rows = [record("owners", owner, moment, district="1") for owner in ("o1", "o2")]
        return extract("owners", number, moment, rows)

    once, again = load(1, FIRST_DAY), load(2, FIRST_DAY)
    warehouse = built(once, again)
    assert versions(warehouse, "owners", "owner_id") == [("o1", False), ("o2", False)]
    assert findings(warehouse) == []


@pytest.mark.parametrize("in_order", [True, False])
def test_two_extracts_say_the_same_in_either_order(built, in_order):
    def said(*owners):
        return [record("owners", owner, FIRST_DAY, district="1") for owner in owners]

    loads = [
        extract("owners", 1, FIRST_DAY, said("o1", "o2")),
        extract("owners", 2, FIRST_DAY + DAY, said("o2")),
    ]
    for load, day in zip(loads, (0, 1), strict=True):
        for row in load["owners"]:
            row["changed_at"] = FIRST_DAY + day * DAY
    warehouse = built(*(loads if in_order else reversed(loads)))
    assert versions(warehouse, "owners", "owner_id", "valid_from") == [
        ("o1", FIRST_DAY, False),
        ("o1", FIRST_DAY + DAY, True),
        ("o2", FIRST_DAY, False),
    ]
    assert merged(loads)["extracts"] == warehouse.rows("select * from raw.extracts order by extract_id")
