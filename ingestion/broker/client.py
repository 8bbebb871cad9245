"""Client configuration for the embedded broker and for real Kafka, and the identity of streams.

`connect` finds the broker and fails early if it cannot be reached. Producing with
flow control is in `simulation.publisher`, consuming in `ingestion.collector`.
"""

import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingestion.broker.embedded import BrokerCard, read_card

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient

    from ingestion.settings import BrokerSettings

SERVERS_SETTING = "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"
CARD_NAME = "broker.json"

# How soon a running collector sees that a topic has got more partitions; the default is 5 minutes.
METADATA_REFRESH_MS = 30_000

# What goes wrong is raised as a typed error; librdkafka would repeat it line after line.
_silent = logging.getLogger(f"{__name__}.librdkafka")
_silent.setLevel(logging.CRITICAL)


class BrokerUnreachableError(Exception):
    """The broker cannot be used as configured; the text names the address and the setting to change."""


class UnknownTopicError(Exception):
    """A topic does not exist on the broker."""


class StreamReplacedError(Exception):
    """A topic is not the one it was: it was deleted and recreated, or the embedded broker was started again."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One topic as it exists now: `stream_id` changes when the topic is deleted and recreated."""

    topic: str
    stream_id: str
    partitions: int


@dataclass(frozen=True)
class BrokerClient:
    """A broker that was reached, and how to open clients for it."""

    settings: "BrokerSettings"
    bootstrap_servers: str
    card_path: Path
    card: BrokerCard | None
    _confirmed: dict[str, float] = field(default_factory=dict)
    _confirming: threading.Lock = field(default_factory=threading.Lock)

    @property
    def embedded(self) -> bool:
        """Whether this is the embedded broker, which keeps little and needs flow control."""
        return self.card is not None

    def consumer(self, **overrides: Any) -> "Consumer":
        """A consumer of the collector's group: manual commits, EOF events, earliest on a new group."""
        from confluent_kafka import Consumer

        group_id = self.settings.group_id
        if self.embedded:
            # The embedded broker keeps a member that left for its whole session (44 s), and a new one
            # waits for it. Its groups need no memory: where to resume is in the lake.
            group_id = f"{group_id}-{uuid.uuid4().hex[:8]}"
        session_ms = round(self.settings.session_timeout_s * 1000)
        member: dict[str, Any] = {
            "session.timeout.ms": session_ms,
            # Three chances within a session; the default of 3 s would let a short one expire.
            "heartbeat.interval.ms": max(1, min(3_000, session_ms // 3)),
        }
        # The embedded broker knows no static members.
        if self.settings.group_instance_id and not self.embedded:
            member["group.instance.id"] = self.settings.group_instance_id
        return Consumer(
            self._common()
            | member
            | {
                "group.id": group_id,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": METADATA_REFRESH_MS,
                "partition.assignment.strategy": "cooperative-sticky",
                # With the default of 1000 ms the same collector got 215,000 instead of 460,000 messages/s.
                "fetch.queue.backoff.ms": 5,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": 64 * 1024,
                "fetch.wait.max.ms": 50,
            }
            | overrides,
            logger=_silent,
        )

    def producer(self, **overrides: Any) -> "Producer":
        """A producer that keeps order and writes each message once per session."""
        from confluent_kafka import Producer

        return Producer(
            self._common()
            | {
                "enable.idempotence": True,
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 256 * 1024,
                "batch.num.messages": 20_000,
            }
            | overrides,
            logger=_silent,
        )

    def _common(self) -> dict[str, Any]:
        return client_config(self.settings, self.bootstrap_servers)

    @cached_property
    def admin(self) -> "AdminClient":
        """For questions to real Kafka; the embedded broker answers none."""
        from confluent_kafka.admin import AdminClient

        return AdminClient(self._common(), logger=_silent)

    def streams(self, topics: Sequence[str]) -> dict[str, Stream]:
        """The streams of some topics. Raises UnknownTopicError, BrokerUnreachableError."""
        counts = self._partition_counts()
        self._require(topics, counts)
        ids = self._current_ids(topics)
        return {topic: Stream(topic, ids[topic], counts[topic]) for topic in topics}

    def check_topics(self, topics: Sequence[str], way_out: str = "") -> None:
        """Raise UnknownTopicError for topics that the broker does not have.

        `way_out` says what else than creating them would do. Raises BrokerUnreachableError.
        """
        self._require(topics, self._partition_counts(), way_out)

    def _require(self, topics: Sequence[str], counts: Mapping[str, int], way_out: str = "") -> None:
        missing = [topic for topic in topics if topic not in counts]
        if missing:
            raise UnknownTopicError(
                f"broker {self.bootstrap_servers} has no topic {', '.join(missing)}; create it there{way_out}"
            )

    def confirm(self, stream: Stream, moment: float) -> None:
        """Make sure that a topic is still a stream, at `moment` (monotonic) or later; one request serves many.

        Raises StreamReplacedError, UnknownTopicError, BrokerUnreachableError.
        """
        with self._confirming:
            if self._confirmed.get(stream.stream_id, -math.inf) >= moment:
                return
            asked_at = time.monotonic()
            if self._current_ids([stream.topic])[stream.topic] != stream.stream_id:
                raise StreamReplacedError(
                    f"topic {stream.topic} of {self.bootstrap_servers} is no longer {stream.stream_id}; "
                    "what it holds now is a new stream"
                )
            self._confirmed[stream.stream_id] = asked_at

    def _current_ids(self, topics: Sequence[str]) -> dict[str, str]:
        """The ids that the broker gives its topics now."""
        if self.card is None:
            return _kafka_stream_ids(self, topics)
        card = read_card(self.card_path)
        if card is None:
            raise unreachable(self.bootstrap_servers, "the embedded broker has stopped")
        return card.streams

    def log_bounds(self, stream: Stream) -> dict[int, tuple[int, int]]:
        """First offset and end of each partition's log now. Raises BrokerUnreachableError."""
        from confluent_kafka import KafkaException, TopicPartition

        asking = self.consumer()
        try:
            return {
                number: asking.get_watermark_offsets(
                    TopicPartition(stream.topic, number), timeout=self.settings.connect_timeout_s
                )
                for number in range(stream.partitions)
            }
        except KafkaException as error:
            raise unreachable(self.bootstrap_servers, error.args[0].str()) from error
        finally:
            asking.close()

    def retention_ms(self, topic: str) -> int | None:
        """How long the broker keeps a topic's messages by their timestamp; None for ever.

        Raises BrokerUnreachableError.
        """
        if self.embedded:
            return None
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import ConfigResource, ResourceType

        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            [described] = self.admin.describe_configs(
                [resource], request_timeout=self.settings.connect_timeout_s
            ).values()
            kept_ms = int(described.result()["retention.ms"].value)
        except KafkaException as error:
            raise unreachable(self.bootstrap_servers, error.args[0].str()) from error
        return None if kept_ms < 0 else kept_ms

    def existing_topics(self, topics: Sequence[str]) -> list[str]:
        """Those of some topics that the broker has. Raises BrokerUnreachableError."""
        counts = self._partition_counts()
        return [topic for topic in topics if topic in counts]

    def _partition_counts(self) -> dict[str, int]:
        """Partitions by topic.

        All topics are asked for, never one by its name: a broker may create what is asked for, and a misspelt
        name would then be an empty topic instead of an error.
        """
        from confluent_kafka import KafkaException

        try:
            metadata = self.producer().list_topics(timeout=self.settings.connect_timeout_s)
        except KafkaException as error:
            raise unreachable(self.bootstrap_servers, error.args[0].str()) from error
        counts = {name: len(topic.partitions) for name, topic in metadata.topics.items()}
        if self.card is None:
            return counts
        # librdkafka's mock cluster creates what any client asks for; those are no streams of it.
        return {name: count for name, count in counts.items() if name in self.card.streams}


def client_config(settings: "BrokerSettings", bootstrap_servers: str) -> dict[str, Any]:
    """What every client of the broker has in common."""
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "security.protocol": settings.security_protocol,
        "socket.connection.setup.timeout.ms": 10_000,
        "client.id": settings.client_id,
    }
    optional = {
        "sasl.mechanism": settings.sasl_mechanism,
        "sasl.username": settings.sasl_username,
        "sasl.password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
        "ssl.ca.location": settings.ssl_ca_location,
    }
    return config | {name: value for name, value in optional.items() if value is not None}


def connect(settings: "BrokerSettings", home: Path) -> BrokerClient:
    """Reach the broker that the settings name, or the embedded one running for `home`.

    Raises BrokerUnreachableError within `settings.connect_timeout_s`.
    """
    card_path = home / CARD_NAME
    card = None if settings.bootstrap_servers else read_card(card_path)
    if not settings.bootstrap_servers and card is None:
        raise BrokerUnreachableError(
            f"no embedded broker runs for {home}; start one (`petwellness simulate`), or set {SERVERS_SETTING} to a real broker"
        )
    address = card.bootstrap_servers if card else settings.bootstrap_servers
    client = BrokerClient(settings, address, card_path, card)
    client._partition_counts()
    return client


def unreachable(address: str, why: str) -> BrokerUnreachableError:
    """The one line that says which broker failed, why, and what to change."""
    return BrokerUnreachableError(
        f"broker {address} cannot be reached ({why}); check it or {SERVERS_SETTING}"
    )


def _kafka_stream_ids(client: BrokerClient, topics: Sequence[str]) -> dict[str, str]:
    """`cluster_id.topic.topic_id` of each topic, from a real cluster."""
    from confluent_kafka import KafkaError, KafkaException, TopicCollection

    timeout_s = client.settings.connect_timeout_s
    try:
        cluster_id = client.admin.describe_cluster(request_timeout=timeout_s).result().cluster_id
        futures = client.admin.describe_topics(TopicCollection([*topics]), request_timeout=timeout_s)
        described = {topic: future.result() for topic, future in futures.items()}
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise UnknownTopicError(
                f"broker {client.bootstrap_servers} no longer has topic {', '.join(topics)}"
            ) from error
        raise unreachable(client.bootstrap_servers, error.args[0].str()) from error
    return {topic: stream_id(cluster_id, topic, str(found.topic_id)) for topic, found in described.items()}


def stream_id(cluster_id: str, topic: str, topic_id: str) -> str:
    """The identity of a Kafka topic; ids are base64, whose '/' and '+' cannot be part of an object name."""
    return f"{cluster_id}.{topic}.{topic_id}".replace("/", "_").replace("+", "-")
