"""A real mosquitto, a Kafka that can be switched off, and a bridge in a thread between them."""

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from waiting import DEADLINE_S, end, until

from ingestion.bridge.engine import Bridge
from ingestion.broker.client import BrokerClient, connect
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.settings import BrokerSettings, MqttSettings
from lake.store import ObjectStore

TOPIC, REFUSED = "telemetry", "telemetry.refused"
PARTITIONS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Mosquitto:
    """A mosquitto on a free port of 127.0.0.1 that keeps its state in a folder."""

    def __init__(self, binary: str, folder: Path, *lines: str) -> None:
        self._binary = binary
        self._folder = folder
        self._lines = lines
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        configuration = self._folder / "mosquitto.conf"
        configuration.write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    # As root it would give up its rights, and with them its folder.
                    *(["user root"] if os.getuid() == 0 else []),
                    *(self._lines or ["allow_anonymous true"]),
                    "persistence true",
                    f"persistence_location {self._folder}/",
                    "max_queued_messages 0",
                    "max_inflight_messages 1000",
                ]
            )
            + "\n"
        )
        with (self._folder / "mosquitto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-c", str(configuration)], stdout=log, stderr=subprocess.STDOUT
            )
        until(self._listens, f"mosquitto listens, see {self._folder}/mosquitto.log")

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (
            self._folder / "mosquitto.log"
        ).read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """As on a restart of its service: it saves what it keeps."""
        if self._process is not None:
            end(self._process)
            self._process = None

    @contextmanager
    def publisher(self) -> Iterator[Callable[..., None]]:
        """`publish(topic, payload, qos=1)`; at the end of the context the broker has everything."""
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.max_inflight_messages_set(1000)
        client.connect("127.0.0.1", self.port)
        client.loop_start()
        sent = []

        def publish(topic: str, payload: bytes, qos: int = 1) -> None:
            sent.append(client.publish(topic, payload, qos=qos))

        yield publish
        for info in sent:
            info.wait_for_publish(DEADLINE_S)
            assert info.is_published()
        client.disconnect()
        client.loop_stop()


def event(number: int, device: str) -> bytes:
    """A good message of a live collar; `number` makes it distinct."""
    moment = datetime.now(UTC) - timedelta(hours=1) + timedelta(milliseconds=number)
    return json.dumps(
        {
            "device_id": device,
            "event_ts": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
            "event_id": f"e-{number}",
            "battery_pct": 50.5,
            "schema_version": 1,
        }
    ).encode()


def events(count: int, first: int = 0) -> list[tuple[str, str, bytes]]:
    """Topic, device and payload of some messages, of five collars in turn."""
    numbered = ((number, f"collar-{number % 5}") for number in range(first, first + count))
    return [(f"petwellness/c1/{device}/telemetry", device, event(n, device)) for n, device in numbered]


@dataclass
class Running:
    """A bridge in a thread."""

    bridge: Bridge
    stop_event: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    told: list[str] = field(default_factory=list)

    def start(self) -> "Running":
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        return self

    def _run(self) -> None:
        try:
            self.bridge.run(self.stop_event)
        except BaseException as error:
            self.error = error

    @property
    def report(self) -> Any:
        return self.bridge.report

    def stop(self) -> None:
        self.stop_event.set()
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()

    def until_serving(self) -> "Running":
        until(lambda: any("bridge runs" in line for line in self.told), "the bridge runs")
        return self


@dataclass
class World:
    """Both brokers and the bridges between them."""

    home: Path
    mosquitto: Mosquitto
    broker: EmbeddedBroker
    running: list[Running] = field(default_factory=list)

    def kafka(self, embedded: bool = False) -> BrokerClient:
        """A client that takes the embedded broker for Kafka, unless told otherwise."""
        found = connect(BrokerSettings(connect_timeout_s=5), self.home)
        return (
            found
            if embedded
            else BrokerClient(found.settings, found.bootstrap_servers, found.card_path, None)
        )

    def bridge(
        self,
        *,
        kafka: BrokerClient | None = None,
        topic: str = TOPIC,
        store: ObjectStore | None = None,
        **settings: Any,
    ) -> Running:
        mqtt = MqttSettings(**{"url": self.mosquitto.url, "connect_timeout_s": 5, **settings})
        told: list[str] = []
        running = Running(
            Bridge(kafka or self.kafka(), mqtt, topic, store=store, tell=told.append), told=told
        ).start()
        self.running.append(running)
        return running

    def publish(self, messages: list[tuple[str, str, bytes]], qos: int = 1) -> None:
        with self.mosquitto.publisher() as publish:
            for topic, _, payload in messages:
                publish(topic, payload, qos)

    def kafka_down(self) -> None:
        self._switch("rd_kafka_mock_broker_set_down")

    def kafka_up(self) -> None:
        self._switch("rd_kafka_mock_broker_set_up")

    def _switch(self, function: str) -> None:
        assert getattr(self.broker._library, function)(ctypes.c_void_p(self.broker._cluster), 1) == 0

    def refuse_next(self, code: int) -> None:
        """Kafka answers the next request to produce with an error."""
        produce = 0
        self.broker._library.rd_kafka_mock_push_request_errors(
            ctypes.c_void_p(self.broker._cluster),
            ctypes.c_int16(produce),
            ctypes.c_size_t(1),
            ctypes.c_int(code),
        )

    def messages(self, topic: str = TOPIC) -> list[Any]:
        """Everything in a topic, by partition in order."""
        consumer = self.kafka().consumer()
        found: list[Any] = []
        ended: set[int] = set()
        partitions = PARTITIONS if topic == TOPIC else 1
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])

        def has_ended() -> bool:
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    found.append(message)
                else:
                    ended.add(message.partition())
            return len(ended) == partitions

        until(has_ended, "the topic's end")
        consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))


@pytest.fixture
def mosquitto_at(tmp_path: Path, program: Callable[[str, str], str]) -> Iterator[Callable[..., Mosquitto]]:
    """Start a mosquitto with some lines of configuration."""
    binary = program("mosquitto", "mosquitto")
    started: list[Mosquitto] = []

    def start(*lines: str) -> Mosquitto:
        mosquitto = Mosquitto(binary, tmp_path / f"mosquitto-{len(started)}", *lines)
        started.append(mosquitto)
        mosquitto.start()
        return mosquitto

    yield start
    for mosquitto in started:
        mosquitto.stop()


@pytest.fixture
def world(tmp_path: Path, mosquitto_at: Callable[..., Mosquitto]) -> Iterator[World]:
    mosquitto = mosquitto_at()
    with EmbeddedBroker({TOPIC: PARTITIONS, REFUSED: 1}, tmp_path / "broker.json") as broker:
        world = World(tmp_path, mosquitto, broker)
        yield world
        for running in world.running:
            running.stop_event.set()
        for running in world.running:
            running.stop()


@pytest.fixture
def make_events() -> Callable[..., list[tuple[str, str, bytes]]]:
    """`make_events(count, first=0)`: see `events`."""
    return events
