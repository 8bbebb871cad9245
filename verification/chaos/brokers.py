"""The brokers that scenarios run on, each with a fresh topic per scenario."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ingestion.broker.embedded import CardLock
from verification.chaos.traffic import Ledger

if TYPE_CHECKING:
    from infrastructure.kafka.local import LocalKafka
    from ingestion.broker.client import BrokerClient

TOPIC = "telemetry"
REBALANCE_DELAY_MS = 500
KAFKA_HEAP_MB = 384


@dataclass
class OpenBroker:
    """A broker with an empty topic; `client` reaches it directly, workers come through their proxies."""

    client: "BrokerClient"
    port: int
    stream_id: str
    partitions: int
    native: Any = None
    card_locks: "dict[Path, CardLock]" = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        return self.client.embedded

    def worker_home(self, home: Path, proxy_port: int) -> str:
        """Prepare a worker's folder; returns its bootstrap servers (empty: the embedded broker's card)."""
        home.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{proxy_port}"
        if self.client.card is None:
            return address
        card = msgspec.structs.replace(self.client.card, bootstrap_servers=address, pid=os.getpid())
        (home / "broker.json").write_bytes(msgspec.json.encode(card))
        if home not in self.card_locks:
            # The card is true while this process lives, which carries what goes through the proxy.
            self.card_locks[home] = CardLock(home / "broker.json")
            self.card_locks[home].hold()
        return ""

    def forget_before(self, partition: int, offset: int, ledger: Ledger, keep_before: int) -> None:
        """Drop a partition's messages before an offset from the log, as retention does.

        Those from `keep_before` on were claimed by nobody: they are lost, and the ledger forgets them.
        """
        self.native.delete_records(TOPIC, partition, offset)
        records = ledger[self.stream_id, partition]
        for gone in range(keep_before, offset):
            records.pop(gone, None)

    def log_ends(self) -> dict[tuple[str, int], int]:
        """Where each partition's log ends for readers of committed messages."""
        from confluent_kafka import TopicPartition

        consumer = self.client.consumer()
        try:
            return {
                (self.stream_id, partition): consumer.get_watermark_offsets(
                    TopicPartition(TOPIC, partition), timeout=30
                )[1]
                for partition in range(self.partitions)
            }
        finally:
            consumer.close()

    def recreate_topic(self) -> None:
        """Delete the topic and create it again: `stream_id` is another one then. Real Kafka only."""
        self.native.delete_topic(TOPIC)
        self.native.create_topic(TOPIC, self.partitions)
        self.stream_id = self.client.streams([TOPIC])[TOPIC].stream_id


class Broker(Protocol):
    """A kind of broker."""

    name: str
    embedded: bool

    def open(self, home: Path, partitions: int) -> contextlib.AbstractContextManager[OpenBroker]:
        """A fresh topic, for one scenario."""


class Embedded:
    """librdkafka's mock cluster, a new one for each scenario."""

    name = "embedded"
    embedded = True

    @contextlib.contextmanager
    def open(self, home: Path, partitions: int) -> Iterator[OpenBroker]:
        from ingestion.broker.client import connect
        from ingestion.broker.embedded import EmbeddedBroker
        from ingestion.settings import BrokerSettings

        with EmbeddedBroker({TOPIC: partitions}, home / "broker.json") as native:
            # Without a moment for members to gather, later ones often wait for ever (a bug of the mock's).
            native._library.rd_kafka_mock_group_initial_rebalance_delay_ms(
                native._cluster, REBALANCE_DELAY_MS
            )
            client = connect(BrokerSettings(), home)
            port = int(client.bootstrap_servers.rpartition(":")[2])
            stream_id = client.streams([TOPIC])[TOPIC].stream_id
            yield OpenBroker(client, port, stream_id, partitions, native)


class ApacheKafka:
    """A real broker, one for all scenarios; each has the topic created anew."""

    embedded = False

    def __init__(self, native: "LocalKafka") -> None:
        self.name = "kafka"
        self._native = native

    @contextlib.contextmanager
    def open(self, home: Path, partitions: int) -> Iterator[OpenBroker]:
        from ingestion.broker.client import connect
        from ingestion.settings import BrokerSettings

        if self._native.running() is None:
            self._native.start()
        if TOPIC in self._native.topics():
            self._native.delete_topic(TOPIC)
        self._native.create_topic(TOPIC, partitions)
        # Commands of scenarios wait for a broker that restarts.
        settings = BrokerSettings(bootstrap_servers=self._native.bootstrap_servers, connect_timeout_s=30)
        client = connect(settings, home)
        port = int(client.bootstrap_servers.rpartition(":")[2])
        stream_id = client.streams([TOPIC])[TOPIC].stream_id
        yield OpenBroker(client, port, stream_id, partitions, self._native)


@contextlib.contextmanager
def apache_kafka(folder: Path) -> Iterator[ApacheKafka]:
    """Run a broker in a folder. Raises KafkaUnavailableError where Java, Maven or the jars cannot be had."""
    from infrastructure.kafka.local import LocalKafka, archive_classes

    archive_classes()
    with LocalKafka(folder, heap_mb=KAFKA_HEAP_MB, short_lived=True) as native:
        yield ApacheKafka(native)
