"""Histories against a plain reading of contracts: generated change logs, one version at a time.

More than ten thousand histories of all six feeds live in one warehouse, in groups that
share nothing. Each group's records come in batches of its own making: as they
were received, the other way round, key by key, at random. So one sequence of
builds covers many splits and orders.
"""

import random
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, merged, record

from ingestion.contracts.columns import RECORD_FEEDS
from ingestion.loading.compare import compare_tables

HISTORIES = ("owners", "pets", "devices", "clinics", "device_assignments", "clinic_visits")
GROUPS = 24
KEYS = 90
BATCHES = 4
HOUR = timedelta(hours=1)
MODELS = (
    *(f"stg_{feed}" for feed in RECORD_FEEDS),
    *(f"cur_{feed}" for feed in (*HISTORIES, "appointments")),
    *("stg_record_duplicates", "cur_record_days", "cur_record_findings"),
    *("cur_device_pet_intervals", "cur_assignment_cuts"),
)


# The reference


def order(row):
    return (
        row["changed_at"],
        row["arrival_ts"],
        row["stream_id"],
        row["kafka_partition"],
        row["kafka_offset"],
    )


def id_column(feed):
    return RECORD_FEEDS[feed][0].name


def cleaned(column, value):
    if not isinstance(value, str) or column in {"consent_flags", "diagnosis_codes"}:
        return value
    return (value if column.endswith("_id") else value.strip()) or None


def attributes_of(feed, row):
    return tuple(cleaned(field.name, row.get(field.name)) for field in RECORD_FEEDS[feed][1:])


def reference_histories(raw, feed, known_at=None):
    """{id: [(valid_from, valid_to, is_deleted, attributes, source_system, created_at)]}, one record at a time."""
    records = [row for row in raw.get(feed, []) if known_at is None or row["arrival_ts"] <= known_at]
    log = defaultdict(list)
    for row in records:
        if row["changed_at"] <= row["arrival_ts"] + DAY:
            content = None if row["op"] == "delete" else attributes_of(feed, row)
            opened_by = (row["source_system"], row["ingested_at"])
            log[row[id_column(feed)]].append((order(row), content, opened_by))
    statements = [row for row in raw.get("extracts", []) if row["feed"] == feed]
    for source in sorted({row["source_system"] for row in statements}):
        of_source = [row for row in statements if row["source_system"] == source]
        for entity, *change in derived_absences(feed, records, of_source, known_at):
            log[entity].append(tuple(change))
    histories = {entity: versions_of(sorted(changes, key=lambda c: c[0])) for entity, changes in log.items()}
    return {entity: versions for entity, versions in histories.items() if versions}


def derived_absences(feed, records, statements, known_at):
    rows_of = defaultdict(list)
    for row in records:
        rows_of[row["stream_id"]].append(row)
    complete = []
    for statement in statements:
        arrival_ts = statement["arrival_ts"] or statement["extracted_at"]
        if statement["complete"] and (known_at is None or arrival_ts <= known_at):
            complete.append((statement["extracted_at"], statement["stream_id"], arrival_ts, statement))
    for before, after in pairwise(sorted(complete, key=lambda found: found[:2])):
        present = {row[id_column(feed)] for row in rows_of[after[1]]}
        for entity in {row[id_column(feed)] for row in rows_of[before[1]]} - present:
            at = (after[0], max(before[2], after[2]), after[1], 0, after[3]["row_count"])
            yield entity, at, None, (after[3]["source_system"], after[3]["claimed_at"])


def versions_of(changes):
    """`changes` are (order, content or None for a deletion, opened by), in order."""
    content = None
    states = {}
    for (changed_at, *_), said, opened_by in changes:
        content = content if said is None else said
        if content is not None:
            states[changed_at] = (said is None, content, opened_by)
    openings = []
    for changed_at, state in states.items():
        if not openings or openings[-1][1][:2] != state[:2]:
            openings.append((changed_at, state))
    ends = [*[changed_at for changed_at, _ in openings], None][1:]
    return [
        (start, end, is_deleted, content, *opened_by)
        for (start, (is_deleted, content, opened_by)), end in zip(openings, ends, strict=True)
    ]


def built_histories(feed, rows):
    histories = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row[id_column(feed)], row["valid_from"])):
        assert row["is_current"] == (row["valid_to"] is None)
        version = (row["valid_from"], row["valid_to"], row["is_deleted"])
        content = tuple(row[field.name] for field in RECORD_FEEDS[feed][1:])
        histories[row[id_column(feed)]].append((*version, content, row["source_system"], row["created_at"]))
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
            "pet_id": f"pets-{group}-{rng.randrange(2 * KEYS)}",
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
            ingested_at=changed_at + rng.randrange(60) * HOUR,
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
    """Extracts of the group's registry: one late, one incomplete, one that came twice, some with keys twice, one empty."""
    extracts = []
    contents = {entity: generated_attributes(rng, feed, group) for entity in entities}
    for number in range(6):
        extracted_at = FIRST_DAY + (2 * number + rng.randrange(2)) * HOUR
        rows = []
        for entity in entities if number != 3 or group % 5 else []:
            if rng.random() < 0.3:
                contents[entity] = generated_attributes(rng, feed, group)
            for times in range(rng.choice([0, 1, 1, 1, 2])):
                values = contents[entity] if times == 0 else generated_attributes(rng, feed, group)
                late = 7 * HOUR if number == 2 else timedelta(0)
                rows.append(record(feed, entity, extracted_at, arrival_ts=extracted_at + late, **values))
        source = f"registry-{group}"
        extracts.append(extract(feed, number, extracted_at, rows, complete=number != 4, source=source))
        if number == 1:
            again = [{**row, "arrival_ts": extracted_at + HOUR} for row in rows]
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


@pytest.fixture(scope="module")
def batches():
    """The loads, one after the other."""
    rng = random.Random(20)
    parts = [[] for _ in range(BATCHES)]
    for group in range(GROUPS):
        for feed in (*HISTORIES, "appointments"):
            keys = [f"{feed}-{group}-{number}" for number in range(KEYS)]
            changes = [row for key in keys for row in streamed_changes(rng, feed, group, key)]
            extracts = registry_extracts(rng, feed, group, keys[: KEYS // 3])
            for number, batch in enumerate(split_of_group(rng, group, changes, extracts)):
                parts[number] += batch
    loads = [merged(part) for part in parts]
    number_offsets(rng, loads)
    return loads


@pytest.fixture(scope="module")
def raw(batches):
    return merged(batches)


def build(warehouse, *args, dirty_days=()):
    variables = {} if dirty_days is None else {"dirty_days": list(dirty_days)}
    warehouse.build(*("--select", *MODELS), *args, variables=variables, without=("unit_test", "test"))


@pytest.fixture(scope="module")
def warehouse(make_warehouse, batches):
    """Built in increments, one for each load."""
    built = make_warehouse({})
    for batch in batches:
        built.load(batch)
        build(built)
    return built


@pytest.fixture(scope="module")
def rebuilt(make_warehouse, raw):
    whole = make_warehouse(raw)
    build(whole, dirty_days=None)
    return whole


@pytest.mark.parametrize("feed", HISTORIES)
def test_increments_give_the_histories_of_the_reference(warehouse, raw, feed):
    expected = reference_histories(raw, feed)
    kinds = {len(versions) for versions in expected.values()}
    assert {1, 2, 3, 4, 5} <= kinds, "the generated log is too tame to test anything"
    assert any(version[2] for versions in expected.values() for version in versions[:-1]), "no one returns"
    assert len(expected) > 10_000 / len(HISTORIES)
    assert built_histories(feed, warehouse.rows(f"select * from cur.{feed}")) == expected


def test_increments_equal_a_full_refresh(warehouse, rebuilt):
    assert warehouse.tables() == rebuilt.tables()
    with warehouse.connect() as con_a, rebuilt.connect() as con_b:
        for table in warehouse.tables():
            assert compare_tables(con_a, table, con_b, table) == [], table


@pytest.fixture(scope="module")
def history_sql(warehouse):
    """The macro's SQL for a feed as of a moment; KNOWN_AT stands for it."""

    def compiled(feed):
        call = f"{{{{ scd2_history('{feed}', ref('stg_{feed}'), source('raw', 'extracts'), \"timestamp 'KNOWN_AT'\") }}}}"
        found = warehouse.invoke("compile", "--inline", call)
        assert found.success, found.exception
        return found.result.results[0].node.compiled_code

    return compiled


@pytest.mark.parametrize("feed", ["owners", "clinic_visits"])
def test_history_known_at_a_moment_is_that_of_the_records_received_by_then(warehouse, raw, history_sql, feed):
    sql = history_sql(feed)
    for hours in (3, 6, 9, 16):
        known_at = FIRST_DAY + hours * HOUR
        rows = warehouse.rows(sql.replace("KNOWN_AT", f"{known_at:%Y-%m-%d %H:%M:%S}"))
        built = built_histories(feed, rows)
        assert built
        assert built == reference_histories(raw, feed, known_at)


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
    feeds = [f"stg_{feed}" for feed in (*RECORD_FEEDS, "record_duplicates")]
    warehouse.build("--select", *feeds)
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
