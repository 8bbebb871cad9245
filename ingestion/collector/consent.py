"""Consent at ingestion: which devices' telemetry is dropped, from when to when, and why.

A snapshot is built from the landed owners, pets and device assignments and from
the households that the redaction ledger erased, stored create-only and named in
every claim. What landed before a refusal was known is the business of
`governance.erasure`.
"""

import contextlib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.consent import ANALYTICS, AnalyticsDefault, OwnerRecord, Statement, allows, statements
from ingestion.collector.attribution import Assignment, Demand, Stretch, divided, earliest
from lake import layout
from lake.changes import Change, is_dated_ahead
from lake.disputes import Decision, Disputed, decided_to_go, load_decisions, undecided
from lake.records import LandedRecords, read_records
from lake.redactions import Redactions, Worn, epoch_us, load_redactions, rows_received_in
from lake.store import ObjectExistsError, ObjectStore

# Why telemetry is dropped. A message that several reasons cover counts under the first of these.
ERASED = "erased"
ANALYTICS_OPT_OUT = "analytics_opt_out"
REASONS = (ERASED, ANALYTICS_OPT_OUT)


# How far the clocks of two machines may be apart.
CLOCK_TOLERANCE = timedelta(minutes=5)


class ConsentSnapshotStaleError(Exception):
    """No consent snapshot, or one that is too old or whose age cannot be told: nothing may be ingested."""


class OptOut(NamedTuple):
    """One device's telemetry received in `[from_ts, to_ts)` is dropped; no end means until further notice."""

    device_id: str
    from_ts: datetime
    to_ts: datetime | None
    reason: str = ANALYTICS_OPT_OUT


class Silence(NamedTuple):
    """What holds for `analytics` of households that have not said it, from `default_since` (naive UTC) on."""

    analytics_default: AnalyticsDefault
    default_since: datetime


class ConsentSnapshot(msgspec.Struct, frozen=True):
    """Devices whose household does not allow analytics or is erased, as known at `built_at` (naive UTC).

    `analytics_default` says what was taken to hold for households that have not said it, from
    `default_since` on: what was received before then was taken in under another default.
    `disputed`: what such a household wants gone and another pet claims, too, and nobody has decided of.
    It is not dropped.
    """

    snapshot_id: str
    built_at: datetime
    opted_out: list[OptOut]
    analytics_default: AnalyticsDefault = AnalyticsDefault.ALLOW
    default_since: datetime = datetime.min
    disputed: list[Disputed] = []

    @property
    def silence(self) -> Silence:
        """What this snapshot takes silence to say."""
        return Silence(self.analytics_default, self.default_since)

    def intervals(self, reason: str | None = None) -> dict[str, list[tuple[int, int]]]:
        """Opted-out stretches by device, in epoch microseconds; of one reason only where it is given."""
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for device_id, from_ts, to_ts, why in self.opted_out:
            if reason in (None, why):
                found[device_id].append((epoch_us(from_ts), epoch_us(to_ts) if to_ts else 2**63 - 1))
        return dict(found)


class Held(NamedTuple):
    """`subject` had `value` from `from_ts` up to `to_ts` (no end: still)."""

    subject: str
    value: Any
    from_ts: datetime
    to_ts: datetime | None


def build_consent_snapshot(
    store: ObjectStore, as_of: datetime, analytics_default: AnalyticsDefault
) -> ConsentSnapshot:
    """Derive the snapshot from records received up to `as_of` (naive UTC) and the ledgers, and store it."""
    redactions = load_redactions(store)
    silence = _silence_from(store, as_of, analytics_default)
    demands, assignments = read_demands(store, redactions, silence, as_of)
    opted_out, disputed = covered_by(demands, assignments, load_decisions(store))
    digest = hashlib.sha256(msgspec.json.encode(opted_out)).hexdigest()[:12]
    snapshot = ConsentSnapshot(f"{as_of:%Y%m%dT%H%M%S%f}-{digest}", as_of, opted_out, *silence, disputed)
    with contextlib.suppress(ObjectExistsError):  # The same moment and content: the same snapshot.
        store.put_new(layout.consent_key(snapshot.snapshot_id), msgspec.json.encode(snapshot))
    return snapshot


def read_demands(
    store: ObjectStore, redactions: Redactions, silence: Silence, as_of: datetime | None = None
) -> tuple[list[Demand], list[Assignment]]:
    """What households want kept out, by records received up to `as_of` (naive UTC; none: all) and the redaction
    ledger, and the assignments that say what it covers; both empty where nobody wants anything."""
    owners = read_records(store, "owners", ["consent_flags"], redactions, as_of).table
    flagged = owners.filter(pc.is_valid(owners["consent_flags"])).select(OwnerRecord._fields)
    said = statements(ANALYTICS, (OwnerRecord(**row) for row in flagged.to_pylist()))
    demands = erasures(redactions)
    is_silence_no = not allows(ANALYTICS, None, silence.analytics_default)
    if is_silence_no or not all(statement.is_allowed for statement in said):
        pets = read_records(store, "pets", ["owner_id"], redactions, as_of)
        silent = (
            unsaid({*_distinct(owners), *_distinct(pets.table)}, said, silence.default_since)
            if is_silence_no
            else []
        )
        refusing = {statement.owner_id for statement in [*silent, *said] if not statement.is_allowed}
        demands += refusals(
            (statement for statement in [*silent, *said] if statement.owner_id in refusing),
            stated_owners(pets, refusing),
        )
    return demands, read_assignments(store, redactions, as_of) if demands else []


def covered_by(
    demands: Iterable[Demand], assignments: Iterable[Assignment], decisions: Sequence[Decision]
) -> tuple[list[OptOut], list[Disputed]]:
    """What is dropped, with what a person decided to be theirs, and what is disputed and undecided."""
    stretches, disputed = divided(demands, assignments)
    going = decided_to_go(disputed, decisions)
    dropped = [*map(_opt_out, stretches), *map(_opt_out, going)]
    return merged_opt_outs(dropped), undecided(disputed, decisions)


def _opt_out(stretch: Stretch | Disputed) -> OptOut:
    return OptOut(stretch.device_id, stretch.from_ts, stretch.to_ts, stretch.reason)


def _silence_from(store: ObjectStore, as_of: datetime, analytics_default: AnalyticsDefault) -> Silence:
    """From when on this default holds. Without an earlier snapshot it always has; one that changes holds from
    then on, or a setting would delete what silent households were right to send before."""
    key = layout.consent_key(f"{as_of:%Y%m%dT%H%M%S%f}")
    before = _newest_snapshot(store, key)
    if before is None:
        return Silence(analytics_default, datetime.min)
    return (
        before.silence if before.analytics_default == analytics_default else Silence(analytics_default, as_of)
    )


def _newest_snapshot(store: ObjectStore, before: str | None = None) -> ConsentSnapshot | None:
    """The snapshot with the last key, of keys before one where it is given."""
    keys = (info.key for info in store.list(layout.CONSENT) if before is None or info.key < before)
    last = max(keys, default=None)
    return None if last is None else msgspec.json.decode(store.get(last), type=ConsentSnapshot)


def unsaid(owner_ids: Iterable[str], said: Iterable[Statement], since: datetime) -> list[Statement]:
    """Refusals of owners whose silence is one, from `since` on; of those who had not said it by then."""
    first_said: dict[str, datetime] = {}
    for statement in said:
        first_said.setdefault(statement.owner_id, statement.since)
    return [
        Statement(owner_id, False, since)
        for owner_id in sorted(owner_ids)
        if first_said.get(owner_id, datetime.max) > since
    ]


def _distinct(table: pa.Table) -> list[str]:
    """The owners that records name."""
    return [owner_id for owner_id in pc.unique(table["owner_id"]).to_pylist() if owner_id is not None]


def opt_outs(
    flags: Iterable[tuple[str, bool, datetime]],
    owners_of_pets: Iterable[tuple[str, str | None, datetime]],
    assignments: Iterable[tuple[str, str, datetime, datetime | None]],
) -> list[OptOut]:
    """Stretches in which a device was on a pet whose owner refused analytics, merged and sorted.

    `flags` and `owners_of_pets` as of `refusals`. What another pet claims, too, is left out.
    """
    stretches, _ = divided(refusals(flags, owners_of_pets), (Assignment(*one) for one in assignments))
    return merged_opt_outs(map(_opt_out, stretches))


def refusals(
    flags: Iterable[tuple[str, bool | None, datetime]],
    owners_of_pets: Iterable[tuple[str, str | None, datetime]],
) -> list[Demand]:
    """Pets whose owner refused analytics, with the time of it.

    `flags` (owner, allowed, since) and `owners_of_pets` (pet, owner, since) are in
    order of change. A pet's first known owner is taken as its owner before that,
    too: in doubt the refusal counts.
    """
    refused: dict[str, list[Held]] = defaultdict(list)
    for flag in _held(flags):
        if flag.value is False:
            refused[flag.subject].append(flag)
    return [
        Demand(
            ownership.value,
            pet_id,
            max(ownership.from_ts, refusal.from_ts),
            earliest(ownership.to_ts, refusal.to_ts),
            ANALYTICS_OPT_OUT,
        )
        for pet_id, owned in ownerships(owners_of_pets).items()
        for ownership in owned
        for refusal in refused[ownership.value]
    ]


def erasures(redactions: Redactions) -> list[Demand]:
    """What erased pets wore, as the redaction ledger has it."""
    return [
        Demand(owner_id, worn.pet_id, worn.from_ts, worn.to_ts, ERASED, worn.device_id)
        for entry in redactions
        for owner_id in entry.owner_ids
        for worn in entry.worn
    ]


def stated_owners(pets: LandedRecords, owner_ids: Iterable[str]) -> list[tuple[str, str | None, datetime]]:
    """What is said of the owner of every pet that one of `owner_ids` ever had: pet, owner (none: nobody) and
    since when, in order of change.

    A deletion, stated or derived, says nothing of the owner: a pet that is gone from its source has not left
    its household. A record of a clock that is ahead counts only where nothing else is said of its pet. Either
    way a refusal counts in doubt.
    """
    named = pc.is_in(pets.table["owner_id"], pa.array([*owner_ids], pa.string()))
    theirs = pets.of(pc.unique(pets.table.filter(named)["pet_id"]).to_pylist())
    said = [
        (change.key, change.row["owner_id"], change.changed_at)
        for change in theirs.changes()
        if change.row is not None
    ]
    described = {pet_id for pet_id, _, _ in said}
    ahead = [
        (row["pet_id"], row["owner_id"], row["changed_at"])
        for row in theirs.rows()
        if row["op"] != "delete" and row["pet_id"] not in described and is_dated_ahead(row)
    ]
    return [*ahead, *said]


def ownerships(owners_of_pets: Iterable[tuple[str, str | None, datetime]]) -> dict[str, list[Held]]:
    """Who owned each pet when; the first known owner is taken as its owner before that, too."""
    owned: dict[str, list[Held]] = defaultdict(list)
    for held in _held(owners_of_pets):
        known_before = owned[held.subject]
        known_before.append(held if known_before else held._replace(from_ts=datetime.min))
    return dict(owned)


def load_snapshot(store: ObjectStore, snapshot_id: str) -> ConsentSnapshot:
    """A stored snapshot. Raises ObjectMissingError."""
    return msgspec.json.decode(store.get(layout.consent_key(snapshot_id)), type=ConsentSnapshot)


def load_latest_snapshot(store: ObjectStore, now: datetime, max_age_s: float) -> ConsentSnapshot:
    """The latest snapshot. Raises ConsentSnapshotStaleError when there is none or it is too old."""
    snapshot = newest_snapshot(store)
    check_age(snapshot, now, max_age_s)
    return snapshot


def newest_snapshot(store: ObjectStore) -> ConsentSnapshot:
    """The latest snapshot, however old. Raises ConsentSnapshotStaleError when there is none."""
    snapshot = _newest_snapshot(store)
    if snapshot is None:
        raise ConsentSnapshotStaleError(
            "there is no consent snapshot, so nothing may be ingested; build one from the landed "
            "records (`petwellness extract`)"
        )
    return snapshot


def check_age(snapshot: ConsentSnapshot, now: datetime, max_age_s: float) -> None:
    """Raise ConsentSnapshotStaleError if a snapshot is older than allowed, or if its age cannot be told."""
    age = now - snapshot.built_at
    if age < -CLOCK_TOLERANCE:
        raise ConsentSnapshotStaleError(
            f"consent snapshot {snapshot.snapshot_id} was built {-age.total_seconds():.0f} s after what is "
            f"now {now:%Y-%m-%d %H:%M:%S} UTC here, so its age cannot be told; set the clock of this machine"
        )
    if age > timedelta(seconds=max_age_s):
        raise ConsentSnapshotStaleError(
            f"consent snapshot {snapshot.snapshot_id} is {age.total_seconds():.0f} s old, "
            f"{max_age_s:.0f} s are allowed (PETWELLNESS_COLLECTOR_CONSENT_MAX_AGE_S); "
            "build a new one (`petwellness extract`), or set the clock of this machine if it is wrong"
        )


def opted_out_rows(
    intervals: dict[str, list[tuple[int, int]]],
    device_ids: pa.ChunkedArray,
    arrival_us: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Which rows come from a device that was opted out when the message was received."""
    stretches = ((device, low, high) for device, found in intervals.items() for low, high in found)
    return rows_received_in(stretches, device_ids, arrival_us)


def drops_by_reason(
    snapshot: ConsentSnapshot, device_ids: pa.ChunkedArray, arrival_us: npt.NDArray[np.int64]
) -> dict[str, int]:
    """How many of these rows are dropped for which reason; every row counts once."""
    left = np.ones(len(device_ids), np.bool_)
    counts: Counter[str] = Counter()
    for reason in REASONS:
        dropped = left & opted_out_rows(snapshot.intervals(reason), device_ids, arrival_us)
        counts[reason] = int(np.count_nonzero(dropped))
        left &= ~dropped
    return dict(+counts)


def mentions_opted_out(
    intervals: dict[str, list[tuple[int, int]]], texts: Sequence[bytes | None], arrival_us: int
) -> bool:
    """Whether a message that is no event may come from an opted-out device: its id occurs anywhere in it."""
    return any(
        device_id.encode() in text
        for device_id, stretches in intervals.items()
        if any(low <= arrival_us < high for low, high in stretches)
        for text in texts
        if text
    )


def read_assignments(
    store: ObjectStore, redactions: Redactions, as_of: datetime | None = None
) -> list[Assignment]:
    """Every assignment that is there by what was received up to `as_of`, and those of erased pets, whose records
    are hidden and whose claims go on: the redaction ledger knows them."""
    columns = ["device_id", "pet_id", "assigned_from", "assigned_to"]
    landed = read_records(store, "device_assignments", columns, redactions, as_of)
    return [
        *_assignments(landed.changes()),
        *(claim_of(worn) for entry in redactions for worn in entry.worn),
    ]


def claim_of(worn: Worn) -> Assignment:
    """What an erased pet wore as the assignment that it was."""
    return Assignment(worn.device_id, worn.pet_id, worn.from_ts, worn.to_ts)


def _assignments(changes: Iterable[Change]) -> list[Assignment]:
    """The last state of each assignment, as the histories of the warehouse have it, without those of no device."""
    last = {change.key: change.row for change in changes}
    return [
        Assignment(row["device_id"], row["pet_id"] or None, row["assigned_from"], row["assigned_to"])
        for row in last.values()
        if row is not None and row["device_id"]
    ]


def _held(changes: Iterable[tuple[str, Any, datetime]]) -> list[Held]:
    by_subject: dict[str, list[tuple[Any, datetime]]] = defaultdict(list)
    for subject, value, since in changes:
        by_subject[subject].append((value, since))
    return [
        Held(subject, value, since, until)
        for subject, values in by_subject.items()
        for (value, since), until in zip(values, [*(since for _, since in values[1:]), None], strict=True)
    ]


def merged_opt_outs(opted_out: Iterable[OptOut]) -> list[OptOut]:
    """The same stretches by device and time; touching ones of one reason are one."""
    merged: list[OptOut] = []
    for one in sorted(opted_out, key=lambda o: (o.device_id, o.reason, o.from_ts)):
        before = merged[-1] if merged else None
        if before is None or (before.device_id, before.reason) != (one.device_id, one.reason):
            merged.append(one)
        elif before.to_ts is None or one.from_ts <= before.to_ts:
            to_ts = None if before.to_ts is None or one.to_ts is None else max(before.to_ts, one.to_ts)
            merged[-1] = before._replace(to_ts=to_ts)
        else:
            merged.append(one)
    return sorted(merged, key=lambda o: (o.device_id, o.from_ts, o.reason))
