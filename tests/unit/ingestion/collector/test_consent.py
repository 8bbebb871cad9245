"""Consent: which device's telemetry is dropped when, from plain histories and from landed records."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from contracts.columns import record_schema
from contracts.consent import AnalyticsDefault
from ingestion.collector.attribution import Assignment
from ingestion.collector.consent import (
    ERASED,
    ConsentSnapshot,
    ConsentSnapshotStaleError,
    OptOut,
    build_consent_snapshot,
    claim_of,
    covered_by,
    drops_by_reason,
    erasures,
    load_latest_snapshot,
    load_snapshot,
    mentions_opted_out,
    opt_outs,
    opted_out_rows,
)
from lake.extract import land_extract
from lake.redactions import Redaction, Redactions, Worn, epoch_us
from lake.store import LocalStore


def day(number: int) -> datetime:
    return datetime(2026, 6, number)


def test_a_refusal_drops_from_its_change_until_it_is_taken_back() -> None:
    flags = [("o", True, day(1)), ("o", False, day(5)), ("o", True, day(9))]
    assert opt_outs(flags, [("p", "o", day(1))], [("d", "p", day(2), None)]) == [OptOut("d", day(5), day(9))]


def test_a_refusal_not_taken_back_has_no_end() -> None:
    assert opt_outs([("o", False, day(5))], [("p", "o", day(1))], [("d", "p", day(7), None)]) == [
        OptOut("d", day(7), None)
    ]


def test_the_device_is_free_on_another_pet_and_after_the_pet_changed_owner() -> None:
    flags = [("no", False, day(1)), ("yes", True, day(1))]
    owners = [("p", "no", day(1)), ("p", "yes", day(10)), ("q", "yes", day(1))]
    assigned = [("d", "q", day(2), day(4)), ("d", "p", day(4), None), ("e", "p", day(2), day(3))]
    assert opt_outs(flags, owners, assigned) == [
        OptOut("d", day(4), day(10)),
        OptOut("e", day(2), day(3)),
    ]


def test_a_pets_first_known_owner_counts_before_it_was_known() -> None:
    flags, owners = [("no", False, day(1))], [("p", "no", day(8))]
    assert opt_outs(flags, owners, [("d", "p", day(2), day(9))]) == [OptOut("d", day(2), day(9))]


def test_touching_stretches_are_one() -> None:
    flags = [("o", False, day(1))]
    assigned = [("d", "p", day(2), day(4)), ("d", "p", day(4), day(6)), ("d", "p", day(8), day(9))]
    assert opt_outs(flags, [("p", "o", day(1))], assigned) == [
        OptOut("d", day(2), day(6)),
        OptOut("d", day(8), day(9)),
    ]


SNAPSHOT = ConsentSnapshot("s", day(1), [OptOut("a", day(2), day(3)), OptOut("b", day(2), None)])


def micros(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)) / timedelta(microseconds=1))


def test_rows_are_dropped_by_their_time_of_receipt_start_included_end_not() -> None:
    rows = [
        ("a", day(2)),
        ("a", day(3)),
        ("b", day(3)),
        ("c", day(2)),
        ("a", day(2) - timedelta(microseconds=1)),
    ]
    dropped = opted_out_rows(
        SNAPSHOT.intervals(),
        pa.chunked_array([[device for device, _ in rows]]),
        np.array([micros(moment) for _, moment in rows]),
    )
    assert dropped.tolist() == [True, False, True, False, False]


def test_a_reject_that_mentions_an_opted_out_device_is_known_by_key_or_content() -> None:
    intervals = SNAPSHOT.intervals()
    assert mentions_opted_out(intervals, (b"k", b'{"device_id":"a"'), micros(day(2)))
    assert mentions_opted_out(intervals, (b"b", b""), micros(day(20)))
    assert not mentions_opted_out(intervals, (b"k", b'{"device_id":"a"'), micros(day(3)))
    assert not mentions_opted_out(intervals, (None, b"zzz"), micros(day(2)))


def land(store: LocalStore, feed: str, extract_id: str, at: datetime, rows: list[dict[str, Any]]) -> None:
    given = set(rows[0]) | {"business_key", "op", "changed_at", "payload"}
    fields = [f for f in record_schema(feed) if f.name in given or f.name not in _ENVELOPE]
    complete = [
        {"business_key": "k", "op": "upsert", "changed_at": at, "payload": "{}", **row} for row in rows
    ]
    table = pa.Table.from_pylist(complete, schema=pa.schema(fields))
    land_extract(
        store, source="sim", feed=feed, extract_id=extract_id, table=table, complete=False, extracted_at=at
    )


_ENVELOPE = {
    "stream_id",
    "kafka_partition",
    "kafka_offset",
    "arrival_ts",
    "ingested_at",
    "source_system",
    "source_file",
    "extracted_at",
}


def flags(value: bool) -> str:
    return json.dumps({"analytics": {"at": "2026-06-01T00:00:00Z", "value": value}})


def snapshot(store: LocalStore, at: datetime, silence: str = "allow") -> ConsentSnapshot:
    return build_consent_snapshot(store, at, AnalyticsDefault(silence))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "lake")
    land(store, "owners", "1", day(1), [{"owner_id": "o", "consent_flags": flags(True)}])
    land(store, "owners", "2", day(4), [{"owner_id": "o", "consent_flags": flags(False)}])
    land(store, "pets", "1", day(1), [{"pet_id": "p", "owner_id": "o"}])
    assignment = {"assignment_id": "a", "device_id": "d", "pet_id": "p", "assigned_from": day(2)}
    land(store, "device_assignments", "1", day(2), [assignment])
    land(store, "device_assignments", "2", day(6), [{**assignment, "assigned_to": day(8)}])
    mistake = {**assignment, "assignment_id": "b", "device_id": "x"}
    land(store, "device_assignments", "3", day(2), [mistake])
    land(store, "device_assignments", "4", day(3), [{**mistake, "op": "delete"}])
    return store


def test_a_snapshot_follows_from_the_landed_records_known_at_its_moment(store: LocalStore) -> None:
    assert snapshot(store, day(3)).opted_out == []
    assert snapshot(store, day(5)).opted_out == [OptOut("d", day(4), None)]
    latest = snapshot(store, day(7))
    assert latest.opted_out == [OptOut("d", day(4), day(8))]
    assert load_snapshot(store, latest.snapshot_id) == latest
    assert load_latest_snapshot(store, day(7), 60) == latest
    assert snapshot(store, day(7)) == latest


def test_a_record_without_the_flag_takes_no_refusal_back(store: LocalStore) -> None:
    push = json.dumps({"push": {"at": "2026-06-05T00:00:00Z", "value": True}})
    land(store, "owners", "3", day(5), [{"owner_id": "o", "consent_flags": push}])
    land(store, "owners", "4", day(5), [{"owner_id": "o"}])
    assert snapshot(store, day(7)).opted_out == [OptOut("d", day(4), day(8))]


@pytest.fixture
def silent(store: LocalStore) -> LocalStore:
    """A household that never said it, one that no record states, a pet without owner, a household that says it
    later, each with a collar from day 2."""
    push = json.dumps({"push": {"at": "2026-06-01T00:00:00Z", "value": True}})
    land(store, "owners", "silent", day(1), [{"owner_id": "silent", "consent_flags": push}])
    land(store, "owners", "late", day(5), [{"owner_id": "late", "consent_flags": flags(True)}])
    homes = [("p1", "silent"), ("p2", "unheard of"), ("p3", None), ("p4", "late")]
    for number, (pet, owner) in enumerate(homes):
        land(store, "pets", f"more{number}", day(1), [{"pet_id": pet, "owner_id": owner}])
        assignment = {"assignment_id": pet, "device_id": f"d-{pet}", "pet_id": pet, "assigned_from": day(2)}
        land(store, "device_assignments", f"more{number}", day(2), [assignment])
    return store


REFUSED = OptOut("d", day(4), day(8))


def test_where_silence_allows_only_refusals_are_dropped(silent: LocalStore) -> None:
    allowed = snapshot(silent, day(7))
    assert (allowed.opted_out, allowed.analytics_default) == ([REFUSED], AnalyticsDefault.ALLOW)


def test_where_silence_refuses_so_does_who_has_not_said_it(silent: LocalStore) -> None:
    strict = snapshot(silent, day(7), "refuse")
    unsaid = [OptOut("d-p1", day(2), None), OptOut("d-p2", day(2), None), OptOut("d-p4", day(2), day(5))]
    # Without an owner there is nobody who could have been asked.
    assert strict.opted_out == [REFUSED, *unsaid]
    assert load_snapshot(silent, strict.snapshot_id) == strict


def test_a_changed_default_holds_from_its_change_on(silent: LocalStore) -> None:
    snapshot(silent, day(3))
    changed = snapshot(silent, day(6), "refuse")
    unsaid = [OptOut("d-p1", day(6), None), OptOut("d-p2", day(6), None)]
    assert changed.opted_out == [REFUSED, *unsaid]
    assert changed.default_since == day(6)
    assert snapshot(silent, day(7), "refuse").opted_out == [REFUSED, *unsaid]
    assert snapshot(silent, day(8)).opted_out == [REFUSED]


def test_a_statement_about_an_assignment_that_facts_set_aside_counts_for_consent_no_more(
    store: LocalStore,
) -> None:
    stated = {"assignment_id": "a", "device_id": "d", "pet_id": "q", "assigned_from": day(2)}
    # Of a clock that is ahead, of no device.
    land(store, "device_assignments", "5", day(7), [{**stated, "changed_at": day(20)}])
    land(store, "device_assignments", "6", day(7), [{**stated, "assignment_id": "c", "device_id": ""}])
    assert snapshot(store, day(25)).opted_out == [OptOut("d", day(4), day(8))]


def test_nothing_may_be_ingested_under_an_old_snapshot_or_none(store: LocalStore, tmp_path: Path) -> None:
    snapshot(store, day(7))
    with pytest.raises(
        ConsentSnapshotStaleError, match=r"86400 s old.*PETWELLNESS_COLLECTOR_CONSENT_MAX_AGE_S"
    ):
        load_latest_snapshot(store, day(8), 3600)
    with pytest.raises(ConsentSnapshotStaleError, match="no consent snapshot"):
        load_latest_snapshot(LocalStore(tmp_path / "empty"), day(8), 3600)


def test_drops_are_counted_by_reason_and_each_once() -> None:
    snapshot = ConsentSnapshot(
        "s",
        day(1),
        [
            OptOut("a", day(2), day(4)),
            OptOut("a", day(3), None, ERASED),
            OptOut("b", day(2), None),
        ],
    )
    devices = pa.chunked_array([["a", "a", "a", "b", "c", "a"]])
    moments = [day(1), day(2), day(3), day(9), day(9), day(9)]
    arrival_us = np.array([epoch_us(moment) for moment in moments], np.int64)
    assert drops_by_reason(snapshot, devices, arrival_us) == {"erased": 2, "analytics_opt_out": 2}
    assert opted_out_rows(snapshot.intervals(), devices, arrival_us).sum() == 4


def test_a_snapshot_without_reasons_is_of_opt_outs(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put_new("_consent/old.json", b'{"snapshot_id":"old","built_at":"2026-06-01T00:00:00","opted_out":'
                  b'[["a","2026-06-02T00:00:00",null]]}')  # fmt: skip
    assert load_snapshot(store, "old").opted_out == [OptOut("a", day(2), None, "analytics_opt_out")]


def test_what_an_erased_pet_wore_is_free_when_another_pet_gets_it() -> None:
    worn = [Worn("d", day(2), None, "p"), Worn("e", day(2), day(3), "p"), Worn("f", day(2), None, "p")]
    erased = Redactions(
        (
            Redaction(
                redaction_id="r",
                kind="erasure",
                reason="12",
                requested_at=day(10),
                deadline=day(20),
                owner_ids=["o"],
                worn=worn,
            ),
        )
    )
    others = [
        Assignment("d", "q", day(9), None),
        Assignment("d", "r", day(7), day(8)),
        Assignment("d", "q", day(1), day(2)),
    ]
    assert covered_by(erasures(erased), [*others, *map(claim_of, worn)], []) == (
        [
            OptOut("d", day(2), day(7), ERASED),
            OptOut("e", day(2), day(3), ERASED),
            OptOut("f", day(2), None, ERASED),
        ],
        [],
    )
