"""Histories against a reference that was written from the contract alone: generated change logs, many orders of loading.

Thousands of histories of all six feeds live in one warehouse, in groups that
share nothing. Each group's records come in batches of its own making: as they
were received, the other way round, key by key, at random. So one sequence of
builds covers many splits and orders.
"""

import random
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import pytest
from history_reference import Change, Extract, _derived, history
from seeded_raw import DAY, FIRST_DAY, extract, merged, record

from contracts.columns import RECORD_FEEDS
from lake.changes import Extract as CompleteExtract
from lake.changes import change_log
from warehouse.compare import compare_tables

HISTORIES = ("owners", "pets", "devices", "clinics", "device_assignments", "clinic_visits")
# As many groups as there are ways to split and order the loads, twice.
GROUPS = 24
BATCHES = 4
HOUR = timedelta(hours=1)
KNOWN_AT = [FIRST_DAY + hours * HOUR for hours in (3, 6, 9, 16)]


class Form(NamedTuple):
    """How large the test is: keys of each feed in each group, feeds with histories, and every model that is built."""

    keys: int
    histories: tuple[str, ...]
    models: tuple[str, ...]


def models_of(staged, current, *others):
    spans = ("cur_device_pet_intervals", "cur_assignment_cuts")
    return (*(f"stg_{feed}" for feed in staged), *(f"cur_{feed}" for feed in current), *spans, *others)


# Three feeds have every type of column and the fourth, appointments, only its present state.
SHORT_FEEDS = ("owners", "pets", "device_assignments")
SHORT = Form(28, SHORT_FEEDS, models_of((*SHORT_FEEDS, "appointments"), (*SHORT_FEEDS, "appointments")))
FULL = Form(
    70,
    HISTORIES,
    models_of(
        *(RECORD_FEEDS, (*HISTORIES, "appointments")),
        *("stg_record_duplicates", "cur_record_days", "cur_record_findings"),
    ),
)


# Raw rows as the reference takes them, and versions as it gives them


def id_column(feed):
    return RECORD_FEEDS[feed][0].name


# What staging calls a landed column otherwise.
BUILT_NAMES = {"neutered": "is_neutered"}


def cleaned(column, value):
    if not isinstance(value, str) or column in {"consent_flags", "diagnosis_codes"}:
        return value
    return (value if column.endswith("_id") else value.strip()) or None


def attributes_of(feed, row):
    """Of a landed row or of one built from it."""
    names = [field.name for field in RECORD_FEEDS[feed][1:]]
    return tuple(cleaned(name, row.get(name, row.get(BUILT_NAMES.get(name)))) for name in names)


def changes_of(feed, rows):
    """The records of a feed without what decision 021 sets aside: those dated more than a day after their receipt."""
    return [
        Change(
            key=row[id_column(feed)],
            changed_at=row["changed_at"],
            arrival_ts=row["arrival_ts"],
            stream_id=row["stream_id"],
            partition=row["kafka_partition"],
            offset=row["kafka_offset"],
            ingested_at=row["ingested_at"],
            content=None if row["op"] == "delete" else attributes_of(feed, row),
            extract_id=row["stream_id"] if row["op"] == "snapshot" else None,
        )
        for row in rows
        if row["changed_at"] <= row["arrival_ts"] + DAY
    ]


def extracts_of(feed, statements):
    return [
        Extract(
            extract_id=row["stream_id"],
            extracted_at=row["extracted_at"],
            arrival_ts=row["arrival_ts"] or row["extracted_at"],
            stream_id=row["stream_id"],
            ingested_at=row["claimed_at"],
            complete=row["complete"],
        )
        for row in statements
        if row["feed"] == feed
    ]


def without_repeats(feed, rows):
    """Of exact repeats the last in the order of changes, as stg has them (test_exact_repeats_are_set_aside...)."""
    kept = {}
    for row in sorted(rows, key=order):
        times = (row["changed_at"], row["extracted_at"], row["arrival_ts"])
        stream = row["stream_id"] if row["op"] == "snapshot" else None
        kept[row[id_column(feed)], row["op"], times, attributes_of(feed, row), stream] = row
    return list(kept.values())


def order(row):
    place = (row["stream_id"], row["kafka_partition"], row["kafka_offset"])
    return (row["changed_at"], row["arrival_ts"], *place)


def known_by(found, known_at):
    return [one for one in found if known_at is None or one.arrival_ts <= known_at]


def after_first_content(changes):
    """Without deletions of what nobody has described by then: decision 007 makes no version of them."""
    first = {}
    for one in changes:
        if one.content is not None:
            first[one.key] = min(first.get(one.key, one.order), one.order)
    return [one for one in changes if one.key in first and one.order >= first[one.key]]


def reference_histories(raw, feed, known_at=None):
    """{id: [(valid_from, valid_to, is_deleted, attributes, created_at)]}, each group with its registry by itself."""
    rows_of, statements_of = defaultdict(list), defaultdict(list)
    for row in raw.get(feed, []):
        rows_of[group_of(row)].append(row)
    for row in raw.get("extracts", []):
        statements_of[group_of(row)].append(row)
    histories = defaultdict(list)
    for group in sorted(set(rows_of) | set(statements_of)):
        changes = after_first_content(
            known_by(changes_of(feed, without_repeats(feed, rows_of[group])), known_at)
        )
        extracts = known_by(extracts_of(feed, statements_of[group]), known_at)
        said = defaultdict(list)
        for one in [*changes, *_derived(changes, extracts)]:
            if one.content is not None:
                said[one.key].append(one)
        for one in history(changes, extracts, known_at):
            histories[one.key].append(
                (
                    one.valid_from,
                    one.valid_to,
                    one.is_deleted,
                    attributes_in(one, said[one.key]),
                    one.created_at,
                )
            )
    return dict(histories)


def group_of(row):
    return row["source_system"].split("-")[1]


def attributes_in(version, said):
    """A deleted version carries what was last said before it (decision 007)."""
    if not version.is_deleted:
        return version.content
    return max(
        (one for one in said if one.changed_at <= version.valid_from), key=lambda one: one.order
    ).content


def built_histories(feed, rows):
    histories = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row[id_column(feed)], row["valid_from"])):
        assert row["is_current"] == (row["valid_to"] is None)
        # Changes of the stream are claimed at odd microseconds, extracts at whole minutes.
        opened_by = "crm" if row["created_at"].microsecond else "registry"
        assert row["source_system"].split("-")[0] == opened_by
        content = attributes_of(feed, row)
        histories[row[id_column(feed)]].append(
            (row["valid_from"], row["valid_to"], row["is_deleted"], content, row["created_at"])
        )
    return dict(histories)


# The generated records


def generated_attributes(rng, feed, group):
    """Few values, so that content comes back; columns that are not named stay null."""
    some = rng.choice
    values = {
        "owners": {"name": some([" Ada ", "Ada", ""]), "consent_flags": some(['{"email":true}', None])},
        "pets": {
            "owner_id": some(["", f"o{group}-1", "nobody"]),
            "dob": some([None, date(2026, 6, 2)]),
            "weight_kg": some([None, Decimal("8.500"), Decimal("8.501")]),
            "neutered": some([None, True, False]),
        },
        "devices": {"status": some(["active", "retired"]), "expected_events_per_day": some([None, 40, 1440])},
        "clinics": {"name": some(["North", "South"]), "timezone": some([None, "Europe/Zurich"])},
        "device_assignments": {
            "device_id": f"d{group}-{rng.randrange(8)}",
            "pet_id": f"pets-{group}-{rng.randrange(8)}",
            "assigned_from": FIRST_DAY + rng.randrange(9) * DAY,
            "assigned_to": some([None, None, FIRST_DAY + rng.randrange(9) * DAY]),
        },
        "clinic_visits": {
            "pet_id": f"pets-{group}-{rng.randrange(40)}",
            "visit_ts": FIRST_DAY + rng.randrange(3) * DAY,
            "status": some(["scheduled", "completed"]),
            "diagnosis_codes": some([None, '["K05"]']),
            "next_vaccine_due": some([None, date(2026, 7, 1)]),
        },
        "appointments": {"status": some(["scheduled", "cancelled"]), "pet_id": f"pets-{group}-0"},
    }
    return values[feed]


def streamed_changes(rng, feed, group, entity):
    """Change records of one entity: coarse times so that ties happen, late ones, repeats, wrong clocks."""
    rows = []
    for _ in range(rng.randrange(0, 6)):
        changed_at = FIRST_DAY + rng.randrange(12) * HOUR
        row = record(
            *(feed, entity, changed_at),
            arrival_ts=changed_at + rng.choice([0, 0, 1, 600]) * HOUR / 60,
            ingested_at=changed_at + rng.randrange(60) * HOUR + timedelta(microseconds=1),
            stream_id=f"c{group}.{feed}.{rng.randrange(2)}",
            kafka_partition=rng.randrange(2),
            source_system=f"crm-{group}",
            op=rng.choice(["upsert", "upsert", "upsert", "delete"]),
            **generated_attributes(rng, feed, group),
        )
        if rng.random() < 0.05:
            row["changed_at"] = row["arrival_ts"] + rng.choice([DAY, DAY + HOUR, 30 * DAY])
        rows.append(row)
        if rng.random() < 0.2:
            rows.append({**row, "stream_id": f"c{group}.{feed}.again"})
    return rows


def registry_extracts(rng, feed, group, entities):
    """Extracts of the group's registry. Entities come and go, mostly without that the registry dates a change.

    One extract is late, one incomplete, one came twice, two are of one instant and in dispute, in every fifth group
    one is empty. Some list an entity twice or thrice, the same or other things of it.
    """
    extracts = []
    said = {entity: (FIRST_DAY, generated_attributes(rng, feed, group)) for entity in entities}
    for number in range(8):
        extracted_at = FIRST_DAY + (2 * min(number, 6) + (number < 5) * rng.randrange(2)) * HOUR
        arrival_ts = extracted_at + (7 * HOUR if number == 2 else rng.choice([0, 0, 60, 180]) * HOUR / 60)
        rows = []
        for entity in entities if number != 3 or group % 5 else []:
            changed_at, values = said[entity]
            turn = rng.random()
            if turn < 0.15:
                changed_at = extracted_at - rng.randrange(3) * HOUR
            if turn < 0.25:
                values = generated_attributes(rng, feed, group)
            said[entity] = (changed_at, values)
            listed = [(changed_at, values)] * rng.choice([0, 0, 1, 1, 1, 1, 2])
            if rng.random() < 0.08:
                since = changed_at - rng.choice([0, 0, 1]) * HOUR
                listed.insert(rng.randrange(len(listed) + 1), (since, generated_attributes(rng, feed, group)))
            rows += [record(feed, entity, since, arrival_ts=arrival_ts, **values) for since, values in listed]
        source = f"registry-{group}"
        extracts.append(extract(feed, number, extracted_at, rows, complete=number != 4, source=source))
        if number == 1:
            again = [{**row, "arrival_ts": arrival_ts + HOUR} for row in rows]
            extracts.append(extract(feed, 9, extracted_at, again, source=source))
    return extracts


def split_of_group(rng, group, changes, extracts):
    """Which batch brings what: BATCHES raw loads of one group and feed, split and ordered as the group's number says."""
    arrivals = sorted({row["arrival_ts"] for row in changes} | {FIRST_DAY})
    first_of = [arrivals[len(arrivals) * number // BATCHES] for number in range(BATCHES)]

    def by_arrival(arrival_ts):
        return sum(arrival_ts >= first for first in first_of[1:])

    ways = [
        lambda row: by_arrival(row["arrival_ts"]),
        lambda row: BATCHES - 1 - by_arrival(row["arrival_ts"]),
        lambda row: rng.randrange(BATCHES),
        lambda row: 0 if rng.random() < 0.9 else BATCHES - 1,
        lambda row: hash_of(row["business_key"]) % BATCHES,
        lambda row: min(int(rng.expovariate(1)), BATCHES - 1),
    ]
    way = ways[group % len(ways)]
    batches = [[] for _ in range(BATCHES)]
    loads = [[way(row), {feed_of(row): [row]}] for row in changes]
    at = list(range(len(extracts)))
    if group % 4 == 1:
        at.reverse()
    elif group % 4:
        rng.shuffle(at)
    loads += [
        [min(place * BATCHES // len(extracts), BATCHES - 1), part]
        for place, part in zip(at, extracts, strict=True)
    ]
    for number, part in loads:
        batches[number].append(part)
    return batches


def hash_of(text):
    return sum(map(ord, text))


def feed_of(row):
    return row["stream_id"].split(".")[1]


def number_offsets(rng, batches):
    """Offsets of streams as a collector lands them: each batch brings ranges of its own, in any order of the log."""
    next_offset = defaultdict(int)
    order_of_log = list(range(len(batches)))
    rng.shuffle(order_of_log)
    for number in order_of_log:
        for feed in sorted(set(batches[number]) - {"extracts"}):
            for row in batches[number][feed]:
                if row["op"] != "snapshot":
                    place = (row["stream_id"], row["kafka_partition"])
                    row["kafka_offset"] = next_offset[place]
                    next_offset[place] += 1


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(SHORT, id="2016_histories"),
        pytest.param(FULL, id="10080_histories", marks=pytest.mark.full),
    ],
)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def batches(form):
    """The loads, one after the other."""
    rng = random.Random(20)
    parts = [[] for _ in range(BATCHES)]
    for group in range(GROUPS):
        for feed in (*form.histories, "appointments"):
            keys = [f"{feed}-{group}-{number}" for number in range(form.keys)]
            changes = [row for key in keys for row in streamed_changes(rng, feed, group, key)]
            extracts = registry_extracts(rng, feed, group, keys[: form.keys // 2])
            for number, batch in enumerate(split_of_group(rng, group, changes, extracts)):
                parts[number] += batch
    loads = [merged(part) for part in parts]
    number_offsets(rng, loads)
    return loads


@pytest.fixture(scope="module")
def raw(batches):
    return merged(batches)


def build(warehouse, form, dirty_days=()):
    variables = {} if dirty_days is None else {"dirty_days": list(dirty_days)}
    warehouse.build(*("--select", *form.models), variables=variables, without=("unit_test", "test"))


@pytest.fixture(scope="module")
def warehouse(make_warehouse, form, batches):
    """Built in increments, one for each load."""
    built = make_warehouse({})
    for batch in batches:
        built.load(batch)
        build(built, form)
    return built


@pytest.fixture(scope="module")
def rebuilt(make_warehouse, form, raw):
    whole = make_warehouse(raw)
    build(whole, form, dirty_days=None)
    return whole


def test_increments_give_the_histories_of_the_reference(warehouse, form, raw):
    for feed in form.histories:
        expected = reference_histories(raw, feed)
        kinds = {len(versions) for versions in expected.values()}
        assert {1, 2, 3, 4, 5} <= kinds, "the generated log is too tame to test anything"
        assert returns_of_an_extract(raw, feed, expected), "no one returns whose source has changed nothing"
        assert built_histories(feed, warehouse.rows(f"select * from cur.{feed}")) == expected, feed


def test_consent_and_erasure_read_the_same_present_state_from_the_lake(warehouse, form, raw):
    for feed in form.histories:
        extracts = [
            CompleteExtract(
                row["source_system"],
                row["stream_id"],
                row["extracted_at"],
                row["arrival_ts"] or row["extracted_at"],
                row["row_count"],
            )
            for row in raw["extracts"]
            if row["feed"] == feed and row["complete"]
        ]
        last = {change.key: change.row for change in change_log(raw[feed], extracts, id_column(feed))}
        columns = ", ".join(BUILT_NAMES.get(field.name, field.name) for field in RECORD_FEEDS[feed][1:])
        present = warehouse.rows(
            f"select {id_column(feed)} as id, {columns} from cur.{feed} where is_current and not is_deleted"
        )
        assert {key: attributes_of(feed, row) for key, row in last.items() if row is not None} == {
            row["id"]: attributes_of(feed, row) for row in present
        }, feed


def returns_of_an_extract(raw, feed, histories):
    """Versions that follow a deleted one at a moment at which no record says that its entity changed."""
    said = {(row[id_column(feed)], row["changed_at"]) for row in raw[feed]}
    return [
        (entity, after[0])
        for entity, versions in histories.items()
        for before, after in pairwise(versions)
        if before[2] and not after[2] and (entity, after[0]) not in said
    ]


def test_increments_equal_a_full_refresh(warehouse, rebuilt):
    assert warehouse.tables() == rebuilt.tables()
    with warehouse.connect() as con_a, rebuilt.connect() as con_b:
        for table in warehouse.tables():
            assert compare_tables(con_a, table, con_b, table) == [], table


def known_at_sql(feed):
    """What is known when, in every form that models use: each history known at a moment, states by time, by day."""
    relations = f"'{feed}', ref('stg_{feed}'), source('raw', 'extracts')"
    moments = [f"timestamp '{moment}'" for moment in KNOWN_AT]
    histories = [f'{{{{ scd2_history({relations}, "{moment}") }}}}' for moment in moments]
    states = f"{{{{ known_history({relations}, attribute_names('{feed}')) }}}}"
    days = " union all ".join(
        f"select cast({moment} as date) + {number} as event_date, {moment} as end_ts"
        for number, moment in enumerate(moments)
    )
    of_days = (
        f"with days as ({days}), {{{{ change_log({relations}, 'any') }}}}, "
        f"{{{{ known_versions('{feed}', 'versions') }}}} select * from versions"
    )
    return [*histories, states, of_days]


def compiled(warehouse, queries):
    between = "\n-- The next query.\n"
    found = warehouse.invoke("compile", "--inline", between.join(queries))
    assert found.success, found.exception
    return found.result.results[0].node.compiled_code.split(between)


def in_force(histories, moment):
    """{id: attributes} of what was there at a moment."""
    return {
        entity: content
        for entity, versions in histories.items()
        for valid_from, valid_to, is_deleted, content, _ in versions
        if valid_from <= moment and (valid_to is None or moment < valid_to) and not is_deleted
    }


def states_by_id(feed, rows):
    found = {row[id_column(feed)]: attributes_of(feed, row) for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("feed", ["owners", "pets"])
def test_what_is_known_at_a_moment_is_the_history_of_the_records_received_by_then(warehouse, raw, feed):
    *histories, states, of_days = map(warehouse.rows, compiled(warehouse, known_at_sql(feed)))
    for moment, history_rows in zip(KNOWN_AT, histories, strict=True):
        expected = reference_histories(raw, feed, moment)
        assert expected
        assert built_histories(feed, history_rows) == expected
        there = in_force(expected, moment)
        known = [
            row
            for row in states
            if row["known_from"] <= moment and (row["known_to"] is None or moment < row["known_to"])
        ]
        assert states_by_id(feed, known) == there
        assert states_by_id(feed, [row for row in of_days if row["end_ts"] == moment]) == there


def test_exact_repeats_are_set_aside_and_point_to_a_record_that_stays(make_warehouse):
    first = record("owners", "o1", FIRST_DAY, district="1", kafka_offset=4)
    again = {**first, "kafka_offset": 9}
    other = {**first, "kafka_offset": 11, "district": "2"}
    registry = [record("owners", "r1", FIRST_DAY, district="3") for _ in range(2)]
    next_registry = [record("owners", "r1", FIRST_DAY, district="3")]
    warehouse = make_warehouse(
        merged(
            [
                {"owners": [first, again, other]},
                extract("owners", 1, FIRST_DAY, registry),
                extract("owners", 2, FIRST_DAY + DAY, next_registry),
            ]
        )
    )
    # Repeats of all feeds are read from raw.
    warehouse.build("--select", "stg_owners", "stg_record_duplicates", without=("unit_test", "test"))
    repeats = warehouse.rows(
        "select entity_id, kafka_offset, kept_stream_id, kept_kafka_offset from stg.record_duplicates order by 1"
    )
    assert repeats == [
        {"entity_id": "o1", "kafka_offset": 4, "kept_stream_id": "cluster.owners.1", "kept_kafka_offset": 9},
        {
            "entity_id": "r1",
            "kafka_offset": 0,
            "kept_stream_id": "registry.owners.001",
            "kept_kafka_offset": 1,
        },
    ]
    assert warehouse.rows("select count(*) as n from stg.owners where owner_id = 'r1'") == [{"n": 2}]
