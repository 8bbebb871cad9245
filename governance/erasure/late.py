"""Refusals that became known after their events had landed: found whenever a consent snapshot is built.

A range landed under the snapshot its claim names. Where a newer one drops more,
what the range holds of it enters the redaction ledger. So do events that an
erased household's collars send late, and records of pets that show up later.
Spans that another pet claims, too, are listed and wait for a person.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from contracts.keeping import IN_DOUBT, Jurisdictions
from contracts.registry import TELEMETRY_FEED
from governance.erasure.disputes import list_disputed
from governance.erasure.scope import request_erasure
from ingestion.collector.consent import ConsentSnapshot, load_snapshot
from lake.disputes import Listing
from lake.landed import landed_stretches, received_within, telemetry_columns
from lake.landing import Manifest
from lake.records import read_records
from lake.redactions import (
    ERASURE,
    LATE_OPT_OUT,
    Arrivals,
    Redaction,
    Redactions,
    arrival_us,
    from_epoch_us,
    load_redactions,
    put_redaction,
    redaction_id_for,
    rows_received_in,
    without,
)
from lake.replacements import Replacements, load_replacements
from lake.store import ObjectStore

LATE_REASON = "received before the refusal was known"

# A claim made before an erasure was requested may land after it.
CLAIM_GRACE = timedelta(days=1)

Stretches = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True)
class LateFindings:
    """Entries that were written, how many landed ranges had to be looked into, and what was listed of spans
    that several pets claim and that wait for a person."""

    entered: tuple[Redaction, ...]
    ranges_examined: int
    listed: Listing | None = None


def enter_late_refusals(
    store: ObjectStore,
    snapshot: ConsentSnapshot,
    manifests: Sequence[Manifest],
    now: datetime,
    deadline_days: int,
    jurisdictions: Jurisdictions = IN_DOUBT,
) -> LateFindings:
    """Compare a new snapshot with everything that landed under older ones; write what is missing in the ledger.
    Whose terms hold for what a practice must keep say `jurisdictions`."""
    redactions, replacements = load_redactions(store), load_replacements(store)
    arrivals, examined = late_arrivals(store, snapshot, manifests, redactions, replacements)
    entered = []
    if arrivals:
        redaction = Redaction(
            redaction_id=redaction_id_for(now, LATE_OPT_OUT, arrivals),
            kind=LATE_OPT_OUT,
            reason=LATE_REASON,
            requested_at=now,
            deadline=now + timedelta(days=deadline_days),
            arrivals=arrivals,
            consent_snapshot_id=snapshot.snapshot_id,
        )
        put_redaction(store, redaction)
        entered.append(redaction)
    entered += _follow_up(store, manifests, redactions, replacements, now, deadline_days, jurisdictions)
    listed = list_disputed(store, snapshot.disputed, now, deadline_days)
    return LateFindings(tuple(entered), examined, listed)


def late_arrivals(
    store: ObjectStore,
    snapshot: ConsentSnapshot,
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
) -> tuple[list[Arrivals], int]:
    """What landed although `snapshot` drops it and the ledger does not cover it; ranges looked into."""
    by_snapshot: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in manifests:
        if manifest.feed == TELEMETRY_FEED and manifest.consent_snapshot_id is not None and manifest.rows:
            by_snapshot[manifest.consent_snapshot_id].append(manifest)
    wanted = snapshot.intervals()
    received: dict[str, set[int]] = defaultdict(set)
    examined = 0
    for snapshot_id, landed in by_snapshot.items():
        # Ids end in a digest of what they drop: the same digest drops the same.
        if snapshot_id.rpartition("-")[2] == snapshot.snapshot_id.rpartition("-")[2]:
            continue
        missed = uncovered(wanted, load_snapshot(store, snapshot_id).intervals(), redactions)
        limits = [(device, low, high) for device, found in missed.items() for low, high in found]
        touched = [m for m in landed if received_within(m, [(low, high) for _, low, high in limits])]
        examined += len(touched)
        for _, table in telemetry_columns(store, touched, replacements, [*missed]):
            arrived = arrival_us(table)
            hit = rows_received_in(limits, table["device_id"], arrived)
            for device_id, moment in zip(
                table["device_id"].filter(pa.array(hit)).to_pylist(), arrived[hit].tolist(), strict=True
            ):
                received[device_id].add(moment)
    covered = _by_device(redactions.arrivals)
    return [
        Arrivals(device_id, from_epoch_us(low), from_epoch_us(high))
        for device_id, moments in sorted(received.items())
        for low, high in without(landed_stretches(moments, wanted[device_id]), covered.get(device_id, []))
    ], examined


def uncovered(wanted: Stretches, dropped: Stretches, redactions: Redactions) -> Stretches:
    """What `wanted` drops and neither `dropped` nor the ledger does."""
    redacted = _by_device(redactions.arrivals)
    missed = {
        device_id: without(found, [*dropped.get(device_id, ()), *redacted.get(device_id, ())])
        for device_id, found in wanted.items()
    }
    return {device_id: found for device_id, found in missed.items() if found}


def _follow_up(
    store: ObjectStore,
    manifests: Sequence[Manifest],
    redactions: Redactions,
    replacements: Replacements,
    now: datetime,
    deadline_days: int,
    jurisdictions: Jurisdictions,
) -> list[Redaction]:
    """Erased households of which records or late events have landed since their request."""
    requested: dict[str, Redaction] = {}
    for entry in redactions:
        if entry.kind == ERASURE:
            for owner_id in entry.owner_ids:
                requested.setdefault(owner_id, entry)
    if not requested:
        return []
    pets = read_records(store, "pets", ["owner_id"], Redactions()).table
    named = {
        owner
        for pet, owner in zip(pets["pet_id"].to_pylist(), pets["owner_id"].to_pylist(), strict=True)
        if pet not in redactions.pet_ids
    }
    entered = []
    for owner_id, first in requested.items():
        # Collars keep what they could not send for days, not for longer than the deadline.
        late = [
            m
            for m in manifests
            if now <= first.deadline and m.ingested_at >= first.requested_at - CLAIM_GRACE
        ]
        if owner_id in named or late:
            further = request_erasure(
                store,
                owner_id,
                first.reason,
                now,
                deadline_days,
                redactions,
                replacements,
                late,
                jurisdictions=jurisdictions,
            )
            if further is not None:
                entered.append(further)
    return entered


def _by_device(arrivals: Iterable[tuple[str, int, int]]) -> Stretches:
    found: Stretches = defaultdict(list)
    for device_id, low, high in arrivals:
        found[device_id].append((low, high))
    return dict(found)
