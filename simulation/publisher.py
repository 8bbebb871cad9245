"""Publishing: a producer that waits for the collector, and waves that are remembered once they landed.

A wave is a finite set of messages with a stable id. It counts as published once
the lake's manifests reach everything produced; only then is it recorded, so that
publishing again is a no-op, and a wave cut short is published again (the
duplicates key sets the repeats aside). What a wave contains is its source's business.
"""

import contextlib
import math
import time
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Protocol

import msgspec

from contracts.telemetry import MAX_RECEIPT_AHEAD
from ingestion.broker.client import BrokerClient, Stream, unreachable
from ingestion.broker.embedded import MAX_UNLANDED_BYTES
from lake import layout
from lake.landing import landed_end, utc_now
from lake.progress import PartitionSeen, ProgressMark, put_progress
from lake.store import ObjectExistsError, ObjectMissingError, ObjectStore

# What the embedded broker keeps of a message besides key and value: at most this much framing.
MESSAGE_OVERHEAD_BYTES = 48
LANDED_POLL_S = 0.1
STALL_TIMEOUT_S = 120.0
# Landed progress is followed in stretches of this many messages.
_STRETCH = 256


class PublishError(Exception):
    """Messages could not be delivered to the broker."""


class RetentionTooShortError(PublishError):
    """The topic would delete messages of that age as soon as they are written."""


class ReceiptInFutureError(PublishError):
    """Messages say that they were received at a time that is still to come, so that they would be rejected."""


class LandingStalledError(Exception):
    """The collector lands nothing of what was published."""


class Message(Protocol):
    """One message; `arrival_ts_ms` is the time of receipt in epoch milliseconds."""

    @property
    def topic(self) -> str: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...
    @property
    def arrival_ts_ms(self) -> int: ...


class MessageColumns(Protocol):
    """Messages of one topic in order, as parallel lists."""

    @property
    def topic(self) -> str: ...
    @property
    def keys(self) -> Sequence[bytes]: ...
    @property
    def values(self) -> Sequence[bytes]: ...
    @property
    def arrival_ts_ms(self) -> Sequence[int]: ...


Batch = MessageColumns | Sequence[Message]


class WaveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A wave that was seen landed: how much it was, and the end of each partition (by stream) it reached."""

    wave_id: str
    messages: int
    bytes: int
    ends: dict[str, dict[int, int]]
    landed_at: datetime


@dataclass(frozen=True)
class WaveReport:
    """What publishing a wave did; `already_landed` means nothing, because it was done before."""

    wave_id: str
    messages: int
    bytes: int
    already_landed: bool


@dataclass
class PublishProgress:
    """What was handed to the broker so far, and how long the publisher waited for the collector."""

    messages: int = 0
    bytes: int = 0
    waited_s: float = 0.0


@dataclass
class _Lane:
    """One partition being published to: where its log ends, and up to where it is seen landed."""

    stream: Stream
    partition: int
    end: int
    landed: int
    first: int = 0
    # (end offset, bytes) of produced stretches that are not seen landed.
    unlanded: deque[tuple[int, int]] = field(default_factory=deque)
    unlanded_bytes: int = 0
    open_stretch: int = 0
    open_bytes: int = 0

    def produced(self, size: int) -> None:
        self.end += 1
        self.unlanded_bytes += size
        self.open_bytes += size
        self.open_stretch += 1
        if self.open_stretch >= _STRETCH:
            self.close_stretch()

    def close_stretch(self) -> None:
        if self.open_stretch:
            self.unlanded.append((self.end, self.open_bytes))
            self.open_stretch = self.open_bytes = 0

    def refresh(self, store: ObjectStore) -> bool:
        """Look up what is landed; whether it is more than before."""
        self.close_stretch()
        before = self.landed
        self.landed = max(before, landed_end(store, self.stream.stream_id, self.partition))
        while self.unlanded and self.unlanded[0][0] <= self.landed:
            self.unlanded_bytes -= self.unlanded.popleft()[1]
        return self.landed > before


def published_wave(store: ObjectStore, wave_id: str) -> WaveRecord | None:
    """The record of a wave that was seen landed; None if it was not."""
    try:
        return msgspec.json.decode(store.get(layout.wave_key(wave_id)), type=WaveRecord)
    except ObjectMissingError:
        return None


def publish_wave(
    client: BrokerClient,
    store: ObjectStore,
    wave_id: str,
    batches: Iterable[Batch],
    *,
    stall_timeout_s: float = STALL_TIMEOUT_S,
    progress: Callable[[PublishProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> WaveReport:
    """Publish one wave, wait until all of it is landed, record it. See `publish_waves`."""
    [report] = publish_waves(
        client,
        store,
        [(wave_id, batches)],
        stall_timeout_s=stall_timeout_s,
        progress=progress,
        should_stop=should_stop,
    )
    return report


def publish_waves(
    client: BrokerClient,
    store: ObjectStore,
    waves: Iterable[tuple[str, Iterable[Batch]]],
    *,
    stall_timeout_s: float = STALL_TIMEOUT_S,
    progress: Callable[[PublishProgress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[WaveReport]:
    """Publish waves in order, each recorded once it is landed; the next is produced while one still lands.

    A wave already recorded is not read. Messages go to the partition of their key.
    A collector has to run meanwhile. At the end a progress mark says how far
    everything has landed: an embedded broker ends with its publisher, and no collector
    could say so any more.

    Raises BrokerUnreachableError, PublishError, LandingStalledError (nothing landed
    for `stall_timeout_s`, or `should_stop()` while waiting).
    """
    landing: deque[_Wave] = deque()
    with LivePublisher(
        client, store, stall_timeout_s=stall_timeout_s, progress=progress, should_stop=should_stop
    ) as publisher:
        for wave_id, batches in waves:
            recorded = published_wave(store, wave_id)
            if recorded is not None:
                yield WaveReport(wave_id, recorded.messages, recorded.bytes, already_landed=True)
                continue
            landing.append(publisher.send_wave(wave_id, batches))
            while landing and publisher.is_landed(landing[0]):
                yield _record(store, landing.popleft())
        while landing:
            publisher.wait_until_landed(landing[0])
            yield _record(store, landing.popleft())
        put_progress(store, publisher.seen())


@dataclass
class _Wave:
    wave_id: str
    messages: int = 0
    bytes: int = 0
    # Lane and the end of its log once the whole wave was in it.
    reach: list[tuple[_Lane, int]] = field(default_factory=list)


def _record(store: ObjectStore, wave: _Wave) -> WaveReport:
    ends: dict[str, dict[int, int]] = {}
    for lane, end in wave.reach:
        ends.setdefault(lane.stream.stream_id, {})[lane.partition] = end
    record = WaveRecord(
        wave_id=wave.wave_id, messages=wave.messages, bytes=wave.bytes, ends=ends, landed_at=utc_now()
    )
    # Another publisher of the same wave may have been first; the repeats are set aside.
    with contextlib.suppress(ObjectExistsError):
        store.put_new(layout.wave_key(wave.wave_id), msgspec.json.encode(record))
    return WaveReport(wave.wave_id, wave.messages, wave.bytes, already_landed=False)


class LivePublisher:
    """A producer with flow control: on the embedded broker never more un-landed than it keeps.

    One publisher per embedded broker at a time, for each counts what it produced.
    """

    def __init__(
        self,
        client: BrokerClient,
        store: ObjectStore,
        *,
        stall_timeout_s: float = STALL_TIMEOUT_S,
        progress: Callable[[PublishProgress], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._store = store
        self._stall_timeout_s = stall_timeout_s
        self._tell = progress
        self._should_stop = should_stop
        self._failures: list[str] = []
        self._broker_down: str | None = None
        self._lanes: dict[str, list[_Lane]] = {}
        self._oldest_kept_ms: dict[str, float] = {}
        self._producer = client.producer(
            error_cb=self._on_error,
            on_delivery=self._on_delivery,
            # A callback for every message would cost as much as producing it.
            **{"delivery.report.only.error": True},
        )
        self._consumer = client.consumer()
        self.progress = PublishProgress()

    def __enter__(self) -> "LivePublisher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._consumer.close()

    def send(self, batch: Batch) -> int:
        """Hand a batch to the broker as fast as the collector lands; returns the number of messages."""
        before = self.progress.messages
        for topic, keys, values, arrival_ts_ms in _columns(batch):
            self._send_columns(topic, keys, values, arrival_ts_ms)
            self.progress.messages += len(values)
            self.progress.bytes += sum(map(len, values))
        self._producer.poll(0)
        self._raise_failures()
        if self._tell is not None:
            self._tell(self.progress)
        return self.progress.messages - before

    def send_wave(self, wave_id: str, batches: Iterable[Batch]) -> _Wave:
        """Hand all of a wave to the broker, and note how far its partitions have to land."""
        messages, size = self.progress.messages, self.progress.bytes
        starts = {id(lane): lane.end for lanes in self._lanes.values() for lane in lanes}
        for batch in batches:
            self.send(batch)
        self.flush()
        wave = _Wave(wave_id, self.progress.messages - messages, self.progress.bytes - size)
        for lanes in self._lanes.values():
            for lane in lanes:
                if lane.end != starts.get(id(lane), lane.first):
                    lane.end = max(lane.end, self._log_end(lane))
                    wave.reach.append((lane, lane.end))
        return wave

    def is_landed(self, wave: _Wave) -> bool:
        """Whether manifests reach the end of a wave in every partition."""
        behind = [lane for lane, end in wave.reach if lane.landed < end]
        for lane in behind:
            lane.refresh(self._store)
        return all(lane.landed >= end for lane, end in wave.reach)

    def wait_until_landed(self, wave: _Wave) -> None:
        """Wait for `is_landed`. Raises LandingStalledError."""
        self._wait(
            [lane for lane, _ in wave.reach], lambda: all(lane.landed >= end for lane, end in wave.reach)
        )

    def seen(self) -> ProgressMark:
        """How far the partitions that were published to have landed, and whether their logs end there."""
        seen = []
        for lane in (lane for lanes in self._lanes.values() for lane in lanes):
            moment, end = utc_now(), self._log_end(lane)
            lane.refresh(self._store)
            seen.append(
                PartitionSeen(
                    stream_id=lane.stream.stream_id,
                    partition=lane.partition,
                    end=lane.landed,
                    at=moment if lane.landed >= end else None,
                )
            )
        return ProgressMark(marked_at=utc_now(), marked_by=uuid.uuid4().hex, partitions=seen)

    def flush(self) -> None:
        """Wait until the broker has everything. Raises PublishError, BrokerUnreachableError."""
        left = len(self._producer)
        moved = time.monotonic()
        while left:
            remaining = self._producer.flush(1.0)
            self._raise_failures()
            if remaining < left:
                left, moved = remaining, time.monotonic()
            elif time.monotonic() - moved > self._client.settings.connect_timeout_s:
                raise unreachable(
                    self._client.bootstrap_servers, self._broker_down or "messages do not get through"
                )

    def _send_columns(
        self, topic: str, keys: Sequence[bytes], values: Sequence[bytes], arrival_ts_ms: Sequence[int]
    ) -> None:
        lanes = self._lanes_of(topic)
        _refuse_future(topic, arrival_ts_ms, utc_now())
        self._refuse_expired(topic, arrival_ts_ms)
        count, crc, produce = len(lanes), zlib.crc32, self._producer.produce
        limited = self._client.embedded
        for key, value, moment in zip(keys, values, arrival_ts_ms, strict=True):
            lane = lanes[crc(key) % count]
            size = len(key) + len(value) + MESSAGE_OVERHEAD_BYTES
            if limited and lane.unlanded_bytes + size > MAX_UNLANDED_BYTES:
                self._wait_for_room(lane, size)
            while True:
                try:
                    produce(topic, value, key, lane.partition, timestamp=moment)
                    break
                except BufferError:
                    self._producer.poll(0.05)
                    self._raise_failures()
            lane.produced(size)

    def _refuse_expired(self, topic: str, arrival_ts_ms: Sequence[int]) -> None:
        # Retention looks at a message's timestamp, here the original time of receipt:
        # Kafka 4.1 deleted a replayed wave of last summer before anybody could read it.
        if topic not in self._oldest_kept_ms:
            kept_ms = self._client.retention_ms(topic)
            self._oldest_kept_ms[topic] = -math.inf if kept_ms is None else time.time() * 1000 - kept_ms
        if min(arrival_ts_ms, default=math.inf) < self._oldest_kept_ms[topic]:
            raise RetentionTooShortError(
                f"topic {topic} on {self._client.bootstrap_servers} keeps messages for less than the age of "
                "what is replayed and would delete it unread; set the topic's retention.ms to -1"
            )

    def _wait_for_room(self, lane: _Lane, size: int) -> None:
        self.flush()
        self._wait([lane], lambda: lane.unlanded_bytes + size <= MAX_UNLANDED_BYTES)

    def _lanes_of(self, topic: str) -> list[_Lane]:
        if topic not in self._lanes:
            stream = self._client.streams([topic])[topic]
            self._lanes[topic] = [self._lane(stream, partition) for partition in range(stream.partitions)]
        return self._lanes[topic]

    def _lane(self, stream: Stream, partition: int) -> _Lane:
        lane = _Lane(stream, partition, 0, landed_end(self._store, stream.stream_id, partition))
        lane.end = lane.first = self._log_end(lane)
        if lane.end > lane.landed and self._client.embedded:
            # What lies there may be of any size: assume the worst until it is landed.
            lane.unlanded.append((lane.end, MAX_UNLANDED_BYTES))
            lane.unlanded_bytes = MAX_UNLANDED_BYTES
        return lane

    def _log_end(self, lane: _Lane) -> int:
        from confluent_kafka import KafkaException, TopicPartition

        place = TopicPartition(lane.stream.topic, lane.partition)
        try:
            return self._consumer.get_watermark_offsets(
                place, timeout=self._client.settings.connect_timeout_s
            )[1]
        except KafkaException as error:
            raise unreachable(self._client.bootstrap_servers, error.args[0].str()) from error

    def _wait(self, lanes: list[_Lane], enough: Callable[[], bool]) -> None:
        started = moved = time.monotonic()
        while True:
            progressed = [lane.refresh(self._store) for lane in lanes]
            if any(progressed):
                moved = time.monotonic()
            if enough():
                break
            if self._should_stop():
                raise LandingStalledError(
                    "stopped while waiting for the collector to land what was published"
                )
            if time.monotonic() - moved > self._stall_timeout_s:
                raise LandingStalledError(
                    f"nothing that was published landed for {self._stall_timeout_s:.0f} s; "
                    "is a collector running on the same lake and broker?"
                )
            self._producer.poll(LANDED_POLL_S)
        self.progress.waited_s += time.monotonic() - started

    def _on_delivery(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failures.append(f"{message.topic()}[{message.partition()}]: {error.str()}")

    def _on_error(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION):
            self._broker_down = error.str()

    def _raise_failures(self) -> None:
        if self._failures:
            raise PublishError(
                f"{len(self._failures)} messages were not delivered, the first to {self._failures[0]}"
            )


def _refuse_future(topic: str, arrival_ts_ms: Sequence[int], now: datetime) -> None:
    latest = datetime(1970, 1, 1) + timedelta(milliseconds=max(arrival_ts_ms, default=0))
    if latest > now + MAX_RECEIPT_AHEAD:
        raise ReceiptInFutureError(
            f"messages for topic {topic} say that they are received at {latest:%Y-%m-%d %H:%M} UTC, which is still to"
            " come: the collector would reject them (clock). Set PETWELLNESS_FLEET_START so that the fleet's days"
            " are over (PETWELLNESS_FLEET_DAYS), or the clock of this machine"
        )


def _columns(batch: Batch) -> Iterator[tuple[str, Sequence[bytes], Sequence[bytes], Sequence[int]]]:
    """A batch by topic, as parallel lists."""
    if not isinstance(batch, Sequence):
        yield batch.topic, batch.keys, batch.values, batch.arrival_ts_ms
        return
    for topic in dict.fromkeys(message.topic for message in batch):
        mine = [message for message in batch if message.topic == topic]
        yield topic, [m.key for m in mine], [m.value for m in mine], [m.arrival_ts_ms for m in mine]
