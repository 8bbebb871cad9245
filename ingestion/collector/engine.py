"""The collector's engine: from topics to landed ranges, with two drivers.

`Collector.drain` stops at the end of every partition, `Collector.run_forever` when
it is told to. One record's way: `_buffer` takes it from the consumer into its
partition's buffer; `_rotate` closes a range when one is due; `_close` has it claimed
by a thread of the claimers; `_settle_claims` hands the claimed range to a lander,
whose thread decodes it, drops what consent forbids and writes rejects, main object
and manifest (`_land_range`); `_settle_landings` commits. Only consuming and deciding
happen in the calling thread. Where to resume is in `recovery`, when a range is due in
`buffer`, retrying after failures in `service`. Scale by group members.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from contracts.decoders import DECODERS, Decoder
from contracts.registry import TELEMETRY_FEED
from ingestion.broker.client import BrokerClient, Stream, unreachable
from ingestion.broker.embedded import stream_prefix
from ingestion.collector.buffer import Buffer, Rotation
from ingestion.collector.consent import (
    ConsentSnapshot,
    ConsentSnapshotStaleError,
    check_age,
    load_latest_snapshot,
    load_snapshot,
)
from ingestion.collector.consume import divided, runs
from ingestion.collector.messages import Packed
from ingestion.collector.ranges import decode_messages, decoder_label, land_content
from ingestion.collector.recovery import LogTruncatedError, close_dead_streams, resume
from ingestion.collector.report import DrainReport, Landed
from lake.landing import Claim, Manifest, claim_range, recover_range, utc_now
from lake.progress import PartitionSeen, ProgressMark, put_progress
from lake.store import ObjectStore

if TYPE_CHECKING:
    from ingestion.settings import CollectorSettings

# Batches of 2,000 cost a third less per message than those of 10,000, which leave the processor's cache.
CONSUME_MESSAGES = 2_000
POLL_S = 0.05
# Claiming and landing are mostly waiting for the store: two syncs of 6 ms an object on a local disk,
# round trips on S3.
CLAIMERS = 4
# Each range on its way takes three times its messages' memory while it is decoded and encoded.
LANDERS = 2
GC_THRESHOLD = 100_000
# The embedded broker keeps 5 MB per partition and its producer stops at 4: land well before that.
EMBEDDED_ROTATE_BYTES = 2_400_000
# At the end of the log more may be on its way; wait this long before a small range is closed.
LINGER_S = 0.3
# Above the bound on memory the loop waits this long for the lake before it pauses: pausing throws
# away what the client has prefetched.
PATIENCE_S = 2.0
PROGRESS_EVERY_S = 0.5
# How often a progress mark is left, and how long its collector may wait for the broker's word on all ends.
MARK_EVERY_S = 60.0
MARK_PATIENCE_S = 2.0
# How often a new consent snapshot is looked for.
CONSENT_REFRESH_S = 60.0

_log = logging.getLogger(__name__)


class DrainIdleError(Exception):
    """Nothing arrived for the idle timeout although the drain was told to wait for more."""


class StopTimeoutError(Exception):
    """The lake did not take in time what was buffered when the collector was stopped; the next start will."""


@dataclass(slots=True)
class _Closing:
    """A range that was closed and is being claimed."""

    claim: Claim
    messages: Buffer
    reason: str
    answer: Future[Claim]


@dataclass
class _Partition:
    """An assigned partition: what is buffered from `start` on, and which claims have to be finished first.

    `log_end` is where the log ended when its end was last seen; it may have grown since.
    """

    stream: Stream
    number: int
    decoder: Decoder
    start: int
    position: int
    replay: deque[Claim]
    buffer: Buffer = field(default_factory=Buffer)
    closing: _Closing | None = None
    log_end: int = -1

    @property
    def name(self) -> str:
        return f"{self.stream.topic}[{self.number}]"

    @property
    def at_end(self) -> bool:
        return self.log_end >= self.position

    @property
    def held_bytes(self) -> int:
        return self.buffer.held_bytes + (self.closing.messages.held_bytes if self.closing else 0)

    @property
    def is_idle(self) -> bool:
        return not self.buffer and not self.closing and not self.replay


@dataclass(frozen=True, slots=True)
class _Landing:
    """A claimed range on its way into the lake; `partition` is as it was assigned then."""

    partition: _Partition
    claim: Claim
    messages: Buffer
    reason: str
    done: Future[_Done]


@dataclass(frozen=True, slots=True)
class _Done:
    """A landed range, by when, and how long it took."""

    manifest: Manifest
    landed_at: float
    landing_s: float


class Collector:
    """Lands the messages of some topics. Use it once: one driver call, then it is closed.

    `on_landed` hears of every range from the calling thread. Raises
    BrokerUnreachableError, StoreUnreachableError, ConsentSnapshotStaleError as early as
    they can be known.
    """

    def __init__(
        self,
        client: BrokerClient,
        store: ObjectStore,
        settings: CollectorSettings,
        topics: Sequence[str],
        *,
        now: Callable[[], datetime] = utc_now,
        on_landed: Callable[[Landed], None] | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._now = now
        self._on_landed = on_landed
        self._decoders = {decoder.topic: decoder for decoder in DECODERS.values() if decoder.topic in topics}
        unknown = set(topics) - set(self._decoders)
        if unknown:
            raise KeyError(f"no decoder for topic {', '.join(sorted(unknown))}")
        self._me = uuid.uuid4().hex
        self._claimers = ThreadPoolExecutor(CLAIMERS, thread_name_prefix="claiming")
        # One thread per group of partitions, so that each partition lands in order.
        self._landers = [ThreadPoolExecutor(1, thread_name_prefix="landing") for _ in range(LANDERS)]
        self._landings: deque[_Landing] = deque()
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._streams: dict[str, Stream] = {}
        self._consent: ConsentSnapshot | None = None
        self._consent_read_at = 0.0
        self._snapshots: dict[str, ConsentSnapshot] = {}
        self._broker_down: str | None = None
        self._assigned = False
        self._paused = False
        self._stopping = False
        self.report = DrainReport()
        self._progressed_at = 0.0
        self._marked_at = time.monotonic()
        self._marking: Future[None] | None = None

    def drain(
        self,
        until: Callable[[], bool] | None = None,
        idle_timeout_s: float = 60.0,
        progress: Callable[[DrainReport], None] | None = None,
    ) -> DrainReport:
        """Land everything up to the end of every partition and, if given, until `until()` is true as well.

        Raises DrainIdleError when nothing arrives for `idle_timeout_s` while `until`
        is still false or some partition's end has not been seen.
        """
        waited_for = False

        def done(quiet_s: float) -> bool:
            nonlocal waited_for
            if until is not None and not waited_for:
                if not until():
                    return False
                # What was produced just before may still be on its way: one more quiet moment.
                waited_for = True
                return False
            if until is not None and quiet_s < LINGER_S:
                return False
            return self._caught_up()

        return self._run(done, progress, idle_timeout_s, linger_s=0.0 if until is None else LINGER_S)

    def run_forever(
        self, stop: threading.Event, progress: Callable[[DrainReport], None] | None = None
    ) -> DrainReport:
        """Land until `stop` is set (as on SIGTERM); then land what is buffered and leave the group.

        Raises StopTimeoutError when the lake takes longer for that than the settings
        allow; `report.left_by_partition` then says how much the next start takes up.
        """
        return self._run(lambda _: stop.is_set(), progress, None, linger_s=None)

    def _run(
        self,
        done: Callable[[float], bool],
        progress: Callable[[DrainReport], None] | None,
        idle_timeout_s: float | None,
        linger_s: float | None,
    ) -> DrainReport:
        started = last_message = time.monotonic()
        thresholds = gc.get_threshold()
        consumer: Any = None
        try:
            self._store.check()
            self._latest_consent()
            self._close_dead_streams()
            self._streams = self._client.streams([*self._decoders])
            rotation = self._rotation(linger_s)
            consumer = self._client.consumer(error_cb=self._on_error)
            # Consumed messages are many objects without cycles; looking for cycles among them costs a sixth.
            gc.set_threshold(GC_THRESHOLD, *thresholds[1:])
            consumer.subscribe(
                [*self._decoders],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while True:
                batch = consumer.consume(CONSUME_MESSAGES, POLL_S)
                moment = time.monotonic()
                if batch:
                    self._buffer(batch, moment)
                    last_message, self._broker_down = moment, None
                self._settle_claims()
                self._rotate(rotation, moment)
                self._settle_landings(consumer)
                self._hold_back(consumer)
                self._mark(consumer)
                self._tell(consumer, started, progress)
                quiet_s = time.monotonic() - last_message
                if done(quiet_s):
                    break
                self._check_life(quiet_s, idle_timeout_s)
            self._finish(consumer)
            if linger_s is not None:
                put_progress(self._store, self._seen(consumer, self._client.settings.connect_timeout_s))
        finally:
            gc.set_threshold(*thresholds)
            self._shut_down(consumer)
        self.report.settle(started)
        return self.report

    def _rotation(self, linger_s: float | None) -> Rotation:
        rotate_bytes = self._settings.rotate_bytes
        if self._client.embedded:
            rotate_bytes = min(rotate_bytes, EMBEDDED_ROTATE_BYTES)
        return Rotation(self._settings.rotate_rows, rotate_bytes, self._settings.rotate_age_s, linger_s)

    # Assignment

    def _on_assign(self, consumer: Any, assigned: list[Any]) -> None:
        self._assigned = True
        for place in assigned:
            partition = self._resume(consumer, place)
            self._partitions[place.topic, place.partition] = partition
            place.offset = partition.position
        consumer.incremental_assign(assigned)
        if self._paused:
            consumer.pause(assigned)

    def _on_revoke(self, consumer: Any, revoked: list[Any]) -> None:
        # The next owner reads again whatever is buffered here, and finishes what is claimed.
        for place in revoked:
            self._partitions.pop((place.topic, place.partition), None)

    def _resume(self, consumer: Any, place: Any) -> _Partition:
        stream, decoder = self._streams[place.topic], self._decoders[place.topic]
        low, high = self._log_bounds(consumer, place)
        found = resume(self._store, stream, place.partition, low, high)
        while low > found.chain_end:
            reason = f"the log starts at {low}"
            gap = self._claim(stream, place.partition, decoder, found.chain_end, low, gap_reason=reason)
            if claim_range(self._store, gap) == gap:
                _log.warning(
                    "%s[%d]: offsets %d to %d are gone: %s",
                    stream.topic,
                    place.partition,
                    gap.start,
                    low,
                    reason,
                )
                self.report.gap_claims += 1
                found.unfinished.append(gap)
                break
            # Somebody claimed there meanwhile, and may hold messages that the log has lost.
            found = resume(self._store, stream, place.partition, low, high)
        for manifest in found.finished:
            self.report.recovered_claims += 1
            self._count(Landed(stream.topic, manifest, "manifest", time.monotonic()))
        return _Partition(
            stream, place.partition, decoder, found.start, max(found.start, low), found.unfinished
        )

    def _log_bounds(self, consumer: Any, place: Any) -> tuple[int, int]:
        from confluent_kafka import KafkaException

        try:
            bounds = consumer.get_watermark_offsets(place, timeout=self._client.settings.connect_timeout_s)
        except KafkaException as error:
            raise unreachable(self._client.bootstrap_servers, error.args[0].str()) from error
        return bounds

    def _close_dead_streams(self) -> None:
        card = self._client.card
        if card is not None:
            self.report.recovered_claims += close_dead_streams(
                self._store, stream_prefix(self._client.card_path), set(card.streams.values())
            )

    # From the consumer into buffers

    def _buffer(self, batch: list[Any], moment: float) -> None:
        """Buffer consumed messages and note ends of partitions."""
        messages, events = divided(batch)
        for run in runs(messages):
            partition = self._partitions.get((run.topic, run.partition))
            if partition is None:
                continue  # Revoked while this batch was on its way.
            if run.offsets[0] < partition.position:
                raise LogTruncatedError(
                    f"{partition.name} delivered offset {run.offsets[0]} after {partition.position - 1}: "
                    "its log was replaced"
                )
            partition.position = run.offsets[-1] + 1
            self.report.messages += len(run.offsets)
            self.report.bytes += partition.buffer.add(
                moment, run.offsets, run.arrival_ms, run.keys, run.values
            )
        for event in events:
            self._note(event)

    def _note(self, event: Any) -> None:
        from confluent_kafka import KafkaError, KafkaException

        error = event.error()
        if error.code() == KafkaError._PARTITION_EOF:
            partition = self._partitions.get((event.topic(), event.partition()))
            if partition is not None:
                partition.log_end = event.offset()
        elif not error.retriable():
            raise KafkaException(error)

    # From buffers to claimed ranges

    def _rotate(self, rotation: Rotation, moment: float) -> None:
        """Finish claims whose messages are all here, and close the ranges that are due."""
        for partition in self._partitions.values():
            self._finish_replays(partition)
            if self._may_close(partition):
                reason = rotation.due(partition.buffer, moment, partition.at_end)
                if reason is not None:
                    self._close(partition, reason)
        # Half the bound for buffers leaves the other half to ranges on their way.
        buffered = sum(partition.buffer.held_bytes for partition in self._partitions.values())
        while buffered > self._settings.max_held_bytes // 2:
            closable = [partition for partition in self._partitions.values() if self._may_close(partition)]
            if not closable:
                return
            largest = max(closable, key=lambda partition: partition.buffer.held_bytes)
            buffered -= largest.buffer.held_bytes
            self._close(largest, "memory")

    @staticmethod
    def _may_close(partition: _Partition) -> bool:
        return bool(partition.buffer) and not partition.closing and not partition.replay

    def _close(self, partition: _Partition, reason: str) -> None:
        """Have what is buffered claimed; meanwhile the partition goes on behind it."""
        claim = self._claim(
            partition.stream, partition.number, partition.decoder, partition.start, partition.position
        )
        answer = self._claimers.submit(self._claim_range, partition.stream, claim, time.monotonic())
        partition.closing = _Closing(claim, partition.buffer.take(claim.end), reason, answer)

    def _claim_range(self, stream: Stream, claim: Claim, consumed_by: float) -> Claim:
        """Claim a range, once it is sure that its messages came from the stream it names.

        A topic that is recreated goes on under the same name, and the client may not
        notice. Ids never come back: if the topic has this id after the range was
        consumed, it had it all the time. Raises StreamReplacedError.
        """
        self._client.confirm(stream, consumed_by)
        return claim_range(self._store, claim)

    def _settle_claims(self) -> None:
        """Land the ranges whose claim is ours; where another came first, follow that claim."""
        for partition in self._partitions.values():
            closing = partition.closing
            if closing is None or not closing.answer.done():
                continue
            stored = closing.answer.result()
            partition.closing = None
            if stored == closing.claim:
                self.report.rotations_by_reason[closing.reason] += 1
                self._land(partition, stored, closing.messages, closing.reason)
            else:
                self.report.claims_lost += 1
                _log.info("%s: [%d, ...) is claimed already, following it", partition.name, stored.start)
                partition.buffer.put_back(closing.messages)
                partition.replay.append(stored)

    def _finish_replays(self, partition: _Partition) -> None:
        """Land the ranges that another claimed, as soon as all their messages are here."""
        while partition.replay:
            claim = partition.replay[0]
            # Offsets may be sparse, so the last one before the end may never come. An end of the log
            # seen before the claim says nothing: whoever claimed had read further.
            if max(partition.position, partition.log_end) < claim.end:
                return
            partition.replay.popleft()
            self.report.recovered_claims += claim.claimed_by != self._me
            self._land(partition, claim, partition.buffer.take(claim.end), "replay")

    # From claimed ranges into the lake

    def _land(self, partition: _Partition, claim: Claim, messages: Buffer, reason: str) -> None:
        lander = self._landers[partition.number % LANDERS]
        done = lander.submit(self._land_range, claim, messages.parts(), is_replay=reason == "replay")
        self._landings.append(_Landing(partition, claim, messages, reason, done))
        partition.start = claim.end
        partition.position = max(partition.position, claim.end)

    def _land_range(self, claim: Claim, parts: list[Packed], is_replay: bool) -> _Done:
        """In a lander's thread: decode a range and store it."""
        started = time.monotonic()
        manifest = recover_range(self._store, claim) if is_replay else None
        if manifest is None:
            consent = self._consent_of(claim)
            content = decode_messages(claim, parts, consent, self._settings.max_message_bytes)
            manifest = land_content(self._store, claim, content)
        landed_at = time.monotonic()
        return _Done(manifest, landed_at, landed_at - started)

    def _settle_landings(self, consumer: Any) -> None:
        """Commit and count what is landed. Raises what landing raised."""
        from confluent_kafka import TopicPartition

        while self._landings and self._landings[0].done.done():
            landing = self._landings[0]
            done = landing.done.result()
            self._landings.popleft()
            claim, stream = landing.claim, landing.partition.stream
            if self._partitions.get((stream.topic, claim.partition)) is landing.partition:
                place = TopicPartition(stream.topic, claim.partition, claim.end, metadata=stream.stream_id)
                consumer.commit(offsets=[place], asynchronous=True)
            self._count(
                Landed(
                    stream.topic,
                    done.manifest,
                    "gap" if claim.gap_reason else landing.reason,
                    done.landed_at,
                    done.landing_s,
                    landing.messages.received,
                )
            )

    def _count(self, landed: Landed) -> None:
        self.report.latencies.add(landed.received, landed.landed_at)
        self.report.add(landed.manifest)
        if self._on_landed is not None:
            self._on_landed(landed)

    # Progress marks

    def _mark(self, consumer: Any) -> None:
        """Leave a progress mark when one is due. Raises what leaving the one before raised."""
        if time.monotonic() - self._marked_at < MARK_EVERY_S:
            return
        if self._marking is not None:
            if not self._marking.done():
                return
            self._marking.result()
        self._marked_at = time.monotonic()
        mark = self._seen(consumer, MARK_PATIENCE_S)
        self._marking = self._claimers.submit(put_progress, self._store, mark)

    def _seen(self, consumer: Any, patience_s: float) -> ProgressMark:
        """How far each partition has landed, and whether its log ends there: the broker is asked, for a while."""
        deadline = time.monotonic() + patience_s
        landing = {id(one.partition) for one in self._landings}
        seen = []
        for partition in self._partitions.values():
            is_landed = partition.is_idle and partition.at_end and id(partition) not in landing
            at = self._seen_end(consumer, partition, deadline) if is_landed else None
            seen.append(
                PartitionSeen(
                    stream_id=partition.stream.stream_id,
                    partition=partition.number,
                    end=partition.start,
                    at=at,
                )
            )
        return ProgressMark(marked_at=self._now(), marked_by=self._me, partitions=seen)

    def _seen_end(self, consumer: Any, partition: _Partition, deadline: float) -> datetime | None:
        """A moment at which a log ended where the partition was read up to; None if it goes on or nobody says so."""
        from confluent_kafka import KafkaException, TopicPartition

        moment, left_s = self._now(), deadline - time.monotonic()
        if left_s <= 0:
            return None
        place = TopicPartition(partition.stream.topic, partition.number)
        try:
            _, high = consumer.get_watermark_offsets(place, timeout=left_s)
        except KafkaException as error:
            _log.warning("the end of %s was not told: %s", partition.name, error.args[0].str())
            return None
        return moment if high <= max(partition.position, partition.log_end) else None

    # Memory

    def _held_bytes(self) -> int:
        landing = sum(landing.messages.held_bytes for landing in self._landings)
        return landing + sum(partition.held_bytes for partition in self._partitions.values())

    def _hold_back(self, consumer: Any) -> None:
        """Bound the memory by what the settings allow: wait for the lake a moment, then pause the partitions."""
        limit = self._settings.max_held_bytes
        if self._paused:
            if self._held_bytes() <= limit // 2 or not self._is_lake_busy():
                consumer.resume(consumer.assignment())
                self._paused = False
            return
        deadline = time.monotonic() + PATIENCE_S
        # With nothing on its way only replays hold messages, and need more of them to end.
        while self._held_bytes() > limit and self._is_lake_busy():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                self._pause(consumer)
                return
            self._await_lake(left_s)
            self._settle_claims()
            self._settle_landings(consumer)

    def _pause(self, consumer: Any) -> None:
        from confluent_kafka import TopicPartition

        _log.warning("the lake is slow: %d bytes wait for it, partitions pause", self._held_bytes())
        places = [TopicPartition(*place) for place, one in self._partitions.items() if not one.replay]
        consumer.pause(places)
        self._paused = True
        self.report.pauses += 1

    def _is_lake_busy(self) -> bool:
        return bool(self._landings) or any(True for _ in self._answers())

    def _await_lake(self, timeout_s: float) -> None:
        """Wait until a claim is answered or the next range is landed."""
        awaited: list[Future[Any]] = [*self._answers(), *(landing.done for landing in self._landings)]
        wait(awaited, timeout_s, FIRST_COMPLETED)

    def _answers(self) -> Iterator[Future[Claim]]:
        return (partition.closing.answer for partition in self._partitions.values() if partition.closing)

    # The end

    def _finish(self, consumer: Any) -> None:
        """Land all that is buffered; claims of others whose messages are not all here are left to the next owner."""
        self._stopping = True
        deadline = time.monotonic() + self._settings.stop_timeout_s
        while True:
            for partition in self._partitions.values():
                self._finish_replays(partition)
                if self._may_close(partition):
                    self._close(partition, "stop")
            if not self._is_lake_busy():
                return
            if time.monotonic() >= deadline:
                raise StopTimeoutError(
                    f"the lake {self._store.url} did not take everything within "
                    f"{self._settings.stop_timeout_s:.0f} s (PETWELLNESS_COLLECTOR_STOP_TIMEOUT_S) of the stop; "
                    "the next start lands the rest"
                )
            self._await_lake(POLL_S)
            self._settle_claims()
            self._settle_landings(consumer)

    def _left(self) -> dict[str, int]:
        """Messages that were consumed and are not landed, by partition."""
        counts: Counter[str] = Counter()
        for landing in self._landings:
            counts[landing.partition.name] += len(landing.messages)
        for partition in self._partitions.values():
            counts[partition.name] += len(partition.buffer)
            counts[partition.name] += len(partition.closing.messages) if partition.closing else 0
        return dict(+counts)

    def _shut_down(self, consumer: Any) -> None:
        self.report.left_by_partition = self._left()
        # A stop has its time: whoever still lands then may end alone, as a zombie would.
        is_patient = not self._stopping
        self._claimers.shutdown(wait=is_patient, cancel_futures=True)
        for lander in self._landers:
            lander.shutdown(wait=is_patient, cancel_futures=True)
        if consumer is None:
            return
        if self._broker_down is None:
            consumer.close()
        else:
            # With the broker gone, closing (or freeing) waits out the session, 45 s; the error shall not.
            threading.Thread(target=consumer.close, daemon=True).start()

    # Claims and their terms

    def _claim(
        self,
        stream: Stream,
        partition: int,
        decoder: Decoder,
        start: int,
        end: int,
        gap_reason: str | None = None,
    ) -> Claim:
        return Claim(
            stream_id=stream.stream_id,
            partition=partition,
            start=start,
            end=end,
            feed=TELEMETRY_FEED,
            source_system=decoder.source_system,
            decoder=decoder_label(decoder),
            claimed_at=self._now(),
            claimed_by=self._me,
            consent_snapshot_id=self._latest_consent().snapshot_id,
            not_before=self._settings.not_before,
            gap_reason=gap_reason,
        )

    def _latest_consent(self) -> ConsentSnapshot:
        """The snapshot in force, looked up again every minute. Raises ConsentSnapshotStaleError."""
        moment = time.monotonic()
        max_age_s = self._settings.consent_max_age_s
        if self._consent is None or moment - self._consent_read_at >= CONSENT_REFRESH_S:
            self._consent = load_latest_snapshot(self._store, self._now(), max_age_s)
            self._consent_read_at = moment
            self._snapshots[self._consent.snapshot_id] = self._consent
            self.report.consent_built_at = self._consent.built_at
        check_age(self._consent, self._now(), max_age_s)
        return self._consent

    def _consent_of(self, claim: Claim) -> ConsentSnapshot:
        snapshot_id = claim.consent_snapshot_id
        if snapshot_id is None:
            raise ConsentSnapshotStaleError(f"the claim of {claim.landing_key} names no consent snapshot")
        if snapshot_id not in self._snapshots:
            self._snapshots[snapshot_id] = load_snapshot(self._store, snapshot_id)
        return self._snapshots[snapshot_id]

    # Life

    def _caught_up(self) -> bool:
        return (
            self._assigned
            and not self._landings
            and all(partition.at_end and partition.is_idle for partition in self._partitions.values())
        )

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self._broker_down = error.str()

    def _check_life(self, quiet_s: float, idle_timeout_s: float | None) -> None:
        if self._broker_down is not None and quiet_s >= self._client.settings.connect_timeout_s:
            raise unreachable(self._client.bootstrap_servers, self._broker_down)
        if idle_timeout_s is not None and quiet_s >= idle_timeout_s:
            raise DrainIdleError(
                f"nothing arrived from {self._client.bootstrap_servers} for {idle_timeout_s:.0f} s "
                "and the drain was told to wait for more"
            )

    def _tell(self, consumer: Any, started: float, progress: Callable[[DrainReport], None] | None) -> None:
        from confluent_kafka import TopicPartition

        moment = time.monotonic()
        if moment - self._progressed_at < PROGRESS_EVERY_S:
            return
        self._progressed_at = moment
        self.report.seconds = moment - started
        # A new dictionary, so that readers in other threads see one moment and no partition that left.
        self.report.lag_by_partition = {
            place: self._lag(consumer, TopicPartition(*place), partition)
            for place, partition in self._partitions.items()
        }
        if progress is not None:
            progress(self.report)

    @staticmethod
    def _lag(consumer: Any, place: Any, partition: _Partition) -> int:
        _, high = consumer.get_watermark_offsets(place, cached=True)
        return max(0, high - partition.start)
