"""Histories against a plain reading of contracts: generated change logs, one version at a time."""

from collections import defaultdict
from itertools import pairwise

import pytest
from seeded_raw import DAY, FIRST_DAY, extract, merged, owner_changes, record

ATTRIBUTES = ("district", "name", "consent_flags")


def order(row):
    return (
        row["changed_at"],
        row["arrival_ts"],
        row["stream_id"],
        row["kafka_partition"],
        row["kafka_offset"],
    )


def reference_history(raw, known_at=None):
    """{owner_id: [(valid_from, valid_to, is_deleted, attributes)]}, computed one record at a time."""
    records = [row for row in raw["owners"] if known_at is None or row["arrival_ts"] <= known_at]
    log = defaultdict(list)
    for row in records:
        attributes = tuple((row.get(name) or "").strip() or None for name in ATTRIBUTES)
        log[row["owner_id"]].append((order(row), row["op"] == "delete", attributes))
    for change in derived_absences(records, raw.get("extracts", []), known_at):
        log[change[0]].append(change[1:])
    history = {owner: versions_of(sorted(changes)) for owner, changes in log.items()}
    return {owner: versions for owner, versions in history.items() if versions}


def derived_absences(records, extracts, known_at):
    rows_of = defaultdict(list)
    for row in records:
        rows_of[row["stream_id"]].append(row)
    complete = []
    for statement in extracts:
        arrivals = [row["arrival_ts"] for row in rows_of[statement["stream_id"]]]
        arrival_ts = max(arrivals, default=statement["extracted_at"])
        has_come = arrivals or statement["row_count"] == 0
        if statement["complete"] and has_come and (known_at is None or arrival_ts <= known_at):
            complete.append(
                (statement["extracted_at"], statement["stream_id"], arrival_ts, statement["row_count"])
            )
    for (_, before, before_arrival, _), (at, after, after_arrival, row_count) in pairwise(sorted(complete)):
        present = {row["owner_id"] for row in rows_of[after]}
        for owner in {row["owner_id"] for row in rows_of[before]} - present:
            yield owner, (at, max(before_arrival, after_arrival), after, 0, row_count), True, None


def versions_of(changes):
    content = None
    states = {}
    for (changed_at, *_), is_deletion, attributes in changes:
        content = content if is_deletion else attributes
        if content is not None:
            states[changed_at] = (is_deletion, content)
    openings = []
    for changed_at, state in states.items():
        if not openings or openings[-1][1] != state:
            openings.append((changed_at, state))
    starts = [changed_at for changed_at, _ in openings]
    ends = [*starts[1:], None]
    return [(start, end, *state) for (start, state), end in zip(openings, ends, strict=False)]


def built_history(rows):
    history = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["owner_id"], row["valid_from"])):
        attributes = tuple(row[name] for name in ATTRIBUTES)
        assert row["is_current"] == (row["valid_to"] is None)
        history[row["owner_id"]].append((row["valid_from"], row["valid_to"], row["is_deleted"], attributes))
    return dict(history)


@pytest.fixture(scope="module")
def change_log():
    return owner_changes(seed=1, owners=1500)


@pytest.fixture(scope="module")
def warehouse(make_warehouse, change_log):
    built = make_warehouse(change_log)
    built.build("--select", "stg_owners", "cur_owners", without=("unit_test", "test"))
    return built


def test_histories_equal_the_reference(warehouse, change_log):
    expected = reference_history(change_log)
    kinds = {len(versions) for versions in expected.values()}
    assert {1, 2, 3, 4, 5} <= kinds, "the generated log is too tame to test anything"
    assert any(version[2] for versions in expected.values() for version in versions[:-1]), "no one returns"
    assert built_history(warehouse.rows("select * from cur.owners")) == expected


@pytest.fixture(scope="module")
def history_sql(warehouse):
    """The macro's SQL as of a moment; KNOWN_AT stands for it."""
    call = (
        "{{ scd2_history('owners', ref('stg_owners'), source('raw', 'extracts'), \"timestamp 'KNOWN_AT'\") }}"
    )
    compiled = warehouse.invoke("compile", "--inline", call)
    assert compiled.success, compiled.exception
    return compiled.result.results[0].node.compiled_code


@pytest.mark.parametrize("hours", [3, 6, 9, 16])
def test_history_known_at_a_moment_is_that_of_the_records_received_by_then(
    warehouse, change_log, history_sql, hours
):
    known_at = FIRST_DAY + hours * DAY / 24
    built = built_history(warehouse.rows(history_sql.replace("KNOWN_AT", f"{known_at:%Y-%m-%d %H:%M:%S}")))
    assert built
    assert built == reference_history(change_log, known_at)


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
    feeds = [f"stg_{feed}" for feed in ("owners", "pets", "devices", "clinics", "device_assignments")]
    feeds += [f"stg_{feed}" for feed in ("clinic_visits", "appointments", "breeds", "visit_documents")]
    feeds += ["stg_engagement", "stg_record_duplicates"]
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
