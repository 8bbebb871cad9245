"""Records that cannot be right: what becomes of each, and where it says so.

Each situation has entities and streams of its own, and all of them live in one
warehouse that is built after each of three loads. Nothing is dropped without a
row in `cur.record_findings` or `stg.record_duplicates`.
"""

from datetime import timedelta

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, merged
from seeded_raw import record as plain_record

from contracts.columns import RECORD_FEEDS

HOUR = timedelta(hours=1)
MODELS = tuple(f"stg_{feed}" for feed in (*RECORD_FEEDS, "record_duplicates"))
MODELS += ("cur_owners", "cur_pets", "cur_clinic_visits", "cur_record_findings")


def record(feed, entity, changed_at, offset=0, **values):
    """A record of a stream that only this entity has."""
    stream = values.pop("stream_id", f"{entity}.stream")
    return plain_record(feed, entity, changed_at, kafka_offset=offset, stream_id=stream, **values)


def listed(source, number, at, owners, **options):
    """An extract of a registry of its own: `owners` are (id, district)."""
    rows = [plain_record("owners", owner, at, district=district) for owner, district in owners]
    return extract("owners", number, at, rows, source=source, **options)


def pets_listed(number, **owners):
    """That day's extract of a registry of pets, which last changed them long ago: pet=owner."""
    at, since = FIRST_DAY + number * DAY, FIRST_DAY - 30 * DAY
    rows = [plain_record("pets", pet, since, arrival_ts=at, owner_id=owner) for pet, owner in owners.items()]
    return extract("pets", number, at, rows, source="pets-registry")


def birth(pet, dob, offset=0, changed_at=FIRST_DAY, **values):
    return {"pets": [record("pets", pet, changed_at, offset, dob=dob, **values)]}


def visit(name, pet, visit_ts):
    return {"clinic_visits": [record("clinic_visits", name, FIRST_DAY, pet_id=pet, visit_ts=visit_ts)]}


TODAY = FIRST_DAY.date()
AHEAD = {"arrival_ts": FIRST_DAY}
MERGED_AT = FIRST_DAY + DAY

FIRST_LOAD = [
    listed("twice", 1, FIRST_DAY, [("twice", "1"), ("twice", "2")]),
    {"owners": [record("owners", "disputed", FIRST_DAY, 7, district="1")]},
    # Two visits before the birth of their pets, one of which turns out to be older.
    *(birth("young", TODAY), visit("young-visit", "young", FIRST_DAY - DAY)),
    *(birth("corrected", TODAY), visit("corrected-visit", "corrected", FIRST_DAY - DAY)),
    birth("tomorrows", TODAY + timedelta(days=1)),
    birth("year-5012", None, birth_year=5012),
    birth("todays", TODAY, birth_year=2026),
    # Two visits of pets that nobody has described yet.
    *(visit("stray-visit", "stray", FIRST_DAY), visit("late-visit", "late-pet", FIRST_DAY)),
    {"owners": [record("owners", owner, FIRST_DAY) for owner in ("old-owner", "new-owner")]},
    {"pets": [record("pets", f"moved{n}", FIRST_DAY, owner_id="old-owner") for n in (1, 2, 3)]},
    {
        "owners": [
            record("owners", "clock", FIRST_DAY, 1, district="1"),
            record("owners", "clock", FIRST_DAY + DAY, 2, district="2", **AHEAD),
            record("owners", "clock", FIRST_DAY + DAY + timedelta(microseconds=1), 3, district="3", **AHEAD),
        ]
    },
    listed("half", 1, FIRST_DAY, [("half1", "1"), ("half2", "1")]),
    listed("again", 1, FIRST_DAY, [("again1", "1"), ("again2", "1")]),
    listed("backward", 2, FIRST_DAY + DAY, [("backward2", "1")]),
    listed("fast", 1, FIRST_DAY, [("fast1", "1"), ("fast2", "1")]),
    listed("fast", 2, FIRST_DAY + DAY, [("fast2", "1")]),
    # Two pets vanish for a day, in which the stream gives each to the other owner.
    pets_listed(1, back1="new-owner", back2="old-owner"),
    pets_listed(2),
    {"pets": [record("pets", "back1", FIRST_DAY + 2 * DAY + HOUR, owner_id="old-owner")]},
    {"pets": [record("pets", "back2", FIRST_DAY + 2 * DAY + HOUR, owner_id="new-owner")]},
]
SECOND_LOAD = [
    listed("other", 1, FIRST_DAY, [("disputed", "2")]),
    birth("corrected", TODAY - timedelta(days=400), 1, FIRST_DAY + DAY),
    {"pets": [record("pets", "late-pet", FIRST_DAY + DAY)]},
    # The merge: the old owner goes, two of the three pets move.
    {"owners": [record("owners", "old-owner", MERGED_AT, 1, op="delete")]},
    {"pets": [record("pets", "moved1", MERGED_AT, 1, owner_id="new-owner")]},
    listed("half", 2, FIRST_DAY + DAY, [("half1", "1")], complete=False),
    listed("again", 2, FIRST_DAY, [("again1", "1"), ("again2", "1")]),
    listed("backward", 1, FIRST_DAY, [("backward1", "1"), ("backward2", "1")]),
]
# The second pet moves late; pets and an owner are back in their registries, the owner with a wrong clock.
FAST = plain_record("owners", "fast1", FIRST_DAY + 9 * DAY, arrival_ts=FIRST_DAY + 2 * DAY, district="2")
THIRD_LOAD = [
    pets_listed(3, back1="new-owner", back2="old-owner"),
    extract("owners", 3, FIRST_DAY + 2 * DAY, [FAST], source="fast"),
    {"pets": [record("pets", "moved2", MERGED_AT, 1, arrival_ts=MERGED_AT + DAY, owner_id="new-owner")]},
]


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    built = make_warehouse({})
    loads = (FIRST_LOAD, SECOND_LOAD, THIRD_LOAD)
    for number, load in enumerate(loads, start=1):
        built.load(merged(load))
        skipped = ("unit_test",) if number == len(loads) else ("unit_test", "test")
        # Tests that also look at models that are not built here are left out.
        selection = ("--select", *MODELS, "--indirect-selection", "cautious")
        built.build(*selection, variables={"dirty_days": []}, without=skipped)
    return built


def findings(warehouse, *entities):
    rows = warehouse.rows(
        "select entity_id, finding, is_set_aside, named_id, kafka_offset"
        f" from cur.record_findings where entity_id in {(*entities, '')} order by all"
    )
    return [tuple(row.values()) for row in rows]


def versions(warehouse, feed, column, *entities):
    key = RECORD_FEEDS[feed][0].name
    rows = warehouse.rows(
        f"select {key}, {column}, is_deleted from cur.{feed} where {key} in {(*entities, '')} order by {key}, valid_from"
    )
    return [tuple(row.values()) for row in rows]


def test_of_a_key_that_an_extract_has_twice_the_last_row_counts_and_the_other_is_set_aside(warehouse):
    assert versions(warehouse, "owners", "district", "twice") == [("twice", "2", False)]
    assert findings(warehouse, "twice") == [("twice", "duplicate_key", True, None, 0)]


def test_of_two_systems_that_contradict_each_other_the_later_in_order_counts(warehouse):
    """Received at one instant, they stand in the order of their streams: disputed.stream, other.owners.001."""
    assert versions(warehouse, "owners", "district", "disputed") == [("disputed", "2", False)]
    assert findings(warehouse, "disputed") == [("disputed", "contradicted", True, None, 7)]


def test_a_visit_before_the_pets_birth_stays_and_is_named_until_a_correction_ends_it(warehouse):
    """Whether the visit or the date of birth is wrong, only the clinic knows."""
    assert versions(warehouse, "clinic_visits", "pet_id", "young-visit") == [("young-visit", "young", False)]
    assert findings(warehouse, "young-visit") == [("young-visit", "before_birth", False, "young", 0)]
    assert findings(warehouse, "corrected-visit", "young", "corrected") == []


def test_a_change_dated_before_the_pets_own_birth_stays_and_is_named(warehouse):
    pets = ("tomorrows", "year-5012", "todays")
    assert len(versions(warehouse, "pets", "dob", *pets)) == 3
    assert findings(warehouse, *pets) == [
        ("tomorrows", "before_birth", False, None, 0),
        ("year-5012", "before_birth", False, None, 0),
    ]


def test_a_visit_for_an_unknown_pet_waits_for_the_pet(warehouse):
    assert len(versions(warehouse, "clinic_visits", "pet_id", "stray-visit", "late-visit")) == 2
    assert findings(warehouse, "stray-visit", "late-visit") == [
        ("stray-visit", "unknown_pet", False, "stray", 0)
    ]


def test_an_owner_merged_into_another_is_deleted_and_the_pets_move(warehouse):
    """A source says it by deleting the old id and giving its pets to the other; nothing is guessed beyond that."""
    assert versions(warehouse, "owners", "name", "old-owner", "new-owner") == [
        ("new-owner", None, False),
        ("old-owner", None, False),
        ("old-owner", None, True),
    ]
    assert versions(warehouse, "pets", "owner_id", "moved1", "moved2", "moved3") == [
        ("moved1", "old-owner", False),
        ("moved1", "new-owner", False),
        ("moved2", "old-owner", False),
        ("moved2", "new-owner", False),
        ("moved3", "old-owner", False),
    ]
    # One was forgotten: its last word still names the owner who is gone.
    assert findings(warehouse, "moved1", "moved2", "moved3") == [
        ("moved3", "owner_gone", False, "old-owner", 0)
    ]


def test_a_change_from_a_clock_in_the_future_changes_nothing(warehouse):
    """Up to 24 hours ahead a clock is only fast, as for telemetry; further ahead the record is set aside."""
    assert versions(warehouse, "owners", "district", "clock") == [
        ("clock", "1", False),
        ("clock", "2", False),
    ]
    assert findings(warehouse, "clock") == [("clock", "clock_ahead", True, None, 3)]


def test_a_record_from_a_clock_in_the_future_says_that_its_entity_is_back(warehouse):
    """What it says counts from the moment of the extract; the date that it gives itself does not."""
    assert versions(warehouse, "owners", "valid_from", "fast1") == [
        ("fast1", FIRST_DAY, False),
        ("fast1", FIRST_DAY + DAY, True),
        ("fast1", FIRST_DAY + 2 * DAY, False),
    ]
    assert [found[:3] for found in findings(warehouse, "fast1")] == [("fast1", "clock_ahead", True)]


def test_the_last_word_on_a_pet_that_is_back_is_that_of_the_extract_that_has_it_again(warehouse):
    assert versions(warehouse, "pets", "owner_id", "back1", "back2")[-1] == ("back2", "old-owner", False)
    assert findings(warehouse, "back1", "back2") == [("back2", "owner_gone", False, "old-owner", 1)]


def test_half_an_extract_says_nothing_about_who_is_absent(warehouse):
    assert versions(warehouse, "owners", "district", "half1", "half2") == [
        ("half1", "1", False),
        ("half2", "1", False),
    ]


def test_an_extract_that_comes_again_under_another_name_changes_nothing(warehouse):
    """The same extract id is one range of the ledger and is loaded once; see the tests of loading."""
    assert versions(warehouse, "owners", "district", "again1", "again2") == [
        ("again1", "1", False),
        ("again2", "1", False),
    ]


def test_two_extracts_out_of_order_say_what_they_say_in_order(warehouse):
    assert versions(warehouse, "owners", "valid_from", "backward1", "backward2") == [
        ("backward1", FIRST_DAY, False),
        ("backward1", FIRST_DAY + DAY, True),
        ("backward2", FIRST_DAY, False),
    ]


def test_nothing_else_was_found(warehouse):
    found = {row["entity_id"] for row in warehouse.rows("select entity_id from cur.record_findings")}
    assert found == {
        *("twice", "disputed", "young-visit", "tomorrows", "year-5012", "stray-visit", "moved3", "clock"),
        *("fast1", "back2"),
    }
