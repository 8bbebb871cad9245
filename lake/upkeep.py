"""Upkeep of compacted days: which ones wait, whether a snapshot holds what landed, what may be removed.

Nothing is compacted here; `compaction` does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.registry import TELEMETRY_FEED
from lake import catalogue, layout
from lake.compaction import closed_before, fetch, lacks_released_rows, micros, sort_memory_bytes
from lake.landing import day_manifests
from lake.progress import superseded_marks
from lake.proof import LeftOut, Proof, RedactedArrivals, prove_same_rows
from lake.quarantine import QuarantinedOffsets
from lake.scratch import scratch_folder
from lake.snapshots import InForce, Snapshot, as_landed, latest_snapshot
from lake.sql import connect, telemetry_sql
from lake.store import ObjectStore

if TYPE_CHECKING:
    from lake.settings import CompactionSettings

# How far back days without a snapshot and late ranges are looked for, unless all days are asked for.
LOOK_BACK = timedelta(days=35)


@dataclass(frozen=True)
class WaitingDay:
    """An arrival day to compact: ranges landed, ranges in its snapshot (0 without one), and the reason."""

    day: date
    ranges: int
    compacted_ranges: int
    reason: str


@dataclass(frozen=True)
class Removable:
    """An object that nothing names any more."""

    key: str
    bytes: int
    reason: str


@dataclass(frozen=True)
class DayProof:
    """Whether a snapshot holds what landed: the comparison by content, and what else does not add up.

    `late_ranges` landed after the snapshot was taken; readers take them from landing files.
    """

    day: date
    snapshot: Snapshot | None
    proof: Proof
    late_ranges: int
    findings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.findings


def ranges_by_day(store: ObjectStore) -> Counter[date]:
    """Landed telemetry ranges by arrival day, from the catalogue and the listing beyond it."""
    generation = catalogue.newest_generation(store)
    counted: Counter[date] = Counter()
    for segment in generation.segments if generation else ():
        counted.update(segment.days.get(TELEMETRY_FEED, {}))
    tail = catalogue.tail_keys(store, layout.MANIFESTS, generation)
    counted.update(
        day for feed, day in catalogue.feeds_and_days(store.get_many(tail)) if feed == TELEMETRY_FEED
    )
    return counted


def waiting_days(
    store: ObjectStore,
    settings: CompactionSettings,
    now: datetime,
    redactions: Sequence[LeftOut] = (),
    since: date | None = None,
) -> list[WaitingDay]:
    """Closed arrival days with ranges or redactions that their snapshot lacks, oldest first.

    Ranges are looked for back to `since`, by default 35 days before `now` (naive UTC).
    Redactions reach any day: with them every day's snapshot is read.
    """
    first = since or (now - LOOK_BACK).date()
    before = closed_before(now, settings.grace_s)
    found = []
    for day, ranges in sorted(ranges_by_day(store).items()):
        if day >= before or (day < first and not redactions):
            continue
        snapshot = latest_snapshot(store, day)
        reason = _missing_ranges(snapshot, ranges) if day >= first else ""
        reason = reason or (_missing_redactions(snapshot, redactions) if snapshot else "")
        if reason:
            found.append(WaitingDay(day, ranges, len(snapshot.ranges) if snapshot else 0, reason))
    return found


def _missing_ranges(snapshot: Snapshot | None, ranges: int) -> str:
    if snapshot is None:
        return "not compacted yet"
    return "ranges landed late" if ranges > len(snapshot.ranges) else ""


def _missing_redactions(snapshot: Snapshot, redactions: Sequence[LeftOut]) -> str:
    return _missing_quarantine(
        snapshot, [one for one in redactions if isinstance(one, QuarantinedOffsets)]
    ) or _missing_arrivals(snapshot, [one for one in redactions if not isinstance(one, QuarantinedOffsets)])


def _missing_quarantine(snapshot: Snapshot, quarantined: Sequence[QuarantinedOffsets]) -> str:
    if lacks_released_rows(snapshot, quarantined):
        return "rows were released from quarantine"
    applied = set(snapshot.redactions)
    pending = any(
        one.redaction_id not in applied
        and not one.is_released
        and any(one.span.meets(s.stream_id, s.partition, s.start, s.end) for s in snapshot.ranges)
        for one in quarantined
    )
    return "rows were quarantined" if pending else ""


def _missing_arrivals(snapshot: Snapshot, redactions: Sequence[RedactedArrivals]) -> str:
    low = min((file.min_arrival_ts for file in snapshot.files), default=None)
    high = max((file.max_arrival_ts for file in snapshot.files), default=None)
    if low is None or high is None:
        return ""
    applied = set(snapshot.redactions)
    pending = any(
        r.redaction_id not in applied and r.from_us <= micros(high) and r.to_us > micros(low)
        for r in redactions
    )
    return "rows were redacted" if pending else ""


def prove_day(
    store: ObjectStore,
    day: date,
    settings: CompactionSettings,
    scratch: Path,
    redactions: Sequence[LeftOut] = (),
    in_force: InForce = as_landed,
    say: Callable[[str], None] = lambda _: None,
) -> DayProof:
    """Hold a day's snapshot against the objects its ranges landed as, by content and by key.

    Raises DamagedObjectError naming an object that is missing or altered.
    """
    snapshot = latest_snapshot(store, day)
    manifests = day_manifests(store, TELEMETRY_FEED, day)
    if snapshot is None:
        return DayProof(day, None, Proof(0, 0), len(manifests), ())
    by_key = {m.range_key: m for m in manifests}
    covered = [by_key[s.range_key] for s in snapshot.ranges if s.range_key in by_key]
    landed = [stored for stored in map(in_force, covered) if stored.rows]
    honoured = [r for r in redactions if r.redaction_id in set(snapshot.redactions)]
    with scratch_folder(scratch, "proof") as folder:
        before = fetch(store, [(stored.key, stored.sha256) for stored in landed], folder, say)
        after = fetch(store, [(file.key, file.sha256) for file in snapshot.files], folder, say)
        proof = Proof(0, 0)
        if before or after:
            spill = folder / "spill"
            spill.mkdir()
            with connect(
                memory_bytes=sort_memory_bytes(settings),
                scratch=spill,
                scratch_bytes=settings.scratch_bytes,
            ) as con:
                queries = [telemetry_sql(con, paths) if paths else "" for paths in (before, after)]
                some = next(query for query in queries if query)
                nothing = f"from ({some}) where false"
                proof = prove_same_rows(con, queries[0] or nothing, queries[1] or nothing, honoured)
    return DayProof(
        day,
        snapshot,
        proof,
        late_ranges=len(by_key.keys() - {s.range_key for s in snapshot.ranges}),
        findings=tuple(_findings(snapshot, by_key.keys(), proof, sum(m.rows for m in covered))),
    )


def _findings(
    snapshot: Snapshot, landed: Iterable[layout.RangeKey], proof: Proof, landed_rows: int
) -> Iterable[str]:
    yield from proof.differences
    unknown = sorted({s.range_key for s in snapshot.ranges} - set(landed))
    yield from (f"{key}: in the snapshot, but no such range landed" for key in unknown)
    if len({s.range_key for s in snapshot.ranges}) != len(snapshot.ranges):
        yield "a range is in the snapshot twice"
    if not snapshot.rows == proof.rows_after == sum(file.rows for file in snapshot.files):
        yield f"the snapshot says {snapshot.rows:,} rows, its files hold {proof.rows_after:,}"
    if snapshot.rows + snapshot.redacted_rows != landed_rows:
        yield (
            f"{snapshot.rows:,} rows and {snapshot.redacted_rows:,} redacted are not the"
            f" {landed_rows:,} that landed"
        )


def clean(
    store: ObjectStore,
    settings: CompactionSettings,
    now: datetime,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Removable]:
    """Remove compacted and catalogue files that nothing has named, and marks that newer ones supersede, for the allowed
    age; what they were.

    Those of a compaction that died or lost, and those of snapshots and generations
    that were superseded: a reader that opened them has had that long. With `dry_run`
    nothing is removed.
    """
    before = now - timedelta(seconds=settings.clean_after_s)
    found = [
        *_unnamed_compacted(store, before),
        *_unnamed_catalogue(store, before),
        *_old_marks(store, before),
    ]
    for item in found:
        say(f"{'would remove' if dry_run else 'removes'} {item.key} ({item.bytes:,} bytes): {item.reason}")
        if not dry_run:
            store.delete(item.key)
    return found


def _old_marks(store: ObjectStore, before: datetime) -> Iterable[Removable]:
    for key, size in superseded_marks(store, before):
        yield Removable(key, size, "newer progress marks say as much")


def _unnamed_compacted(store: ObjectStore, before: datetime) -> Iterable[Removable]:
    old = []
    for info in store.list(layout.COMPACTED):
        day, written_at = layout.compacted_of(info.key)
        if written_at < before:
            old.append((day, info))
    snapshots = {day: latest_snapshot(store, day) for day in {day for day, _ in old}}
    for day, info in old:
        snapshot = snapshots[day]
        if snapshot is None:
            yield Removable(info.key, info.size, "no snapshot of the day was ever written")
        elif snapshot.created_at < before and info.key not in {file.key for file in snapshot.files}:
            yield Removable(info.key, info.size, f"snapshot {snapshot.n} does not name it")


def _unnamed_catalogue(store: ObjectStore, before: datetime) -> Iterable[Removable]:
    named: set[str] = set()
    is_history = False
    for info in store.list(layout.GENERATIONS):
        # From the newest on: the first one older than the age was in force when the age began.
        if is_history:
            yield Removable(info.key, info.size, "a later generation of the catalogue is in force")
            continue
        generation = catalogue.read_generation(store, info.key)
        named |= {segment.key for segment in generation.segments}
        is_history = generation.created_at < before
    for info in store.list(layout.SEGMENTS):
        if info.key not in named and layout.segment_written_at(info.key) < before:
            yield Removable(info.key, info.size, "no generation of the catalogue names it")
