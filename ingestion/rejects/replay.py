"""Landing rejected messages that today's decoders take, each once.

Replays of a partition's rejects are one chain of claims in a stream of its own
(`layout.replay_stream`), landed by the landing protocol. A claim names the
original offsets it takes: a replay that dies is finished by the next one, of two
at once one takes a message, and what was taken is left out for good. What is still
bad stays the reject it was. Rows keep their original time of receipt, and the replay's
claim says whether that is believed. Reading and counting rejects is in `reading`.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import REJECT_SCHEMA
from contracts.decoders import DECODERS, Decoder
from contracts.telemetry import NOT_BEFORE
from ingestion.collector.consent import ConsentSnapshot, load_latest_snapshot, load_snapshot
from ingestion.collector.messages import Packed, pack
from ingestion.collector.ranges import DecoderVersionError, decode_messages, decoder_label
from ingestion.rejects.offsets import Offsets, OffsetSet, offsets_of, runs_of
from ingestion.rejects.reading import (
    RejectFilter,
    is_settled,
    offsets_in,
    original_place,
    read_rejects,
    stored_ranges,
)
from lake import layout
from lake.landing import (
    FILLED_BY_CLAIM,
    Claim,
    LandingError,
    Manifest,
    claim_range,
    feed_schema,
    land_range,
    list_manifests,
    read_claim,
    recover_range,
    utc_now,
)
from lake.replacements import load_replacements
from lake.store import ObjectStore

# A range of a replay is closed at either; both bound memory and the size of a claim.
CLAIM_MESSAGES = 20_000
CLAIM_BYTES = 32 * 1024 * 1024

# The limit of size was applied before the claim; finishing one must not depend on a setting changed since.
_ANY_SIZE = 2**31

_log = logging.getLogger(__name__)


class ReplayDecoderMissingError(LandingError):
    """Rejects come from a source system that no decoder of this release reads."""


@dataclass
class ReplayReport:
    """What a replay did, or would do; messages unless said otherwise.

    By reason of the original reject: `landed`, and `dropped` because the device is
    opted out now. `still_rejected` counts by today's reason. `before` were settled
    by another replay, `without_payload` cannot be replayed, `gone` are no longer
    stored. `ranges` were landed, `finished_claims` of a replay that died were
    finished, `closed_claims` closed empty because their decoder is not here.
    """

    landed: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    still_rejected: Counter[str] = field(default_factory=Counter)
    before: int = 0
    without_payload: int = 0
    gone: int = 0
    ranges: int = 0
    finished_claims: int = 0
    closed_claims: int = 0


def replay_rejects(
    store: ObjectStore,
    where: RejectFilter,
    *,
    consent_max_age_s: float,
    max_message_bytes: int,
    not_before: datetime = NOT_BEFORE,
    dry_run: bool = False,
    now: Callable[[], datetime] = utc_now,
    progress: Callable[[str], None] = lambda _: None,
) -> ReplayReport:
    """Decode the rejects that `where` takes with today's decoders and land what is good now.

    Claims that an earlier replay left unfinished are finished first, whatever
    `where` says. A dry run decodes and counts, and stores nothing.

    Raises ConsentSnapshotStaleError as ingestion does, ReplayDecoderMissingError.
    """
    consent = load_latest_snapshot(store, now(), consent_max_age_s)
    in_force = load_replacements(store).with_rejects_in_force
    manifests = [
        in_force(manifest) for manifest in list_manifests(store) if manifest.reject_object is not None
    ]
    replay = _Replay(store, manifests, consent, max_message_bytes, not_before, dry_run, now)
    if not dry_run:
        replay.finish_open_claims()
    stored, gone = stored_ranges(store, filter(where.takes_range, manifests))
    replay.report.gone = sum(where.count(manifest) for manifest in gone)

    def place_and_source(one: tuple[Manifest, int]) -> tuple[str, int, str]:
        return one[0].stream_id, one[0].partition, one[0].source_system

    for (stream_id, partition, source_system), ranges in groupby(stored, key=place_and_source):
        replay.run(stream_id, partition, source_system, ranges, where)
        progress(
            f"{stream_id}[{partition}]: {replay.report.landed.total():,} messages "
            f"{'would land' if dry_run else 'landed'} so far"
        )
    return replay.report


@dataclass(frozen=True)
class _Taken:
    """Decoded messages on their way into a claim: offset and reason of each, and the rows of those
    that are not dropped, still under their original offsets."""

    offsets: Offsets
    reasons: npt.NDArray[np.object_]
    rows: pa.Table

    def without(self, settled: OffsetSet) -> "_Taken":
        left = ~settled.contains(self.offsets)
        rows = self.rows.filter(pa.array(~settled.contains(offsets_in(self.rows))))
        return _Taken(self.offsets[left], self.reasons[left], rows)


def _together(parts: Sequence[_Taken]) -> _Taken:
    return _Taken(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.reasons for part in parts]),
        pa.concat_tables([part.rows for part in parts]),
    )


@dataclass
class _Chain:
    """The claims of one replay stream's partition: where they end, and which original offsets they settled."""

    stream_id: str
    partition: int
    end: int = 0
    settled: OffsetSet = field(default_factory=OffsetSet)


class _Replay:
    """One replay over all partitions."""

    def __init__(
        self,
        store: ObjectStore,
        manifests: list[Manifest],
        consent: ConsentSnapshot,
        max_message_bytes: int,
        not_before: datetime,
        dry_run: bool,
        now: Callable[[], datetime],
    ) -> None:
        self.report = ReplayReport()
        self._store = store
        self._manifests = manifests
        self._consent = consent
        self._max_message_bytes = max_message_bytes
        self._not_before = not_before
        self._dry_run = dry_run
        self._now = now
        self._me = uuid.uuid4().hex

    def finish_open_claims(self) -> None:
        """Finish what replays that died have claimed, in every stream."""
        listed = [
            {layout.range_of(info.key) for info in self._store.list(f"{root}{layout.REPLAYS}")}
            for root in (layout.CLAIMS, layout.MANIFESTS)
        ]
        for range_key in sorted(listed[0] - listed[1]):
            self._finish(read_claim(self._store, range_key))
            self.report.finished_claims += 1

    def run(
        self,
        stream_id: str,
        partition: int,
        source_system: str,
        ranges: Iterable[tuple[Manifest, int]],
        where: RejectFilter,
    ) -> None:
        """Replay the rejects of one partition."""
        decoder = _decoder_of_source(source_system)
        chain = self._read_chain(layout.replay_stream(stream_id), partition)
        waiting: list[_Taken] = []
        for manifest, rejects in read_rejects(self._store, ranges):
            terms = self._terms(chain, decoder, manifest.feed)
            waiting.append(self._decode(terms, chain, where.rows(rejects)))
            if self._dry_run:
                self._count(waiting.pop())
            elif (
                sum(len(part.offsets) for part in waiting) >= CLAIM_MESSAGES
                or sum(part.rows.nbytes for part in waiting) >= CLAIM_BYTES
            ):
                self._land(terms, chain, _together(waiting))
                waiting = []
        if waiting:
            self._land(terms, chain, _together(waiting))

    def _read_chain(self, stream_id: str, partition: int) -> _Chain:
        """Follow a chain from its start, helping claims that another replay has under way."""
        chain = _Chain(stream_id, partition)
        prefix = layout.claims_prefix(stream_id, partition)
        starts = {layout.range_of(info.key)[2] for info in self._store.list(prefix)}
        # Link by link: a listing may show a claim and miss the one before, stored while it was made.
        while chain.end in starts:
            self._follow(chain, read_claim(self._store, (stream_id, partition, chain.end)))
        return chain

    def _follow(self, chain: _Chain, claim: Claim) -> None:
        """Go on after a stored claim, once it is finished (in a dry run: as if it were)."""
        if self._dry_run or is_settled(claim, self._finish(claim)):
            chain.settled.add(claim.replayed or ())
        chain.end = claim.end

    def _terms(self, chain: _Chain, decoder: Decoder, feed: str) -> Claim:
        """A claim that still lacks bounds: what rejects are decoded under."""
        return Claim(
            stream_id=chain.stream_id,
            partition=chain.partition,
            start=0,
            end=0,
            feed=feed,
            source_system=decoder.source_system,
            decoder=decoder_label(decoder),
            claimed_at=self._now(),
            claimed_by=self._me,
            consent_snapshot_id=self._consent.snapshot_id,
            not_before=self._not_before,
        )

    def _decode(self, terms: Claim, chain: _Chain, rejects: pa.Table) -> _Taken:
        """What is good now, or dropped for consent, of a batch; the rest is counted."""
        before = chain.settled.contains(offsets_in(rejects))
        bare = pc.is_null(rejects["payload"]).to_numpy()
        self.report.before += int(before.sum())
        self.report.without_payload += int((bare & ~before).sum())
        rejects = rejects.filter(pa.array(~(before | bare)))
        content = decode_messages(terms, [_messages(rejects)], self._consent, self._max_message_bytes)
        self.report.still_rejected.update(content.rejects["reason"].to_pylist())
        taken = ~np.isin(offsets_in(rejects), offsets_in(content.rejects))
        reasons = np.array(rejects["reason"].to_pylist(), object)
        return _Taken(offsets_in(rejects)[taken], reasons[taken], content.table)

    def _land(self, terms: Claim, chain: _Chain, taken: _Taken) -> None:
        """Claim what no other replay took in the meantime, and land it."""
        while True:
            mine = taken.without(chain.settled)
            self.report.before += len(taken.offsets) - len(mine.offsets)
            taken = mine
            if not len(taken.offsets):
                return
            claim = msgspec.structs.replace(
                terms,
                start=chain.end,
                end=chain.end + len(taken.offsets),
                replayed=runs_of(np.sort(taken.offsets)),
            )
            stored = claim_range(self._store, claim)
            if stored == claim:
                self._land_rows(claim, taken.rows, len(taken.offsets) - taken.rows.num_rows)
                self._count(taken)
                self.report.ranges += 1
                chain.settled.add(claim.replayed or ())
                chain.end = claim.end
                return
            self._follow(chain, stored)

    def _land_rows(self, claim: Claim, rows: pa.Table, dropped: int) -> Manifest:
        """Land rows under the offsets of the claim's range; what is neither row nor dropped is a gap."""
        originals = offsets_of(claim.replayed or ())
        offsets = claim.start + np.searchsorted(originals, offsets_in(rows))
        at = rows.schema.get_field_index("kafka_offset")
        return land_range(
            self._store,
            claim,
            rows.set_column(at, "kafka_offset", pa.array(offsets, pa.int64())),
            consent_dropped=dropped,
            offset_gaps=claim.end - claim.start - rows.num_rows - dropped,
        )

    def _finish(self, claim: Claim) -> Manifest:
        """Bring a stored claim to its manifest, under its own terms.

        Messages that are no longer stored become gaps. A claim for a decoder that is
        not here is closed empty: its messages stay rejects, for the next claim.
        """
        landed = recover_range(self._store, claim)
        if landed is not None:
            return landed
        messages = self._messages_of(claim)
        try:
            content = decode_messages(claim, [messages], self._consent_of(claim), _ANY_SIZE)
        except DecoderVersionError:
            reason = f"decoder {claim.decoder} is not here to finish the replay"
            _log.warning("%s[%d]: claim of %d closed empty: %s", *claim.range_key, reason)
            self.report.closed_claims += 1
            closed = msgspec.structs.replace(claim, gap_reason=reason)
            return land_range(self._store, closed, _no_rows(claim), offset_gaps=claim.end - claim.start)
        return self._land_rows(claim, content.table, content.consent_dropped)

    def _messages_of(self, claim: Claim) -> Packed:
        """The messages that a claim names, as far as they are stored."""
        wanted = OffsetSet(claim.replayed or ())
        of_place = (m for m in self._manifests if (m.stream_id, m.partition) == original_place(claim))
        stored, _ = stored_ranges(self._store, of_place)
        found = [
            rejects.filter(pa.array(wanted.contains(offsets_in(rejects))))
            for _, rejects in read_rejects(
                self._store, [one for one in stored if wanted.meets(*_bounds(one[0]))]
            )
        ]
        rejects = pa.concat_tables(found) if found else REJECT_SCHEMA.empty_table()
        return _messages(rejects.filter(pc.is_valid(rejects["payload"])))

    def _consent_of(self, claim: Claim) -> ConsentSnapshot:
        if claim.consent_snapshot_id in (None, self._consent.snapshot_id):
            return self._consent
        return load_snapshot(self._store, claim.consent_snapshot_id or "")

    def _count(self, taken: _Taken) -> None:
        kept = np.isin(taken.offsets, offsets_in(taken.rows))
        self.report.landed.update(taken.reasons[kept].tolist())
        self.report.dropped.update(taken.reasons[~kept].tolist())


def _decoder_of_source(source_system: str) -> Decoder:
    for decoder in DECODERS.values():
        if decoder.source_system == source_system:
            return decoder
    raise ReplayDecoderMissingError(
        f"no decoder reads source system '{source_system}' any more; leave its rejects out with --source"
    )


def _bounds(manifest: Manifest) -> tuple[int, int]:
    return manifest.start, manifest.end


def _messages(rejects: pa.Table) -> Packed:
    arrival_us = rejects["arrival_ts"].cast(pa.int64()).to_numpy()
    keys = pack([b""] * rejects.num_rows)
    return Packed(offsets_in(rejects), arrival_us // 1000, keys, pack(rejects["payload"].to_pylist()))


def _no_rows(claim: Claim) -> pa.Table:
    names = [column for column in feed_schema(claim.feed) if column.name not in FILLED_BY_CLAIM]
    return pa.schema(names).empty_table()
