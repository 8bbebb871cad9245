"""The check of a lake against what was produced: a sound lake passes, every kind of damage is seen."""

import itertools
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import landed
import msgspec
import pyarrow as pa
import pytest

import verification.chaos.verify
from contracts.columns import REJECT_SCHEMA, TELEMETRY_SCHEMA
from lake.landing import FILLED_BY_CLAIM, Claim, claim_range, land_range
from lake.store import ObjectExistsError, ObjectInfo, ObjectMissingError, ObjectStore
from verification.chaos.traffic import DROPPED, ROW, Ledger, Record, messages
from verification.chaos.verify import Findings, main_ends, unfinished, verify

STREAM, MOMENT = "c.telemetry.i", datetime(2026, 6, 1, 12)
PLACE = (STREAM, 0)
# A gap of two offsets (a marker and an aborted message) lies before the second range's end.
RANGES, GAP, END = ((0, 40), (40, 100)), (90, 91), 100

Objects = dict[str, bytes]


class DictStore(ObjectStore):
    """Objects in a dictionary."""

    def __init__(self) -> None:
        self.url, self.objects = "memory", Objects()

    def put_new(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise ObjectExistsError(key)
        self.objects[key] = data

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissingError(key)
        return self.objects[key]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from (ObjectInfo(k, len(v)) for k, v in sorted(self.objects.items()) if k.startswith(prefix))

    def folders(self, prefix: str) -> tuple[str, ...]:
        below = {k[len(prefix) :].partition("/")[0] for k in self.objects if k.startswith(prefix)}
        return tuple(sorted(below))

    def delete(self, key: str) -> None:
        del self.objects[key]

    def uri(self, key: str) -> str:
        return key

    def filesystem(self) -> Any:
        raise NotImplementedError

    def check(self) -> None:
        return None


def a_ledger() -> Ledger:
    offsets = [offset for offset in range(END) if offset not in GAP]
    return {PLACE: dict(zip(offsets, itertools.islice(messages(3), len(offsets)), strict=True))}


def a_claim(start: int, end: int, by: str = "me") -> Claim:
    return landed.claim(
        start, end, stream_id=STREAM, claimed_at=MOMENT, claimed_by=by, consent_snapshot_id="s"
    )


def tables(records: dict[int, Record]) -> tuple[pa.Table, pa.Table, int]:
    """Rows, rejects and the number of drops, as a collector would make them."""
    rows = [
        {
            "kafka_offset": offset,
            "arrival_ts": MOMENT,
            "device_id": "d",
            "event_ts": MOMENT,
            "event_id": record.event_id,
            "payload": (record.value or b"").decode(),
        }
        for offset, record in records.items()
        if record.fate == ROW
    ]
    rejects = [
        {
            "stream_id": STREAM,
            "kafka_partition": 0,
            "kafka_offset": offset,
            "arrival_ts": MOMENT,
            "source_system": "petwellness-collar",
            "reason": record.fate,
            "detail": "",
            "payload": (record.value or b"") if record.keeps_payload else None,
        }
        for offset, record in records.items()
        if record.fate not in (ROW, DROPPED)
    ]
    fields = [field for field in TELEMETRY_SCHEMA if field.name not in FILLED_BY_CLAIM]
    return (
        pa.Table.from_pylist(rows, schema=pa.schema(fields)),
        pa.Table.from_pylist(rejects, schema=REJECT_SCHEMA),
        sum(record.fate == DROPPED for record in records.values()),
    )


def land(store: DictStore, ledger: Ledger, claim: Claim) -> None:
    inside = {o: record for o, record in ledger[PLACE].items() if claim.start <= o < claim.end}
    rows, rejects, dropped = tables(inside)
    gaps = claim.end - claim.start - len(inside)
    land_range(store, claim, rows, rejects, consent_dropped=dropped, offset_gaps=gaps)


def a_lake(ledger: Ledger) -> DictStore:
    store = DictStore()
    for start, end in RANGES:
        land(store, ledger, claim_range(store, a_claim(start, end)))
    return store


def judge(store: DictStore, ledger: Ledger, end: int = END) -> Findings:
    return verify(store.objects, ledger, {PLACE: end})


def key(store: DictStore, text: str) -> str:
    return next(name for name in store.objects if text in name)


def test_a_sound_lake_is_exact_and_all_four_parts_of_the_law_are_in_it() -> None:
    ledger = a_ledger()
    findings = judge(a_lake(ledger), ledger)
    assert findings.exact, findings.violations
    assert findings.produced == END - len(GAP)
    assert findings.offset_gaps == len(GAP)
    assert min(findings.rows, findings.rejected, findings.consent_dropped) > 0
    assert findings.ranges == 2


def test_rejects_that_nothing_refers_to_are_no_damage() -> None:
    ledger = a_ledger()
    store = a_lake(ledger)
    name = key(store, "_rejects/")
    store.objects[name.replace(name[-24:-8], "0" * 16)] = store.objects[name]
    findings = judge(store, ledger)
    assert findings.exact
    assert findings.orphaned_rejects == 1


def test_what_is_not_finished_is_told_from_names() -> None:
    store = a_lake(a_ledger())
    assert unfinished(store.objects) == set()
    assert main_ends(store.objects) == {PLACE: END}
    del store.objects[key(store, f"_manifests/{STREAM}/00000/{40:020}")]
    assert unfinished(store.objects) == {(STREAM, 0, 40)}


def _lose_a_range(store: DictStore, ledger: Ledger) -> None:
    for name in [n for n in store.objects if "+40+" in n or n.endswith(f"{40:020}.json")]:
        del store.objects[name]


def _land_twice_with_other_ends(store: DictStore, ledger: Ledger) -> None:
    land(store, ledger, a_claim(0, 30, by="zombie"))


def _take_messages_for_gaps(store: DictStore, ledger: Ledger) -> None:
    del (
        store.objects[key(store, "+40+100.parquet")],
        store.objects[key(store, f"_manifests/{STREAM}/00000/{40:020}")],
    )
    short = {PLACE: {offset: record for offset, record in ledger[PLACE].items() if offset < 70}}
    land(store, short, a_claim(40, 100))


def _drop_the_rejects(store: DictStore, ledger: Ledger) -> None:
    del store.objects[key(store, "_rejects/")]


def _change_a_payload(store: DictStore, ledger: Ledger) -> None:
    offset, record = next((o, r) for o, r in ledger[PLACE].items() if r.fate == ROW)
    ledger[PLACE][offset] = Record(b'{"another": 1}', ROW, record.event_id)


def _keep_what_consent_forbids(store: DictStore, ledger: Ledger) -> None:
    offset, record = next((o, r) for o, r in ledger[PLACE].items() if r.fate == ROW)
    ledger[PLACE][offset] = Record(record.value, DROPPED, None)


def _keep_the_payload_of_an_opted_out_reject(store: DictStore, ledger: Ledger) -> None:
    offset, record = next((o, r) for o, r in ledger[PLACE].items() if r.fate not in (ROW, DROPPED))
    ledger[PLACE][offset] = Record(record.value, record.fate, None, keeps_payload=False)


def _reject_for_another_reason(store: DictStore, ledger: Ledger) -> None:
    offset, record = next((o, r) for o, r in ledger[PLACE].items() if r.fate not in (ROW, DROPPED))
    ledger[PLACE][offset] = Record(record.value, "version", None)


def _reject_what_was_good(store: DictStore, ledger: Ledger) -> None:
    offset, record = next((o, r) for o, r in ledger[PLACE].items() if r.fate not in (ROW, DROPPED))
    ledger[PLACE][offset] = Record(record.value, ROW, "e")


def _land_what_nobody_produced(store: DictStore, ledger: Ledger) -> None:
    del ledger[PLACE][max(ledger[PLACE])]


def _tear_the_chain(store: DictStore, ledger: Ledger) -> None:
    name = key(store, f"_claims/{STREAM}/00000/{0:020}")
    claim = json.loads(store.objects[name])
    store.objects[name] = json.dumps(claim | {"end": 39}).encode()


def _lose_a_manifest(store: DictStore, ledger: Ledger) -> None:
    del store.objects[key(store, "_manifests/")]


def _overwrite_a_main_object(store: DictStore, ledger: Ledger) -> None:
    name = key(store, "landing/")
    records = {o: record for o, record in ledger[PLACE].items() if o < 40}
    rows, rejects, dropped = tables(records)
    other = DictStore()
    land_range(other, a_claim(0, 40, by="zombie"), rows, rejects, consent_dropped=dropped)
    store.objects[name] = other.objects[name]


def _claim_with_the_end_in_the_key(store: DictStore, ledger: Ledger) -> None:
    name = key(store, "_claims/")
    store.objects[f"{name}+40"] = store.objects[name]


def _describe_other_counts(store: DictStore, ledger: Ledger) -> None:
    name = key(store, "_manifests/")
    manifest = json.loads(store.objects[name])
    store.objects[name] = json.dumps(manifest | {"rows": manifest["rows"] - 1}).encode()


DAMAGE = [
    _lose_a_range,
    _land_twice_with_other_ends,
    _take_messages_for_gaps,
    _drop_the_rejects,
    _change_a_payload,
    _keep_what_consent_forbids,
    _keep_the_payload_of_an_opted_out_reject,
    _reject_for_another_reason,
    _reject_what_was_good,
    _land_what_nobody_produced,
    _tear_the_chain,
    _lose_a_manifest,
    _overwrite_a_main_object,
    _claim_with_the_end_in_the_key,
    _describe_other_counts,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_damage_is_seen(damage: Callable[[DictStore, Ledger], None]) -> None:
    ledger = a_ledger()
    store = a_lake(ledger)
    damage(store, ledger)
    assert not judge(store, ledger).exact


@pytest.mark.parametrize("damage", [_lose_a_range, _take_messages_for_gaps, _drop_the_rejects])
def test_what_is_lost_is_counted(damage: Callable[[DictStore, Ledger], None]) -> None:
    ledger = a_ledger()
    store = a_lake(ledger)
    damage(store, ledger)
    findings = judge(store, ledger)
    assert findings.missing == findings.missing_by_content > 0
    assert findings.duplicated == findings.duplicated_by_content == 0


def test_what_is_twice_is_counted() -> None:
    ledger = a_ledger()
    store = a_lake(ledger)
    _land_twice_with_other_ends(store, ledger)
    findings = judge(store, ledger)
    landed_again = sum(record.fate != DROPPED for o, record in ledger[PLACE].items() if o < 30)
    assert findings.duplicated == findings.duplicated_by_content == landed_again
    assert findings.missing == 0


def test_claims_of_a_deleted_topic_that_nobody_can_land_are_counted_apart() -> None:
    ledger = a_ledger()
    store = a_lake(ledger)
    store.put_new(f"_claims/{STREAM}/00000/{END:020}.json", msgspec.json.encode(a_claim(END, END + 10)))
    assert not verify(store.objects, ledger, {PLACE: END + 10}).exact
    findings = verify(store.objects, ledger, {PLACE: END + 10}, {STREAM})
    assert findings.exact, findings.violations
    assert findings.claims_of_dead_streams == 1


def test_the_check_shares_no_code_with_what_it_checks(repository: Path) -> None:
    used = {getattr(value, "__module__", None) or "" for value in vars(verification.chaos.verify).values()}
    ours = {path.parent.name for path in repository.glob("*/__init__.py")} - {"verification"}
    assert ours.isdisjoint(module.partition(".")[0] for module in used)
