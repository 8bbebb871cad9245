"""Waves: published with flow control, recorded once seen landed, a no-op afterwards."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ingestion.collector import engine
from lake import layout
from lake.landing import list_manifests
from lake.progress import read_progress
from lake.store import S3Store
from simulation import publisher
from simulation.publisher import (
    LandingStalledError,
    LivePublisher,
    ReceiptInFutureError,
    publish_wave,
    publish_waves,
    published_wave,
)

World = Any  # The class of the fixtures; see conftest.


@dataclass(frozen=True)
class Columns:
    topic: str
    keys: list[bytes]
    values: list[bytes]
    arrival_ts_ms: list[int]


class Single(NamedTuple):
    topic: str
    key: bytes
    value: bytes
    arrival_ts_ms: int


def batches(world: World, count: int, size: int = 50) -> Iterator[Columns]:
    for first in range(0, count, size):
        numbers = range(first, first + size)
        yield Columns(
            world.topic,
            [b"collar-%d" % (number % 7) for number in numbers],
            [world.event(number) for number in numbers],
            [1_780_272_000_000 + 60_000 * number for number in numbers],
        )


def while_collecting(world: World, work: Callable[[], Any]) -> Any:
    """Run `work` beside a collector that drains until it is over; gives what it gave."""
    over, results = threading.Event(), []

    def run() -> None:
        try:
            results.append(work())
        finally:
            over.set()

    thread = threading.Thread(target=run)
    thread.start()
    world.collector().drain(until=over.is_set, idle_timeout_s=20)
    thread.join()
    return results[0]


def test_a_wave_is_recorded_once_landed_and_then_left_alone(world: World) -> None:
    report = while_collecting(
        world, lambda: publish_wave(world.client(), world.store, "w1", batches(world, 200))
    )
    assert (report.messages, report.already_landed) == (200, False)
    rows = world.landed()
    assert rows.num_rows == 200
    # A device stays in one partition, so its messages stay in order.
    keys = [int(event_id[2:]) % 7 for event_id in rows["event_id"].to_pylist()]
    assert len({*zip(keys, rows["kafka_partition"].to_pylist(), strict=True)}) == 7
    record = published_wave(world.store, "w1")
    assert record is not None
    assert sum(end for ends in record.ends.values() for end in ends.values()) == 200

    def unread() -> Iterator[Columns]:
        raise AssertionError("a wave that landed must not be read again")
        yield

    again = publish_wave(world.client(), world.store, "w1", unread())
    assert (again.messages, again.already_landed) == (200, True)
    assert world.landed().num_rows == 200


def test_waves_follow_one_another_and_each_is_recorded(world: World) -> None:
    waves = [(f"w{n}", batches(world, 100)) for n in range(3)]
    reports = while_collecting(world, lambda: [*publish_waves(world.client(), world.store, waves)])
    assert [(r.wave_id, r.messages) for r in reports] == [("w0", 100), ("w1", 100), ("w2", 100)]
    assert [info.key for info in world.store.list(layout.WAVES)] == [
        layout.wave_key(f"w{n}") for n in range(3)
    ]
    assert world.landed().num_rows == 300
    # The publisher's own word that all of it has landed, besides the collector's.
    ends = {m.partition: m.end for m in sorted(list_manifests(world.store), key=lambda m: m.start)}
    marks = [
        {seen.partition: seen.end for seen in mark.partitions if seen.at}
        for mark in read_progress(world.store)
    ]
    assert marks[-2:] == [ends, ends]


def test_without_a_collector_no_wave_is_recorded_and_publishing_again_completes_it(world: World) -> None:
    with pytest.raises(LandingStalledError, match="collector"):
        publish_wave(world.client(), world.store, "w1", batches(world, 100), stall_timeout_s=0.5)
    assert published_wave(world.store, "w1") is None
    report = while_collecting(
        world, lambda: publish_wave(world.client(), world.store, "w1", batches(world, 100))
    )
    assert not report.already_landed
    rows = world.landed()
    assert rows.num_rows == 200
    assert len(set(rows["event_id"].to_pylist())) == 100


@pytest.mark.only_on("embedded", "Kafka keeps what is unlanded")
def test_on_the_embedded_broker_never_more_is_unlanded_than_it_keeps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 8 times the allowance to send, production stops until the collector lands."""
    allowance = 8_000
    monkeypatch.setattr(publisher, "MAX_UNLANDED_BYTES", allowance)
    monkeypatch.setattr(engine, "EMBEDDED_ROTATE_BYTES", 3_000)
    seen: list[int] = []
    original = publisher._Lane.produced

    def watched(lane: Any, size: int) -> None:
        original(lane, size)
        seen.append(lane.unlanded_bytes)

    monkeypatch.setattr(publisher._Lane, "produced", watched)
    report = while_collecting(
        world, lambda: publish_wave(world.client(), world.store, "w1", batches(world, 600))
    )
    assert report.bytes > 8 * allowance
    assert max(seen) <= allowance
    assert world.landed().num_rows == 600


@pytest.mark.only_on("embedded", "Kafka keeps what is unlanded")
def test_what_another_left_unlanded_counts_against_the_allowance(world: World) -> None:
    world.send([world.event(n) for n in range(5)])
    with LivePublisher(world.client(), world.store, stall_timeout_s=0.3) as live:
        lanes = live._lanes_of(world.topic)
        assert [lane.unlanded_bytes > 0 for lane in lanes] == [True, False]


def test_single_messages_of_several_topics_may_come_as_lists(world: World) -> None:
    messages = [Single(world.topic, b"a", world.event(n), 1_780_272_000_000) for n in range(5)]
    report = while_collecting(world, lambda: publish_wave(world.client(), world.store, "w1", [messages]))
    assert report.messages == 5
    assert world.landed()["event_id"].to_pylist() == [f"e-{n}" for n in range(5)]


@pytest.mark.only_on("embedded", "it is refused before any broker has it")
def test_messages_that_would_be_received_in_the_future_are_refused_before_they_are_sent(world: World) -> None:
    later = int(time.time() * 1000) + 70 * 60_000
    with (
        LivePublisher(world.client(), world.store) as to_broker,
        pytest.raises(ReceiptInFutureError, match="PETWELLNESS_FLEET_START"),
    ):
        to_broker.send([Single(world.topic, b"a", world.event(0), later)])


def test_live_messages_belong_to_no_wave(world: World) -> None:
    def live() -> int:
        with LivePublisher(world.client(), world.store) as to_broker:
            return sum(to_broker.send(batch) for batch in batches(world, 100))

    assert live() == 100
    world.collector().drain()
    assert world.landed().num_rows == 100
    assert [*world.store.list(layout.WAVES)] == []


def test_the_whole_way_into_a_lake_on_s3(world: World) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # All servers of a process share their buckets.
    bucket = f"lake-{uuid.uuid4().hex[:8]}"
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="k",
            aws_secret_access_key="s",
        ).create_bucket(Bucket=bucket)
        world.store = S3Store(bucket, "p", endpoint_url=endpoint, access_key_id="k", secret_access_key="s")
        world.opt_out(name="on-s3")
        report = while_collecting(
            world, lambda: publish_wave(world.client(), world.store, "w1", batches(world, 100))
        )
        assert report.messages == 100
        assert world.landed().num_rows == 100
        assert sum(m.rows for m in list_manifests(world.store)) == 100
    finally:
        server.stop()
