"""The bridge: every MQTT message into Kafka, acknowledged only once it is safe there.

At least once: what was not acknowledged when either side went away comes again.
One thread does everything, so a message is acknowledged in the very place that
saw it safe. The connection to MQTT is `mqtt`, names of topics `topics`.
"""

import contextlib
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingestion.bridge.mqtt import (
    CLIENT_ID_SETTING,
    Connection,
    MqttError,
    MqttLostError,
    MqttTakenOverError,
    Received,
)
from ingestion.bridge.topics import BadTopicError, parse_topic
from ingestion.broker.client import BrokerClient, BrokerUnreachableError, Stream, UnknownTopicError
from lake.store import ObjectStore, StoreError

if TYPE_CHECKING:
    from ingestion.settings import MqttSettings

# Below Kafka's default limit of 1 MB for a message with its headers; the collector rejects from 64 KiB on.
MAX_MESSAGE_BYTES = 900_000
# What is kept of a message that Kafka does not take.
EXCERPT_BYTES = 64 * 1024
# Reading stops while so much waits for Kafka.
MAX_WAITING_BYTES = 64 * 1024 * 1024
# The embedded broker forgets beyond 5 MB of a partition.
EMBEDDED_WAITING_BYTES = 3_000_000
LANDED_POLL_S = 0.25
IDLE_TURN_S = 0.1
# Kafka's answers do not wake the wait for MQTT.
BUSY_TURN_S = 0.005
FLUSH_S = 10.0
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.25, 30.0
TELL_EVERY_S = 10.0

_log = logging.getLogger(__name__)


class KafkaLostError(Exception):
    """Kafka did not take a message, or the producer failed for good; the session starts over."""


@dataclass
class BridgeReport:
    """Messages since the start.

    `redelivered` of `received` came with MQTT's mark of a repetition. `refused`
    (by reason) went to the topic for refused messages. `acknowledged` are safe;
    `dropped` were sent at QoS 0, which nobody keeps, and lost with a session.
    `interruptions` are sessions that ended by an error, `forgotten` are
    connections for which the MQTT broker had lost the session.
    """

    received: int = 0
    redelivered: int = 0
    acknowledged: int = 0
    dropped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    interruptions: int = 0
    forgotten: int = 0

    def line(self) -> str:
        """For people."""
        refused = f" ({', '.join(f'{n} {reason}' for reason, n in sorted(self.refused.items()))})"
        return (
            f"{self.received:,} received, {self.acknowledged:,} acknowledged, "
            f"{self.redelivered:,} redelivered, {sum(self.refused.values()):,} refused"
            f"{refused if self.refused else ''}"
        )


@dataclass(slots=True)
class _Waiting:
    """A message on its way; `place` is its partition and offset where it has to be landed to be safe."""

    message: Received
    size: int
    delivered: bool = False
    place: tuple[int, int] | None = None


class Bridge:
    """Carries messages of one MQTT subscription into a Kafka topic.

    With the embedded broker, whose memory ends with it, a message counts as safe
    once the collector has landed it in `store`; with Kafka, once Kafka has
    acknowledged it. Use it once.
    """

    def __init__(
        self,
        client: BrokerClient,
        settings: "MqttSettings",
        topic: str,
        *,
        store: ObjectStore | None = None,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        if client.embedded and store is None:
            raise ValueError("the embedded broker keeps too little: give the store that is landed into")
        self._client = client
        self._settings = settings
        self._topic = topic
        self._store = store if client.embedded else None
        self._tell = tell
        self._served = False
        self.report = BridgeReport()

    def run(self, stop: threading.Event) -> BridgeReport:
        """Serve until `stop` is set; then flush, acknowledge and disconnect.

        What cannot be reached at the start is an error at once; later it is tried
        again, less and less often, until it is back. Raises BrokerUnreachableError,
        UnknownTopicError, MqttUnreachableError, MqttRefusedError, MqttTakenOverError.
        """
        failures = 0
        while not stop.is_set():
            started = time.monotonic()
            try:
                self._serve(stop)
            except MqttTakenOverError:
                raise
            except (
                MqttError,
                KafkaLostError,
                BrokerUnreachableError,
                UnknownTopicError,
                StoreError,
            ) as error:
                if not self._served:
                    raise
                self.report.interruptions += 1
                calm = time.monotonic() - started > BACKOFF_MOST_S
                failures = 1 if calm else failures + 1
                pause_s = random.uniform(0.5, 1) * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2**failures)
                hint = self._rival_hint() if isinstance(error, MqttLostError) and failures >= 3 else ""
                self._tell(f"{error}; trying again in {pause_s:.1f} s{hint}")
                stop.wait(pause_s)
        return self.report

    def _rival_hint(self) -> str:
        # MQTT has a word for it, which mosquitto 2.0 does not say.
        return (
            f" (if another client is connected as '{self._settings.client_id}', the two throw each other "
            f"out: give each bridge its own {CLIENT_ID_SETTING})"
        )

    def _serve(self, stop: threading.Event) -> None:
        """One session: a producer and a connection, from their opening to the first that fails."""
        # Looking topics up takes seconds when Kafka is down, so before anything waits.
        self._client.check_topics([self._topic, self._settings.refused_topic])
        stream = self._client.streams([self._topic])[self._topic] if self._store is not None else None
        connection = Connection(self._settings)
        session = _Session(
            self._client, self._settings, self._topic, connection, self.report, self._store, stream
        )
        if self._served and not connection.session_present:
            self.report.forgotten += 1
            self._tell("the MQTT broker forgot this session: what it kept for it is lost on its side")
        if not self._served:
            self._tell(
                f"bridge runs from {self._settings.url} to topic {self._topic}; SIGTERM or Ctrl-C stops it"
            )
        self._served = True
        told_at, told = time.monotonic(), self.report.line()
        try:
            while not stop.is_set():
                session.turn()
                if time.monotonic() - told_at >= TELL_EVERY_S:
                    told_at = time.monotonic()
                    if told != (told := self.report.line()):
                        self._tell(told)
        finally:
            session.close()


class _Session:
    """What is on its way between one MQTT connection and one producer."""

    def __init__(
        self,
        client: BrokerClient,
        settings: "MqttSettings",
        topic: str,
        connection: Connection,
        report: BridgeReport,
        store: ObjectStore | None,
        stream: Stream | None,
    ) -> None:
        self._topic = topic
        self._refused_topic = settings.refused_topic
        self._connection = connection
        self._report = report
        self._store = store
        self._stream = stream
        self._most = settings.receive_maximum
        self._most_bytes = EMBEDDED_WAITING_BYTES if store is not None else MAX_WAITING_BYTES
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._landed: dict[int, int] = {}
        self._looked_at = 0.0
        self._failure: str | None = None
        # The MQTT broker keeps what is not acknowledged, so there is no moment to give up.
        self._producer = client.producer(
            **{"message.timeout.ms": 0, "linger.ms": 5, "error_cb": self._on_error}
        )

    def turn(self) -> None:
        """Move what can be moved. Raises MqttLostError, MqttTakenOverError, KafkaLostError, StoreError."""
        if len(self._waiting) > self._most or self._waiting_bytes > self._most_bytes:
            # Only messages that need no acknowledgement, or very large ones, get this far.
            self._connection.turn_without_reading()
            self._producer.poll(BUSY_TURN_S)
        else:
            self._connection.turn(BUSY_TURN_S if self._waiting else IDLE_TURN_S)
        while (message := self._connection.take()) is not None:
            self._forward(message)
        self._producer.poll(0)
        self._raise_failure()
        self._acknowledge()

    def close(self) -> None:
        """Flush, acknowledge what is safe, disconnect. What is left comes again."""
        with contextlib.suppress(MqttError, StoreError):
            until = time.monotonic() + FLUSH_S
            while self._waiting and self._failure is None and time.monotonic() < until:
                # Raises when the connection is what ended the session: then nothing can be acknowledged.
                self._connection.turn_without_reading()
                self._producer.poll(BUSY_TURN_S)
                self._acknowledge()
        self._connection.close()
        # What is purged comes again, except what nobody keeps: give that a moment.
        self._producer.flush(1.0)
        self._producer.purge()
        self._producer.flush(1.0)
        self._report.dropped += sum(not (w.message.mid or w.delivered) for w in self._waiting)

    def _forward(self, message: Received) -> None:
        self._report.received += 1
        self._report.redelivered += message.redelivered
        waiting = _Waiting(message, len(message.payload))
        self._waiting.append(waiting)
        self._waiting_bytes += waiting.size
        if len(message.payload) > MAX_MESSAGE_BYTES:
            self._refuse(waiting, "oversized")
            return
        try:
            place = parse_topic(message.topic or "")
        except BadTopicError:
            self._refuse(waiting, "topic")
            return
        self._produce(self._topic, waiting, message.payload, key=place.device_id.encode())

    def _refuse(self, waiting: _Waiting, reason: str) -> None:
        """Set a message aside with its reason, size and topic; of a large one only the beginning."""
        message = waiting.message
        self._report.refused[reason] += 1
        kept = message.payload if reason == "topic" else message.payload[:EXCERPT_BYTES]
        self._produce(
            self._refused_topic,
            waiting,
            kept,
            headers={
                "reason": reason,
                "size": str(len(message.payload)),
                "mqtt_topic": (message.topic or "not UTF-8")[:1000],
            },
        )

    def _produce(self, topic: str, waiting: _Waiting, value: bytes, **more: Any) -> None:
        from confluent_kafka import KafkaException

        def on_delivery(error: Any, delivered: Any) -> None:
            self._on_delivery(topic, waiting, error, delivered)

        received_ms = waiting.message.received_ms
        try:
            self._producer.produce(topic, value, timestamp=received_ms, on_delivery=on_delivery, **more)
        except KafkaException as error:
            # The producer knows from a message before that the topic is refused, and says so at once.
            self._on_delivery(topic, waiting, error.args[0], None)

    def _on_delivery(self, topic: str, waiting: _Waiting, error: Any, delivered: Any) -> None:
        from confluent_kafka import KafkaError

        if error is None:
            waiting.delivered = True
            if self._store is not None and topic == self._topic:
                waiting.place = delivered.partition(), delivered.offset()
        elif error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            pass
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE and waiting.size > EXCERPT_BYTES:
            # Kafka measures whole batches, so a small message is not the one that is too large.
            self._refuse(waiting, "kafka")
        else:
            self._failure = f"Kafka did not take a message for topic {topic}: {error.str()}"

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._failure = f"the producer failed: {error.str()}"

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise KafkaLostError(self._failure)

    def _acknowledge(self) -> None:
        """In the order of receipt, up to the first message that is not safe."""
        while self._waiting and self._is_safe(self._waiting[0]):
            waiting = self._waiting.popleft()
            self._waiting_bytes -= waiting.size
            if waiting.message.mid:
                self._connection.acknowledge(waiting.message.mid)
            self._report.acknowledged += 1

    def _is_safe(self, waiting: _Waiting) -> bool:
        if waiting.place is None:
            return waiting.delivered
        partition, offset = waiting.place
        if self._landed.get(partition, 0) <= offset:
            self._look_up_landed()
        return self._landed.get(partition, 0) > offset

    def _look_up_landed(self) -> None:
        if time.monotonic() - self._looked_at < LANDED_POLL_S:
            return
        from lake.landing import landed_end

        assert self._store is not None and self._stream is not None
        for partition in {waiting.place[0] for waiting in self._waiting if waiting.place is not None}:
            self._landed[partition] = landed_end(self._store, self._stream.stream_id, partition)
        self._looked_at = time.monotonic()
