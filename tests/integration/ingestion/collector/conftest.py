"""A broker, a lake in a directory, and telemetry to send between them.

Every test that asks for a world runs twice, on the embedded broker and on Apache
Kafka, unless it is marked `only_on(kind, why)`. On Kafka the tests of a process
share one broker; each has a topic and a group of its own.
"""

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.decoders import DECODERS
from contracts.telemetry import COLLAR_DECODER
from ingestion.broker.client import BrokerClient, connect
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.collector.consent import ConsentSnapshot, OptOut
from ingestion.collector.engine import Collector
from ingestion.settings import BrokerSettings, CollectorSettings
from lake import layout
from lake.landing import Claim, claim_range, list_claims, list_manifests, utc_now, verify_chain, verify_law
from lake.store import LocalStore, ObjectStore

TOPIC = "telemetry"
PARTITIONS = 2
START = datetime(2026, 6, 1)


def event(number: int, **changes: Any) -> bytes:
    """A good message; `number` makes it distinct."""
    content = {
        "device_id": f"collar-{number % 5}",
        "event_ts": f"{START + timedelta(minutes=number):%Y-%m-%dT%H:%M:%S}Z",
        "event_id": f"e-{number}",
        "battery_pct": 50.5,
        "schema_version": 1,
    }
    return json.dumps({**content, **changes}).encode()


def arrival_ms(number: int) -> int:
    """Receipt of message `number`: two seconds after the event."""
    return int((START + timedelta(minutes=number, seconds=2) - datetime(1970, 1, 1)).total_seconds() * 1000)


@dataclass
class World:
    """One state folder with its broker, topic and lake.

    `broker` is an EmbeddedBroker or a LocalKafka; `bootstrap_servers` is empty for the first.
    """

    home: Path
    store: LocalStore
    broker: Any
    topic: str = TOPIC
    bootstrap_servers: str = ""
    group_id: str = "petwellness-collector"

    partitions = PARTITIONS
    start = START

    @staticmethod
    def event(number: int, **changes: Any) -> bytes:
        """A good message; `number` makes it distinct."""
        return event(number, **changes)

    def client(self, group_id: str | None = None, **settings: Any) -> BrokerClient:
        ours = {"bootstrap_servers": self.bootstrap_servers, "group_id": group_id or self.group_id}
        return connect(BrokerSettings(**{"connect_timeout_s": 3} | ours | settings), self.home)

    def stream_id(self) -> str:
        """The stream that the topic is now."""
        return self.client().streams([self.topic])[self.topic].stream_id

    def delete_records(self, before: int, partition: int = 0) -> None:
        """Let a partition's log start later, as retention does."""
        self.broker.delete_records(self.topic, partition, before)

    def send(
        self,
        payloads: Iterable[bytes | None],
        partition: int = 0,
        first: int = 0,
        over: int = 1,
        **settings: Any,
    ) -> None:
        """Put messages into a partition, received as `arrival_ms` of their numbers, or into `over` in turn."""
        producer = self.client(**settings).producer()
        for number, payload in enumerate(payloads, first):
            place = partition + number % over
            producer.produce(self.topic, payload, b"k", place, timestamp=arrival_ms(number))
        assert producer.flush(30) == 0

    def collector(
        self, store: ObjectStore | None = None, client: BrokerClient | None = None, **settings: Any
    ) -> Collector:
        return Collector(
            client or self.client(), store or self.store, CollectorSettings(**settings), [self.topic]
        )

    def claim(self, start: int, end: int, **changes: Any) -> Claim:
        """Claim a range of partition 0 as another collector would."""
        claim = Claim(
            stream_id=self.stream_id(),
            partition=0,
            start=start,
            end=end,
            feed="telemetry_events",
            source_system="petwellness-collar",
            decoder="collar-v1@1",
            claimed_at=utc_now(),
            claimed_by="another",
            consent_snapshot_id="s",
        )
        return claim_range(self.store, msgspec.structs.replace(claim, **changes))

    def opt_out(
        self, *opted_out: OptOut, built_at: datetime | None = None, name: str = "s"
    ) -> ConsentSnapshot:
        """Put a consent snapshot in force."""
        snapshot = ConsentSnapshot(name, built_at or utc_now(), [*opted_out])
        self.store.put_new(layout.consent_key(name), msgspec.json.encode(snapshot))
        return snapshot

    def landed(self) -> pa.Table:
        """Every landed row, after checking chain, law and that no offset is there twice."""
        return landed_rows(self.store)


def landed_rows(store: ObjectStore) -> pa.Table:
    """Every landed row of a lake; checks that every claim is finished, lawful and contiguous."""
    claims, manifests = list_claims(store), list_manifests(store)
    verify_chain(claims)
    assert sorted(c.range_key for c in claims) == sorted(m.range_key for m in manifests)
    tables = []
    for manifest in manifests:
        verify_law(manifest)
        table = pq.read_table(pa.BufferReader(store.get(manifest.source_file)))
        assert table.num_rows == manifest.rows
        tables.append(table)
    mains = [info.key for info in store.list(layout.LANDING)]
    assert sorted(m.source_file for m in manifests) == sorted(mains)
    rows = pa.concat_tables(tables)
    keys = [
        *zip(
            *(rows[name].to_pylist() for name in ("stream_id", "kafka_partition", "kafka_offset")),
            strict=True,
        )
    ]
    assert len(set(keys)) == len(keys)
    return rows


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker_kind" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("only_on")
        kinds = [only.args[0]] if only else ["embedded", "kafka"]
        metafunc.parametrize("broker_kind", kinds, indirect=True)


@pytest.fixture
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Which broker the test runs on."""
    return request.param


@contextlib.contextmanager
def world_on_kafka(kafka: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with a new topic on a running LocalKafka."""
    name = f"{TOPIC}-{uuid.uuid4().hex[:8]}"
    decoder = dataclasses.replace(DECODERS[COLLAR_DECODER], topic=name)
    monkeypatch.setitem(DECODERS, COLLAR_DECODER, decoder)
    kafka.create_topic(name, PARTITIONS)
    yield World(home, LocalStore(home / "lake"), kafka, name, kafka.bootstrap_servers, f"group-{name}")
    if name in kafka.topics():
        kafka.delete_topic(name)


@pytest.fixture
def bare_world(
    broker_kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """A world without a consent snapshot."""
    if broker_kind == "kafka":
        shared = request.getfixturevalue("shared_kafka")
        with world_on_kafka(shared, tmp_path, monkeypatch) as world:
            yield world
        return
    with EmbeddedBroker({TOPIC: PARTITIONS}, tmp_path / "broker.json") as broker:
        yield World(tmp_path, LocalStore(tmp_path / "lake"), broker)


@pytest.fixture
def world(bare_world: World) -> World:
    """A world in which nobody opted out."""
    bare_world.opt_out()
    return bare_world


@pytest.fixture
def kafka_world(disturbed_kafka: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world with a Kafka that the test may stop, kill and freeze, if it starts it again."""
    with world_on_kafka(disturbed_kafka, tmp_path, monkeypatch) as world:
        world.opt_out()
        yield world
