"""An embedded broker, a lake in a directory, and telemetry to send between them."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.broker.client import BrokerClient, connect
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.collector.consent import ConsentSnapshot, OptOut
from ingestion.collector.engine import Collector
from ingestion.lake import layout
from ingestion.lake.landing import list_claims, list_manifests, utc_now, verify_chain, verify_law
from ingestion.lake.store import LocalStore, ObjectStore
from ingestion.settings import BrokerSettings, CollectorSettings

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
    """One state folder with its broker and lake."""

    home: Path
    store: LocalStore
    broker: EmbeddedBroker

    topic = TOPIC
    partitions = PARTITIONS
    start = START

    @staticmethod
    def event(number: int, **changes: Any) -> bytes:
        """A good message; `number` makes it distinct."""
        return event(number, **changes)

    def client(self) -> BrokerClient:
        return connect(BrokerSettings(connect_timeout_s=3), self.home)

    def send(self, payloads: Iterable[bytes | None], partition: int = 0, first: int = 0) -> None:
        """Put messages into a partition, received as `arrival_ms` of their numbers."""
        producer = self.client().producer()
        for number, payload in enumerate(payloads, first):
            producer.produce(TOPIC, payload, b"k", partition, timestamp=arrival_ms(number))
        assert producer.flush(10) == 0

    def collector(self, store: ObjectStore | None = None, **settings: Any) -> Collector:
        return Collector(self.client(), store or self.store, CollectorSettings(**settings), [TOPIC])

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


@pytest.fixture
def bare_world(tmp_path: Path) -> Iterator[World]:
    """A world without a consent snapshot."""
    with EmbeddedBroker({TOPIC: PARTITIONS}, tmp_path / "broker.json") as broker:
        yield World(tmp_path, LocalStore(tmp_path / "lake"), broker)


@pytest.fixture
def world(bare_world: World) -> World:
    """A world in which nobody opted out."""
    bare_world.opt_out()
    return bare_world
