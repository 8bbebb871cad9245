"""Which rejects count, and what they are: by reason, day, source system and decoder.

A reject object counts only if its range's main object, and so its manifest,
refers to it or a redaction put it in force; what else lies under `_rejects/` was
superseded. Payloads are read only on request, and in batches: a range may be
rejected whole. Landing replayed messages is in `replay`.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.columns import TIMESTAMP
from contracts.decoders import DECODERS
from contracts.telemetry import REJECT_REASONS
from ingestion.rejects.offsets import Offsets, OffsetSet
from lake import layout
from lake.landing import Claim, Manifest, read_claim, read_manifest
from lake.replacements import load_replacements
from lake.store import ObjectStore

BATCH_MESSAGES = 20_000
# Reject objects fetched together; a single larger one is fetched alone.
FETCH_BYTES = 32 * 1024 * 1024

Place = tuple[str, int]
"""`(stream_id, partition)` that messages were received on."""


class RejectFilterError(ValueError):
    """A filter names a reason, source system or decoder that does not exist; the text lists those that do."""


@dataclass(frozen=True, kw_only=True)
class RejectFilter:
    """Which rejects to look at; an empty field leaves all through.

    `decoders` are `name` or `name@version` of the decoder that rejected; `day` is
    the UTC date of receipt. Raises RejectFilterError.
    """

    reasons: Collection[str] = ()
    source_systems: Collection[str] = ()
    decoders: Collection[str] = ()
    day: date | None = None

    def __post_init__(self) -> None:
        _check_known("reason", self.reasons, REJECT_REASONS)
        _check_known("source system", self.source_systems, [d.source_system for d in DECODERS.values()])
        _check_known("decoder", [name.partition("@")[0] for name in self.decoders], DECODERS)

    def takes_range(self, manifest: Manifest) -> bool:
        """Whether a range may hold rejects that the filter takes."""
        name = manifest.decoder.partition("@")[0]
        return (
            manifest.reject_object is not None
            and (not self.reasons or not manifest.rejected_by_reason.keys().isdisjoint(self.reasons))
            and (not self.source_systems or manifest.source_system in self.source_systems)
            and (not self.decoders or manifest.decoder in self.decoders or name in self.decoders)
        )

    def count(self, manifest: Manifest) -> int:
        """Rejects of a range by the manifest alone, whatever their day."""
        counts = manifest.rejected_by_reason.items()
        return sum(count for reason, count in counts if not self.reasons or reason in self.reasons)

    def rows(self, rejects: pa.Table) -> pa.Table:
        """The rows of a range that the filter takes."""
        if self.reasons:
            rejects = rejects.filter(pc.is_in(rejects["reason"], pa.array([*self.reasons], pa.string())))
        if self.day is not None:
            start = datetime.combine(self.day, time())
            bounds = [pa.scalar(at, TIMESTAMP) for at in (start, start + timedelta(days=1))]
            arrival = rejects["arrival_ts"]
            rejects = rejects.filter(
                pc.and_(pc.greater_equal(arrival, bounds[0]), pc.less(arrival, bounds[1]))
            )
        return rejects


def _check_known(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    known = [*known]
    for name in given:
        if name not in known:
            raise RejectFilterError(f"there is no {kind} '{name}'; known: {', '.join(known)}")


@dataclass
class RejectCount:
    """Messages rejected for one reason: how many, how many of them a replay has landed since,
    how many have no payload (consent), so that they can never be replayed."""

    rejected: int = 0
    replayed: int = 0
    without_payload: int = 0


@dataclass(frozen=True)
class RejectedRange:
    """The rejects of one landed range that a filter takes."""

    manifest: Manifest
    by_reason: dict[str, int]
    replayed: int


@dataclass
class RejectList:
    """What a filter found. `examples` are rows of the reject schema and `replayed`, without
    `payload` unless asked for; `gone` counts rejects whose object is no longer stored."""

    by_reason: dict[str, RejectCount] = field(default_factory=dict)
    ranges: list[RejectedRange] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    gone: int = 0

    @property
    def total(self) -> RejectCount:
        """All reasons together."""
        counts = self.by_reason.values()
        return RejectCount(
            sum(c.rejected for c in counts),
            sum(c.replayed for c in counts),
            sum(c.without_payload for c in counts),
        )


def list_rejects(
    store: ObjectStore,
    manifests: Iterable[Manifest],
    where: RejectFilter,
    limit: int = 20,
    with_payload: bool = False,
) -> RejectList:
    """Count the rejects of landed ranges that `where` takes, with up to `limit` examples."""
    in_force = map(load_replacements(store).with_rejects_in_force, manifests)
    stored, gone = stored_ranges(store, filter(where.takes_range, in_force))
    settled = settled_offsets(store)
    nothing = OffsetSet()
    found = RejectList(gone=sum(where.count(manifest) for manifest in gone))
    counts: dict[str, RejectCount] = defaultdict(RejectCount)
    of_range: dict[layout.RangeKey, tuple[Counter[str], int]] = {}
    for manifest, rejects in read_rejects(store, stored):
        rejects = where.rows(rejects)
        done = settled.get((manifest.stream_id, manifest.partition), nothing).contains(offsets_in(rejects))
        reasons = rejects["reason"].to_pylist()
        bare = pc.is_null(rejects["payload"]).to_pylist()
        by_reason, replayed = of_range.get(manifest.range_key, (Counter(), 0))
        for reason, is_done, is_bare in zip(reasons, done.tolist(), bare, strict=True):
            count = counts[reason]
            count.rejected += 1
            count.replayed += is_done
            count.without_payload += is_bare
        by_reason.update(reasons)
        of_range[manifest.range_key] = by_reason, replayed + int(done.sum())
        found.examples += _examples(rejects, done, limit - len(found.examples), with_payload)
    found.by_reason = {reason: counts[reason] for reason in REJECT_REASONS if reason in counts}
    by_key = {manifest.range_key: manifest for manifest, _ in stored}
    found.ranges = [
        RejectedRange(by_key[key], dict(by_reason), replayed)
        for key, (by_reason, replayed) in of_range.items()
        if by_reason
    ]
    return found


def stored_ranges(
    store: ObjectStore, ranges: Iterable[Manifest]
) -> tuple[list[tuple[Manifest, int]], list[Manifest]]:
    """Ranges with the size of their reject object, ordered by partition and start; and those whose object is gone."""
    sizes = {info.key: info.size for info in store.list(layout.REJECTS)}
    ordered = sorted(ranges, key=lambda manifest: manifest.range_key)
    return (
        [(m, sizes[m.reject_object]) for m in ordered if m.reject_object in sizes],
        [m for m in ordered if m.reject_object not in sizes],
    )


def read_rejects(
    store: ObjectStore, ranges: Iterable[tuple[Manifest, int]]
) -> Iterator[tuple[Manifest, pa.Table]]:
    """The rejects of `stored_ranges` in batches, in the order given."""
    group: list[Manifest] = []
    group_bytes = 0
    for manifest, size in ranges:
        if group and group_bytes + size > FETCH_BYTES:
            yield from _read_group(store, group)
            group, group_bytes = [], 0
        group.append(manifest)
        group_bytes += size
    yield from _read_group(store, group)


def settled_offsets(store: ObjectStore) -> dict[Place, OffsetSet]:
    """By original partition, the offsets of rejects that replays have landed or dropped for consent."""
    finished = {layout.range_of(info.key) for info in store.list(f"{layout.MANIFESTS}{layout.REPLAYS}")}
    settled: dict[Place, OffsetSet] = defaultdict(OffsetSet)
    for range_key in sorted(finished):
        claim = read_claim(store, range_key)
        if is_settled(claim, read_manifest(store, range_key)):
            settled[original_place(claim)].add(claim.replayed or ())
    return dict(settled)


def is_settled(claim: Claim, manifest: Manifest) -> bool:
    """Whether a replay's range took its messages; one that was closed empty leaves them to the next."""
    return claim.replayed is not None and manifest.gap_reason is None


def original_place(claim: Claim) -> Place:
    """Where the messages that a replay's claim names were received."""
    return claim.stream_id.removeprefix(layout.REPLAYS), claim.partition


def offsets_in(rejects: pa.Table) -> Offsets:
    """The offsets of rows of reject objects."""
    found: Offsets = rejects["kafka_offset"].to_numpy().astype(np.int64, copy=False)
    return found


def _read_group(store: ObjectStore, group: Sequence[Manifest]) -> Iterator[tuple[Manifest, pa.Table]]:
    objects = store.get_many([manifest.reject_object or "" for manifest in group])
    for manifest, data in zip(group, objects, strict=True):
        for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(BATCH_MESSAGES):
            yield manifest, pa.Table.from_batches([batch])


def _examples(rejects: pa.Table, done: np.ndarray, limit: int, with_payload: bool) -> list[dict[str, Any]]:
    if limit <= 0:
        return []
    shown = rejects if with_payload else rejects.drop_columns(["payload"])
    shown = shown.append_column("replayed", pa.array(done))
    return shown.slice(0, limit).to_pylist()
