"""The collector's engine: from topics to landed ranges, with two drivers.

`Collector.drain` stops at the end of every partition, `Collector.run_forever`
when it is told to. Per partition it buffers messages, closes a range by rows,
bytes, age, memory or the end of the log, claims it, lands it and commits.
Where to resume is decided by the claim chain in the lake; the committed offset
is a hint for humans and lag monitors. One thread consumes and decodes, others
land, each partition in order; scale by group members.
"""

import gc
import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from ingestion.broker.client import BrokerClient, Stream, unreachable
from ingestion.broker.embedded import stream_prefix
from ingestion.collector.consent import (
    ConsentSnapshot,
    ConsentSnapshotStaleError,
    check_age,
    load_latest_snapshot,
    load_snapshot,
)
from ingestion.collector.ranges import Messages, RangeContent, decode_messages, decoder_label, land_content
from ingestion.contracts.columns import TELEMETRY_SCHEMA
from ingestion.contracts.decoders import DECODERS, Decoder
from ingestion.contracts.feeds import TELEMETRY_FEED
from ingestion.lake import layout
from ingestion.lake.landing import (
    FILLED_BY_CLAIM,
    Claim,
    Manifest,
    chain_end,
    claim_range,
    land_range,
    open_claims,
    read_claim,
    recover_range,
    utc_now,
)
from ingestion.lake.store import ObjectStore

if TYPE_CHECKING:
    from ingestion.settings import CollectorSettings

CONSUME_MESSAGES = 10_000
POLL_S = 0.05
# All partitions together; the largest buffer is landed when it is exceeded.
MAX_BUFFERED_BYTES = 192 * 1024 * 1024
# Claimed ranges waiting for the landing threads; beyond, consuming waits.
MAX_LANDING_BYTES = 64 * 1024 * 1024
# Landing is mostly waiting for the store: two syncs of 6 ms per object on a local disk, round trips on S3.
LANDERS = 4
GC_THRESHOLD = 100_000
# The embedded broker keeps 5 MB per partition and its producer stops at 4: land well before that.
EMBEDDED_ROTATE_BYTES = 2_400_000
# At the end of the log more may be on its way; wait this long before a small range is closed.
LINGER_S = 0.3
PROGRESS_EVERY_S = 0.5
# How often a new consent snapshot is looked for.
CONSENT_REFRESH_S = 60.0

_log = logging.getLogger(__name__)


class LogTruncatedError(Exception):
    """A partition's log ends before offsets that were already landed: the broker lost or replaced data."""


class DrainIdleError(Exception):
    """Nothing arrived for the idle timeout although the drain was told to wait for more."""


@dataclass
class DrainReport:
    """What a driver did so far; `bytes` are of messages, `file_bytes` of main objects.

    `latency_s` is from the receipt of a message by the collector to its manifest.
    """

    messages: int = 0
    rows: int = 0
    rejected_by_reason: Counter[str] = field(default_factory=Counter)
    consent_dropped: int = 0
    offset_gaps: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    ranges_by_partition: Counter[str] = field(default_factory=Counter)
    rotations_by_reason: Counter[str] = field(default_factory=Counter)
    recovered_claims: int = 0
    gap_claims: int = 0
    seconds: float = 0.0
    latency_s: dict[str, float] = field(default_factory=dict)
    latencies: list[tuple[float, int]] = field(default_factory=list, repr=False)

    def add(self, manifest: Manifest) -> None:
        """Count a range that this driver landed or finished."""
        self.rows += manifest.rows
        self.rejected_by_reason.update(manifest.rejected_by_reason)
        self.consent_dropped += manifest.consent_dropped
        self.offset_gaps += manifest.offset_gaps
        self.files += 1
        self.file_bytes += manifest.bytes
        self.ranges_by_partition[f"{manifest.stream_id}/{manifest.partition}"] += 1

    def settle(self, started: float) -> None:
        """Fill in the times."""
        self.seconds = time.monotonic() - started
        self.latency_s = _percentiles(self.latencies)


def _percentiles(latencies: list[tuple[float, int]]) -> dict[str, float]:
    """p50, p95, p99 and maximum of (seconds, messages) pairs."""
    total = sum(count for _, count in latencies)
    found: dict[str, float] = {}
    seen, ranks = 0, deque([("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0)])
    for latency_s, count in sorted(latencies):
        seen += count
        while ranks and seen >= ranks[0][1] * total:
            found[ranks.popleft()[0]] = latency_s
    return found


@dataclass
class _Partition:
    """An assigned partition: what is buffered from `start` on, and which claims have to be finished first."""

    stream: Stream
    partition: int
    decoder: Decoder
    start: int
    position: int
    replay: deque[Claim]
    messages: Messages = field(default_factory=Messages)
    bytes: int = 0
    at_end: bool = False
    last_arrival: float = 0.0
    opened_at: float = 0.0
    received: list[tuple[float, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.stream.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class _Landing:
    """A claimed range on its way into the lake."""

    future: Future[Manifest]
    stream: Stream
    claim: Claim
    bytes: int
    received: list[tuple[float, int]]


class Collector:
    """Lands the messages of some topics. Use it once: one driver call, then it is closed.

    Raises BrokerUnreachableError, StoreUnreachableError, ConsentSnapshotStaleError
    as early as they can be known.
    """

    def __init__(
        self,
        client: BrokerClient,
        store: ObjectStore,
        settings: "CollectorSettings",
        topics: Sequence[str],
        *,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._now = now
        self._decoders = {decoder.topic: decoder for decoder in DECODERS.values() if decoder.topic in topics}
        unknown = set(topics) - set(self._decoders)
        if unknown:
            raise KeyError(f"no decoder for topic {', '.join(sorted(unknown))}")
        self._rotate_bytes = settings.rotate_bytes
        if client.embedded:
            self._rotate_bytes = min(settings.rotate_bytes, EMBEDDED_ROTATE_BYTES)
        self._me = uuid.uuid4().hex
        self._claimer = ThreadPoolExecutor(1, thread_name_prefix="claiming")
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
        self._report = DrainReport()
        self._progress: Callable[[DrainReport], None] | None = None
        self._progressed_at = 0.0

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
        """Land until `stop` is set (as on SIGTERM); then land what is buffered and leave the group."""
        return self._run(lambda _: stop.is_set(), progress, None, linger_s=None)

    def _run(
        self,
        done: Callable[[float], bool],
        progress: Callable[[DrainReport], None] | None,
        idle_timeout_s: float | None,
        linger_s: float | None,
    ) -> DrainReport:
        self._store.check()
        self._latest_consent()
        if self._client.embedded:
            self._close_dead_streams()
        self._streams = self._client.streams([*self._decoders])
        self._progress = progress
        started = last_message = time.monotonic()
        consumer = self._client.consumer(error_cb=self._on_error)
        thresholds = gc.get_threshold()
        # Messages and rows are many objects without cycles; looking for cycles among them costs a sixth.
        gc.set_threshold(GC_THRESHOLD, *thresholds[1:])
        try:
            consumer.subscribe(
                [*self._decoders],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while True:
                messages = consumer.consume(CONSUME_MESSAGES, POLL_S)
                moment = time.monotonic()
                if self._take(messages, moment):
                    last_message, self._broker_down = moment, None
                self._rotate(moment, linger_s)
                self._settle_landings(consumer, MAX_LANDING_BYTES)
                self._tell(started)
                quiet_s = time.monotonic() - last_message
                if done(quiet_s):
                    break
                self._check_life(quiet_s, idle_timeout_s)
            for partition in [*self._partitions.values()]:
                self._close(partition, "stop")
            self._settle_landings(consumer, 0)
        finally:
            gc.set_threshold(*thresholds)
            self._claimer.shutdown()
            for lander in self._landers:
                lander.shutdown(cancel_futures=True)
            if self._broker_down is None:
                consumer.close()
            else:
                # With the broker gone, closing (or freeing) waits out the session, 45 s; the error shall not.
                threading.Thread(target=consumer.close, daemon=True).start()
        self._report.settle(started)
        return self._report

    # Assignment and recovery

    def _on_assign(self, consumer: Any, assigned: list[Any]) -> None:
        self._assigned = True
        for place in assigned:
            partition = self._resume(consumer, place)
            self._partitions[place.topic, place.partition] = partition
            place.offset = partition.position
        consumer.incremental_assign(assigned)

    def _on_revoke(self, consumer: Any, revoked: list[Any]) -> None:
        # The next owner reads again whatever is buffered here.
        for place in revoked:
            self._partitions.pop((place.topic, place.partition), None)

    def _resume(self, consumer: Any, place: Any) -> _Partition:
        """Where a partition goes on: at its first unfinished claim, else at the end of its claim chain."""
        stream = self._streams[place.topic]
        decoder = self._decoders[place.topic]
        low, high = consumer.get_watermark_offsets(place, timeout=self._client.settings.connect_timeout_s)
        end = chain_end(self._store, stream.stream_id, place.partition)
        unfinished: deque[Claim] = deque()
        if end is None:
            end = low
        else:
            if end > high:
                raise LogTruncatedError(
                    f"{place.topic}[{place.partition}] ends at {high}, but offsets up to {end} were landed "
                    f"from {stream.stream_id}; the broker lost data: recreate the topic (a new stream)"
                )
            for claim in open_claims(self._store, stream.stream_id, place.partition):
                manifest = recover_range(self._store, claim)
                if manifest is None:
                    unfinished.append(claim)
                else:
                    self._report.recovered_claims += 1
                    self._report.add(manifest)
            if low > end:
                end = self._land_gap(stream, place.partition, decoder, end, low)
        start = unfinished[0].start if unfinished else end
        return _Partition(
            stream, place.partition, decoder, start, max(start, low), unfinished, opened_at=time.monotonic()
        )

    def _land_gap(self, stream: Stream, partition: int, decoder: Decoder, start: int, end: int) -> int:
        reason = f"the log starts at {end}"
        _log.warning("%s[%d]: offsets %d to %d are gone: %s", stream.topic, partition, start, end, reason)
        claim = claim_range(
            self._store, self._claim(stream, partition, decoder, start, end, gap_reason=reason)
        )
        manifest = recover_range(self._store, claim) or land_range(
            self._store, claim, _no_rows(), offset_gaps=claim.end - claim.start
        )
        self._report.gap_claims += 1
        self._report.add(manifest)
        return claim.end

    def _close_dead_streams(self) -> None:
        """Finish claims of earlier starts of this embedded broker, whose messages are gone.

        What they announced was never seen landed, so its producer publishes it again.
        """
        assert self._client.card is not None
        alive = set(self._client.card.streams.values())
        for claim in _open_claims_of(self._store, stream_prefix(self._client.card_path)):
            if claim.stream_id in alive:
                continue
            manifest = recover_range(self._store, claim)
            if manifest is None:
                _log.warning(
                    "claim [%d, %d) of a stopped embedded broker is closed empty", claim.start, claim.end
                )
                gone = msgspec.structs.replace(claim, gap_reason="the embedded broker stopped")
                manifest = land_range(self._store, gone, _no_rows(), offset_gaps=claim.end - claim.start)
            self._report.recovered_claims += 1

    # Buffering

    def _take(self, messages: list[Any], moment: float) -> bool:
        """Buffer consumed messages and note ends of partitions; whether there was any of the two."""
        touched: Counter[tuple[str, int]] = Counter()
        current: _Partition | None = None
        place: tuple[str, int] = ("", -1)
        for message in messages:
            if message.error() is not None:
                continue
            number, topic = message.partition(), message.topic()
            if current is None or number != place[1] or topic != place[0]:
                place = (topic, number)
                current = self._partitions.get(place)
                if current is None:
                    continue  # Revoked while this batch was on its way.
            offset = message.offset()
            if offset < current.position:
                raise LogTruncatedError(
                    f"{current.name} delivered offset {offset} after {current.position - 1}: "
                    "its log was replaced"
                )
            current.position = offset + 1
            value = message.value() or b""
            buffered = current.messages
            buffered.offsets.append(offset)
            buffered.arrival_ms.append(message.timestamp()[1])
            buffered.keys.append(message.key())
            buffered.payloads.append(value)
            current.bytes += len(value)
            self._report.bytes += len(value)
            touched[place] += 1
        for place, count in touched.items():
            partition = self._partitions[place]
            if not partition.received:
                partition.opened_at = moment
            partition.received.append((moment, count))
            partition.last_arrival = moment
            partition.at_end = False
            self._report.messages += count
        for message in messages:
            if message.error() is not None:
                self._note_end(message)
        return bool(messages)

    def _note_end(self, event: Any) -> None:
        from confluent_kafka import KafkaError, KafkaException

        error = event.error()
        if error.code() == KafkaError._PARTITION_EOF:
            partition = self._partitions.get((event.topic(), event.partition()))
            if partition is not None:
                partition.at_end = event.offset() >= partition.position
        elif not error.retriable():
            raise KafkaException(error)

    # Ranges

    def _rotate(self, moment: float, linger_s: float | None) -> None:
        """Finish claims whose messages are all here, and close the ranges that are due."""
        for partition in self._partitions.values():
            self._finish_replays(partition)
            if partition.messages and not partition.replay:
                reason = self._due(partition, moment, linger_s)
                if reason is not None:
                    self._close(partition, reason)
        while sum(partition.bytes for partition in self._partitions.values()) > MAX_BUFFERED_BYTES:
            closable = [p for p in self._partitions.values() if p.messages and not p.replay]
            if not closable:
                return
            self._close(max(closable, key=lambda p: p.bytes), "memory")

    def _due(self, partition: _Partition, moment: float, linger_s: float | None) -> str | None:
        if len(partition.messages) >= self._settings.rotate_rows:
            return "rows"
        if partition.bytes >= self._rotate_bytes:
            return "bytes"
        if moment - partition.opened_at >= self._settings.rotate_age_s:
            return "age"
        if linger_s is not None and partition.at_end and moment - partition.last_arrival >= linger_s:
            return "end_of_log"
        return None

    def _close(self, partition: _Partition, reason: str) -> None:
        """Claim what is buffered and land it; if another claimed the range first, follow that claim."""
        if not partition.messages or partition.replay:
            return
        claim = self._claim(
            partition.stream, partition.partition, partition.decoder, partition.start, partition.position
        )
        self._report.rotations_by_reason[reason] += 1
        # Decoding takes longer than the put and needs no claim yet, only its terms.
        claiming = self._claimer.submit(claim_range, self._store, claim)
        content = self._decode(claim, partition.messages)
        stored = claiming.result()
        if stored == claim:
            self._land(partition, claim, content)
        else:
            _log.info("%s: [%d, ...) is claimed already, following that claim", partition.name, claim.start)
            partition.replay.append(stored)
            self._finish_replays(partition)

    def _finish_replays(self, partition: _Partition) -> None:
        while partition.replay:
            claim = partition.replay[0]
            # Offsets may be sparse, so the last one before the end may never come.
            if partition.position < claim.end and not partition.at_end:
                return
            partition.replay.popleft()
            self._report.recovered_claims += 1
            landed = recover_range(self._store, claim)
            mine = partition.messages.split(claim.end)[0]
            self._land(partition, claim, landed or self._decode(claim, mine))

    def _decode(self, claim: Claim, messages: Messages) -> RangeContent:
        return decode_messages(claim, messages, self._consent_of(claim), self._settings.max_message_bytes)

    def _land(self, partition: _Partition, claim: Claim, content: RangeContent | Manifest) -> None:
        """Hand a claimed range to the landing threads, or adopt what is landed; go on after it."""
        rest = partition.messages.split(claim.end)[1]
        rest_bytes = sum(map(len, rest.payloads))
        future: Future[Manifest] = Future()
        if isinstance(content, Manifest):
            future.set_result(content)
        else:
            # Decoding holds the interpreter, writing and syncing do not: they overlap.
            lander = self._landers[claim.partition % LANDERS]
            future = lander.submit(land_content, self._store, claim, content)
        size = partition.bytes - rest_bytes
        self._landings.append(_Landing(future, partition.stream, claim, size, partition.received))
        moment = time.monotonic()
        partition.messages, partition.bytes = rest, rest_bytes
        partition.received = [(moment, len(rest))] if rest else []
        partition.start = claim.end
        partition.position = max(partition.position, claim.end)
        partition.opened_at = moment

    def _settle_landings(self, consumer: Any, allowed_bytes: int) -> None:
        """Commit and count what is landed; wait while more than `allowed_bytes` are on their way.

        Raises what landing raised.
        """
        from confluent_kafka import TopicPartition

        under_way = sum(landing.bytes for landing in self._landings)
        while self._landings and (
            under_way > allowed_bytes or allowed_bytes == 0 or self._landings[0].future.done()
        ):
            landing = self._landings.popleft()
            under_way -= landing.bytes
            manifest = landing.future.result()
            claim, landed_at = landing.claim, time.monotonic()
            place = TopicPartition(landing.stream.topic, claim.partition, claim.end, metadata=claim.stream_id)
            consumer.commit(offsets=[place], asynchronous=True)
            self._report.latencies += [(landed_at - moment, count) for moment, count in landing.received]
            self._report.add(manifest)

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
            gap_reason=gap_reason,
        )

    # Consent

    def _latest_consent(self) -> ConsentSnapshot:
        """The snapshot in force, looked up again every minute. Raises ConsentSnapshotStaleError."""
        moment = time.monotonic()
        max_age_s = self._settings.consent_max_age_s
        if self._consent is None or moment - self._consent_read_at >= CONSENT_REFRESH_S:
            self._consent = load_latest_snapshot(self._store, self._now(), max_age_s)
            self._consent_read_at = moment
            self._snapshots[self._consent.snapshot_id] = self._consent
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
            and all(
                partition.at_end and not partition.replay and not partition.messages
                for partition in self._partitions.values()
            )
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

    def _tell(self, started: float) -> None:
        moment = time.monotonic()
        if self._progress is not None and moment - self._progressed_at >= PROGRESS_EVERY_S:
            self._progressed_at = moment
            self._report.seconds = moment - started
            self._progress(self._report)


def _no_rows() -> pa.Table:
    names = [field for field in TELEMETRY_SCHEMA if field.name not in FILLED_BY_CLAIM]
    return pa.schema(names).empty_table()


def _open_claims_of(store: ObjectStore, stream_prefix: str) -> list[Claim]:
    """Claims without a manifest of all streams whose id starts with a prefix."""
    finished = {layout.range_of(info.key) for info in store.list(f"{layout.MANIFESTS}{stream_prefix}")}
    claimed = (layout.range_of(info.key) for info in store.list(f"{layout.CLAIMS}{stream_prefix}"))
    return [read_claim(store, range_key) for range_key in claimed if range_key not in finished]
