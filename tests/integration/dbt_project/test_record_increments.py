"""Models of records rewrite what new loads touched and nothing else, and make up for runs that died."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, merged, record

from contracts.columns import RECORD_FEEDS
from warehouse.compare import compare_tables

RECORD_MODELS = (
    *(f"stg_{feed}" for feed in (*RECORD_FEEDS, "record_duplicates")),
    *(f"cur_{feed}" for feed in RECORD_FEEDS),
    *("cur_device_pet_intervals", "cur_assignment_cuts", "cur_record_days", "cur_record_findings"),
)
# A column of each table that a test may paint over; painted rows were not rewritten.
PAINTED = {
    **{f"{schema}.{feed}": "source_system" for schema in ("stg", "cur") for feed in RECORD_FEEDS},
    "cur.device_pet_intervals": "assignment_id",
    "cur.record_findings": "named_id",
}


def build(warehouse, *models: str) -> None:
    warehouse.build(
        *("--select", *(models or RECORD_MODELS)),
        variables={"dirty_days": []},
        without=("unit_test", "test"),
    )


def paint(warehouse) -> None:
    with warehouse.connect() as con:
        for table, column in PAINTED.items():
            con.execute(f"update {table} set {column} = 'painted'")


def rewritten(warehouse, table: str, column: str) -> set[str]:
    rows = warehouse.rows(
        f"select distinct {column} as id from {table} where {PAINTED[table]} is distinct from 'painted'"
    )
    return {row["id"] for row in rows}


def entities(feed: str, names: Mapping[str, Mapping[str, Any]], day: int = 0) -> list[dict[str, Any]]:
    """One record of each entity, all received at one instant of that day."""
    return [
        record(feed, name, FIRST_DAY + day * DAY, kafka_offset=100 * day + number, **values)
        for number, (name, values) in enumerate(names.items())
    ]


def small_raw() -> dict[str, list[dict[str, Any]]]:
    assignments = {
        f"a{n}": {"device_id": f"d{n}", "pet_id": f"p{n}", "assigned_from": FIRST_DAY} for n in range(4)
    }
    return {
        "owners": entities("owners", {f"o{n}": {"name": "Ada"} for n in range(4)}),
        "pets": entities("pets", {f"p{n}": {"owner_id": f"o{n}", "name": "Rex"} for n in range(4)}),
        "devices": entities("devices", {f"d{n}": {"status": "active"} for n in range(4)}),
        "clinics": entities("clinics", {f"c{n}": {"name": "North"} for n in range(4)}),
        "device_assignments": entities("device_assignments", assignments),
        "clinic_visits": entities("clinic_visits", {f"v{n}": {"pet_id": f"stray{n}"} for n in range(4)}),
        "appointments": entities("appointments", {f"t{n}": {"status": "scheduled"} for n in range(4)}),
        "breeds": entities("breeds", {f"b{n}": {"breed": "akita"} for n in range(4)}),
    }


def assert_same_tables(warehouse_a, warehouse_b) -> None:
    assert warehouse_a.tables() == warehouse_b.tables()
    with warehouse_a.connect() as con_a, warehouse_b.connect() as con_b:
        for table in warehouse_a.tables():
            assert compare_tables(con_a, table, con_b, table) == [], table


def test_a_change_of_one_entity_rewrites_that_entity_alone(make_warehouse):
    warehouse = make_warehouse(small_raw())
    build(warehouse)
    paint(warehouse)
    warehouse.load(
        {
            "owners": entities("owners", {"o1": {"name": "Eve"}}, day=1),
            # The collar moves from d2 to d3: both devices' times are cut anew.
            "device_assignments": entities(
                "device_assignments",
                {"a2": {"device_id": "d3", "pet_id": "p2", "assigned_from": FIRST_DAY}},
                day=1,
            ),
            "pets": entities("pets", {"stray2": {"name": "Rex"}}, day=1),
            "appointments": entities("appointments", {"t0": {"status": "no_show"}}, day=1),
        }
    )
    build(warehouse)
    found = {table: rewritten(warehouse, table, f"{id_of(table)}") for table in PAINTED}
    assert {table: ids for table, ids in found.items() if ids} == {
        # Staging looks at the instants of receipt: only the new records are written.
        "stg.owners": {"o1"},
        "stg.device_assignments": {"a2"},
        "stg.pets": {"stray2"},
        "stg.appointments": {"t0"},
        "cur.owners": {"o1"},
        "cur.device_assignments": {"a2"},
        "cur.pets": {"stray2"},
        "cur.appointments": {"t0"},
        # d2 has no span left, so that no row of it is there to be found.
        "cur.device_pet_intervals": {"d3"},
    }
    gone = warehouse.rows("select * from cur.device_pet_intervals where device_id = 'd2'")
    assert gone == []
    # The pet that visit v2 names is known now; the others keep their rows.
    left = warehouse.rows("select entity_id, named_id from cur.record_findings order by 1")
    assert left == [{"entity_id": visit, "named_id": "painted"} for visit in ("v0", "v1", "v3")]


def id_of(table: str) -> str:
    name = table.split(".")[1]
    other = {"device_pet_intervals": "device_id", "record_findings": "entity_id"}
    return other.get(name) or RECORD_FEEDS[name][0].name


def owners_of(contents: Mapping[str, str], at, arrival_ts) -> list[dict[str, Any]]:
    return [
        record("owners", owner, at, arrival_ts=arrival_ts, district=district)
        for owner, district in contents.items()
    ]


def test_a_model_of_whose_feeds_a_load_brings_nothing_is_not_computed(make_warehouse):
    warehouse = make_warehouse(small_raw())
    models = ("--select", "stg_owners", "stg_breeds", "cur_breeds")
    warehouse.build(*models, variables={"dirty_days": []}, without=("unit_test", "test"))
    warehouse.load({"owners": entities("owners", {"o0": {"name": "Eve"}}, day=1)})
    built = warehouse.build(*models, variables={"dirty_days": []}, without=("unit_test", "test"))
    messages = {item.node.name: item.message for item in built.results}
    assert messages["stg_breeds"] == messages["cur_breeds"] == "nothing to replace"
    assert messages["stg_owners"] == "OK"
    marks = warehouse.rows("select distinct load_seq from raw.build_marks")
    assert marks == [{"load_seq": 2}]


def test_an_open_assignment_ends_where_the_next_begins_and_claims_of_two_pets_are_ambiguous(make_warehouse):
    def day(number: int, hours: int = 0):
        return FIRST_DAY + timedelta(days=number, hours=hours)

    claims = {
        "a1": ("d1", "p1", day(0), None),
        "a2": ("d1", "p2", day(2, 13), None),
        "b1": ("d2", "p3", day(0), day(3)),
        "b2": ("d2", "p4", day(1), day(2)),
        "c1": ("d3", "p5", day(0), None),
    }
    fields = ("device_id", "pet_id", "assigned_from", "assigned_to")
    assignments = {name: dict(zip(fields, claim, strict=True)) for name, claim in claims.items()}
    deleted = record("device_assignments", "c1", day(1), op="delete", kafka_offset=50)
    warehouse = make_warehouse(
        {"device_assignments": [*entities("device_assignments", assignments), deleted]}
    )
    build(warehouse, "stg_device_assignments", "cur_device_assignments", "cur_device_pet_intervals")
    spans = warehouse.rows(
        "select device_id, pet_id, assignment_id, pet_resolution, valid_from, valid_to"
        " from cur.device_pet_intervals order by device_id, valid_from"
    )
    assert [tuple(span.values()) for span in spans] == [
        ("d1", "p1", "a1", "assigned", day(0), day(2, 13)),
        ("d1", "p2", "a2", "assigned", day(2, 13), None),
        ("d2", "p3", "b1", "assigned", day(0), day(1)),
        ("d2", None, None, "ambiguous", day(1), day(2)),
        ("d2", "p3", "b1", "assigned", day(2), day(3)),
    ]


def test_a_nightly_extract_of_everything_rewrites_what_it_says_anew(make_warehouse):
    every = {f"o{number:02}": "1" for number in range(30)}
    moved = {**every, "o05": "2"}
    gone = {owner: district for owner, district in moved.items() if owner != "o07"}
    nights = [every, moved, {**gone, "o99": "1"}]
    extracts = [
        extract("owners", night, FIRST_DAY + night * DAY, owners_of(said, at, at))
        for night, said in enumerate(nights)
        for at in [FIRST_DAY + night * DAY]
    ]
    warehouse = make_warehouse(extracts[0])
    build(warehouse, "stg_owners", "cur_owners")
    for night, touched in ((1, {"o05"}), (2, {"o07", "o99"})):
        with warehouse.connect() as con:
            con.execute("update cur.owners set source_system = 'painted'")
        warehouse.load(extracts[night])
        build(warehouse, "stg_owners", "cur_owners")
        assert rewritten(warehouse, "cur.owners", "owner_id") == touched
    versions = warehouse.rows(
        "select owner_id, district, is_deleted from cur.owners where owner_id in ('o05', 'o07') order by 1, valid_from"
    )
    assert [tuple(row.values()) for row in versions] == [
        ("o05", "1", False),
        ("o05", "2", False),
        ("o07", "1", False),
        ("o07", "1", True),
    ]


def test_an_extract_that_comes_between_two_others_moves_the_absence(make_warehouse):
    """o1 is in the first and not in the third; the second, which comes last, lacks it already."""
    moments = [FIRST_DAY + number * DAY for number in range(3)]
    said = [{"o1": "1", "o2": "1"}, {"o2": "1"}, {"o2": "1"}]
    first, second, third = (
        extract("owners", number, at, owners_of(contents, at, FIRST_DAY + 5 * DAY))
        for number, (at, contents) in enumerate(zip(moments, said, strict=True))
    )
    warehouse = make_warehouse(merged([first, third]))
    build(warehouse, "stg_owners", "cur_owners")
    deleted = "select valid_from from cur.owners where owner_id = 'o1' and is_deleted"
    assert warehouse.rows(deleted) == [{"valid_from": moments[2]}]
    with warehouse.connect() as con:
        con.execute("update cur.owners set source_system = 'painted'")
    warehouse.load(second)
    build(warehouse, "stg_owners", "cur_owners")
    assert warehouse.rows(deleted) == [{"valid_from": moments[1]}]
    assert rewritten(warehouse, "cur.owners", "owner_id") == {"o1"}


def owners_listed(number: int, *owners: str) -> dict[str, list[dict[str, Any]]]:
    """The complete extract of that day; its source last changed every owner long ago."""
    at, changed_at = FIRST_DAY + number * DAY, FIRST_DAY - 30 * DAY
    rows = [record("owners", owner, changed_at, arrival_ts=at, district="1") for owner in owners]
    return extract("owners", number, at, rows)


def presence_of(warehouse, owner: str) -> list[tuple[Any, ...]]:
    rows = warehouse.rows(
        f"select valid_from, is_deleted, is_current from cur.owners where owner_id = '{owner}' order by valid_from"
    )
    return [tuple(row.values()) for row in rows]


def test_who_is_back_in_an_extract_is_back_though_the_source_changed_nothing(make_warehouse):
    """o1 is in extracts 1, 3 and 4 and not in 2, with one `changed_at` for good; o2 is in all of them."""
    since, gone_at, back_at = (FIRST_DAY + days * DAY for days in (-30, 2, 3))
    warehouse = make_warehouse(owners_listed(1, "o1", "o2"))
    build(warehouse, "stg_owners", "cur_owners")
    warehouse.load(owners_listed(2, "o2"))
    build(warehouse, "stg_owners", "cur_owners")
    assert presence_of(warehouse, "o1") == [(since, False, False), (gone_at, True, True)]
    for number in (3, 4):
        warehouse.load(owners_listed(number, "o1", "o2"))
        build(warehouse, "stg_owners", "cur_owners")
        assert presence_of(warehouse, "o1") == [
            (since, False, False),
            (gone_at, True, False),
            (back_at, False, True),
        ]


def test_a_late_extract_touches_the_keys_of_both_its_neighbours(make_warehouse):
    """Between extracts 1 and 3, which list the same two, comes 2: o1 is not in it, o3 is in it alone."""
    since, second, third = (FIRST_DAY + days * DAY for days in (-30, 2, 3))
    warehouse = make_warehouse(merged([owners_listed(1, "o1", "o2"), owners_listed(3, "o1", "o2")]))
    build(warehouse, "stg_owners", "cur_owners")
    assert presence_of(warehouse, "o1") == [(since, False, True)]
    warehouse.load(owners_listed(2, "o2", "o3"))
    build(warehouse, "stg_owners", "cur_owners")
    assert presence_of(warehouse, "o1") == [
        (since, False, False),
        (second, True, False),
        (third, False, True),
    ]
    assert presence_of(warehouse, "o3") == [(since, False, False), (third, True, True)]


OWNER_MODELS = ("stg_owners", "stg_record_duplicates", "cur_owners")


def owners_who(name: str, *ids: str, day: int = 0) -> dict[str, list[dict[str, Any]]]:
    return {"owners": entities("owners", {owner: {"name": name} for owner in ids}, day)}


@pytest.mark.parametrize("built_before_it_died", [1, 2])
def test_a_run_that_died_between_two_models_is_made_up_for_by_the_next(make_warehouse, built_before_it_died):
    loads = [
        owners_who("Ada", "o1", "o2", "o3"),
        owners_who("Eve", "o1", day=1),
        owners_who("Eve", "o2", day=2),
    ]
    warehouse = make_warehouse(loads[0])
    build(warehouse, *OWNER_MODELS)
    warehouse.load(loads[1])
    build(warehouse, *OWNER_MODELS[:built_before_it_died])
    warehouse.load(loads[2])
    build(warehouse, *OWNER_MODELS)
    whole = make_warehouse(merged(loads))
    build(whole, *OWNER_MODELS)
    assert_same_tables(warehouse, whole)


def test_a_model_without_its_staging_waits_for_it(make_warehouse):
    warehouse = make_warehouse(owners_who("Ada", "o1", "o2"))
    build(warehouse, "stg_owners", "cur_owners")
    warehouse.load(owners_who("Eve", "o1", day=1))
    build(warehouse, "cur_owners")
    assert warehouse.rows("select count(*) as n from cur.owners") == [{"n": 2}]
    build(warehouse, "stg_owners", "cur_owners")
    assert warehouse.rows("select count(*) as n from cur.owners") == [{"n": 3}]


def test_a_model_that_fails_half_way_keeps_its_old_rows_and_is_built_by_the_next_run(make_warehouse):
    warehouse = make_warehouse(owners_who("Ada", "o1", "o2"))
    build(warehouse, "stg_owners", "cur_owners")
    before = warehouse.rows("select * from cur.owners order by owner_sk")
    warehouse.load(owners_who("Eve", "o1", day=1))
    build(warehouse, "stg_owners")
    with warehouse.connect() as con:
        # After the rows are written, remembering the load fails.
        con.execute("alter table raw.build_marks add column note varchar default 'built'")
        con.execute("alter table raw.build_marks alter note drop default")
        con.execute("alter table raw.build_marks alter note set not null")
    failed = warehouse.invoke("build", "--select", "cur_owners", variables={"dirty_days": []})
    assert not failed.success
    assert warehouse.rows("select * from cur.owners order by owner_sk") == before
    with warehouse.connect() as con:
        con.execute("alter table raw.build_marks drop note")
    build(warehouse, "cur_owners")
    assert warehouse.rows("select name from cur.owners where owner_id = 'o1' order by valid_from") == [
        {"name": "Ada"},
        {"name": "Eve"},
    ]


def test_a_history_that_breaks_its_law_stops_what_is_built_on_it(make_warehouse):
    warehouse = make_warehouse(small_raw())
    build(warehouse, "stg_device_assignments", "cur_device_assignments", "cur_device_pet_intervals")
    with warehouse.connect() as con:
        con.execute(
            "insert into cur.device_assignments by name"
            " select * replace (valid_from + interval 1 hour as valid_from) from cur.device_assignments"
            " where assignment_id = 'a0'"
        )
    # Only a1 has changed; the broken history is another's.
    warehouse.load({"device_assignments": entities("device_assignments", {"a1": {"device_id": "d9"}}, day=1)})
    outcome = warehouse.invoke(
        *("build", "--exclude-resource-type", "unit_test", "--select"),
        *("cur_device_assignments", "cur_device_pet_intervals"),
        variables={"dirty_days": []},
    )
    statuses = {item.node.name: str(item.status) for item in outcome.result.results}
    assert statuses["cur_device_assignments"] == "success"
    assert statuses["cur_device_assignments_history_is_contiguous"] == "fail"
    assert statuses["cur_device_pet_intervals"] == "skipped"
