"""The collector between a broker and a lake: every message once, whatever happens."""

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting import DEADLINE_S, IN_TIME_S, until

from ingestion.broker.client import BrokerUnreachableError, connect
from ingestion.broker.embedded import EmbeddedBroker
from ingestion.collector import engine
from ingestion.collector.consent import ConsentSnapshotStaleError, OptOut
from ingestion.collector.engine import Collector, DrainIdleError
from ingestion.collector.ranges import DecoderVersionError
from ingestion.collector.recovery import LogTruncatedError
from ingestion.settings import BrokerSettings, CollectorSettings
from lake import layout
from lake.landing import Claim, list_claims, list_manifests, read_manifest, utc_now
from lake.progress import read_progress
from lake.store import LocalStore, StoreUnreachableError

World = Any  # The class of the fixtures; see conftest.


def test_every_message_becomes_a_row_or_a_reject_with_its_reason(world: World) -> None:
    world.send(
        [
            world.event(0),
            b"",
            world.event(1, battery_pct=150),
            world.event(2),
            b"{",
            None,
            world.event(3, event_ts="2020-01-01T00:00:00Z"),
        ]
    )
    world.send([world.event(10), world.event(11)], partition=1, first=10)
    report = world.collector().drain()
    rows = world.landed()
    assert (report.messages, report.rows, report.files) == (9, 4, 2)
    assert dict(report.rejected_by_reason) == {"empty": 2, "range": 1, "malformed": 1, "clock": 1}
    assert sorted(rows["event_id"].to_pylist()) == ["e-0", "e-10", "e-11", "e-2"]
    assert rows["payload"].to_pylist()[0] == world.event(0).decode()
    assert rows["arrival_ts"].to_pylist()[0] == world.start + timedelta(seconds=2)
    manifest = next(m for m in list_manifests(world.store) if m.partition == 0)
    assert manifest.reject_object is not None
    dead = pq.read_table(pa.BufferReader(world.store.get(manifest.reject_object)))
    assert dead["kafka_offset"].to_pylist() == [1, 2, 4, 5, 6]
    assert dead["reason"].to_pylist() == ["empty", "range", "malformed", "empty", "clock"]
    assert dead["payload"].to_pylist()[1] == world.event(1, battery_pct=150)
    assert set(report.latency_s) == {"p50", "p95", "p99", "max"}


def test_a_second_drain_finds_nothing_and_leaves_no_more_than_a_mark(world: World) -> None:
    world.send(map(world.event, range(5)))
    world.collector().drain()
    before = {*world.store.list("")}
    report = world.collector().drain()
    assert (report.messages, report.files) == (0, 0)
    assert [info.key.split("/")[0] for info in {*world.store.list("")} - before] == ["_progress"]


def test_a_drain_leaves_a_mark_of_the_end_of_every_partition(world: World) -> None:
    world.send(map(world.event, range(5)))
    before = utc_now()
    world.collector().drain()
    [mark] = read_progress(world.store)
    ends = {seen.partition: (seen.stream_id, seen.end) for seen in mark.partitions}
    assert ends == {0: (world.stream_id(), 5), 1: (world.stream_id(), 0)}
    assert all(seen.at is not None and before <= seen.at <= utc_now() for seen in mark.partitions)


def test_a_collector_that_does_not_know_the_end_marks_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was produced since the end was seen is not landed, so the log does not end there any more."""
    world.send(map(world.event, range(5)))
    collector = world.collector()
    finish = collector._finish

    def produced_meanwhile(consumer: Any) -> None:
        finish(consumer)
        world.send([world.event(5)], first=5)

    monkeypatch.setattr(collector, "_finish", produced_meanwhile)
    collector.drain()
    [mark] = read_progress(world.store)
    seen = {one.partition: (one.end, one.at is None) for one in mark.partitions}
    assert seen == {0: (5, True), 1: (0, False)}


def test_a_service_leaves_marks_again_and_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MARK_EVERY_S", 0.2)
    world.send(map(world.event, range(5)))
    stop, started = threading.Event(), time.monotonic()

    def until_marked(_: Any) -> None:
        assert time.monotonic() - started < DEADLINE_S, "no two marks of the ends of both partitions"
        ends = [[(one.end, one.at is None) for one in mark.partitions] for mark in read_progress(world.store)]
        if sum(sorted(seen) == [(0, False), (5, False)] for seen in ends) >= 2:
            stop.set()

    monkeypatch.setattr(engine, "PROGRESS_EVERY_S", 0.1)
    world.collector(rotate_age_s=0.2).run_forever(stop, until_marked)
    assert stop.is_set()


def test_an_empty_topic_drains_to_nothing(world: World) -> None:
    assert world.collector().drain().messages == 0


def test_a_drain_goes_on_where_the_last_one_ended(world: World) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    world.send(map(world.event, range(3, 5)), first=3)
    world.collector().drain()
    assert sorted((c.start, c.end) for c in list_claims(world.store)) == [(0, 3), (3, 5)]
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 3, 4]


def test_ranges_are_closed_by_rows_and_by_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONSUME_MESSAGES", 5)
    world.send(map(world.event, range(12)))
    report = world.collector(rotate_rows=5).drain()
    assert report.rotations_by_reason["rows"] >= 1
    world.send(map(world.event, range(12, 24)), first=12)
    report = world.collector(rotate_bytes=500).drain()
    assert report.rotations_by_reason["bytes"] >= 1
    assert world.landed()["kafka_offset"].to_pylist() == [*range(24)]


def test_all_buffers_together_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONSUME_MESSAGES", 5)
    for partition in range(world.partitions):
        world.send(map(world.event, range(20)), partition)
    report = world.collector(max_held_bytes=2_000).drain()
    assert report.rotations_by_reason["memory"] >= 2
    assert world.landed().num_rows == 40


class Dying(LocalStore):
    """A store whose process dies after its n-th put, all its threads at once."""

    def __init__(self, root: Path, puts: int) -> None:
        super().__init__(root)
        self.puts = puts
        self.lock = threading.Lock()

    def put_new(self, key: str, data: bytes) -> None:
        with self.lock:
            self.puts -= 1
            if self.puts < 0:
                raise InterruptedError
            super().put_new(key, data)
            if self.puts == 0:
                raise InterruptedError


@pytest.mark.parametrize("puts", range(1, 9))
def test_a_collector_may_die_after_any_put(world: World, puts: int) -> None:
    """Two ranges of claim, rejects, main object and manifest: eight puts."""
    for partition in range(world.partitions):
        world.send([world.event(0), b"bad", world.event(2)], partition)
    with pytest.raises(InterruptedError):
        world.collector(Dying(world.home / "lake", puts)).drain()
    world.send([world.event(3)], first=3)
    report = world.collector().drain()
    rows = world.landed()
    assert sorted(
        zip(rows["kafka_partition"].to_pylist(), rows["kafka_offset"].to_pylist(), strict=True)
    ) == [
        (0, 0),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 2),
    ]
    assert sum(m.rejected for m in list_manifests(world.store)) == 2
    assert report.recovered_claims <= 2


def test_two_collectors_of_the_same_partitions_land_each_message_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when an owner that was thought dead wakes up: both believe that the partitions are theirs.

    On Kafka each is in a group of its own, so that both are given every partition.
    """
    monkeypatch.setattr(engine, "CONSUME_MESSAGES", 40)
    for partition in range(world.partitions):
        world.send(map(world.event, range(400)), partition)
    reports: list[Any] = []
    ready = threading.Barrier(2)

    def work(rotate_rows: int) -> None:
        collector = world.collector(client=world.client(f"group-{rotate_rows}"), rotate_rows=rotate_rows)
        ready.wait()
        reports.append(collector.drain())

    threads = [threading.Thread(target=work, args=(rows,)) for rows in (30, 70)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    assert world.landed().num_rows == 800


def test_a_range_that_another_claimed_is_landed_with_that_claims_bounds(world: World) -> None:
    collector = world.collector()
    world.send(map(world.event, range(5)))
    claimed: list[Claim] = []

    def claim_late(_: Any) -> bool:
        if not claimed:
            claimed.append(world.claim(0, 3))
        return True

    original = engine.claim_range

    def racing(store: Any, claim: Claim) -> Claim:
        claim_late(None)
        return original(store, claim)

    engine.claim_range = racing
    try:
        report = collector.drain()
    finally:
        engine.claim_range = original
    assert sorted((c.start, c.end, c.claimed_by) for c in list_claims(world.store))[0] == (0, 3, "another")
    assert report.recovered_claims == 1
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 3, 4]


def test_an_open_claim_is_replayed_under_its_own_consent_snapshot(world: World) -> None:
    world.opt_out(OptOut("collar-1", world.start, None), name="r")
    world.claim(0, 3, consent_snapshot_id="r")
    world.send(map(world.event, range(6)))
    world.collector().drain()
    dropped = {m.start: m.consent_dropped for m in list_manifests(world.store)}
    assert dropped == {0: 1, 3: 0}


def test_an_open_claim_of_an_unknown_decoder_is_not_decoded_otherwise(world: World) -> None:
    world.claim(0, 3, decoder="collar-v1@0")
    world.send(map(world.event, range(6)))
    with pytest.raises(DecoderVersionError, match="collar-v1@0"):
        world.collector().drain()
    assert list_manifests(world.store) == []


def test_messages_that_expired_before_they_were_claimed_are_a_gap(world: World) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    # The mock cluster deletes whole batches; each send is one.
    world.send(map(world.event, range(3, 6)), first=3)
    world.send(map(world.event, range(6, 9)), first=6)
    world.delete_records(6)
    report = world.collector().drain()
    assert report.gap_claims == 1
    gap = read_manifest(world.store, (list_claims(world.store)[0].stream_id, 0, 3))
    assert (gap.end, gap.rows, gap.offset_gaps, gap.gap_reason) == (6, 0, 3, "the log starts at 6")
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 6, 7, 8]


def test_messages_that_expired_after_they_were_claimed_are_counted_as_gaps(world: World) -> None:
    world.send(map(world.event, range(3)))
    world.send(map(world.event, range(3, 6)), first=3)
    world.claim(0, 5)
    world.delete_records(3)
    world.collector().drain()
    first = read_manifest(world.store, (list_claims(world.store)[0].stream_id, 0, 0))
    assert (first.end, first.rows, first.offset_gaps) == (5, 2, 3)
    assert world.landed()["kafka_offset"].to_pylist() == [3, 4, 5]


def test_a_log_shorter_than_what_was_landed_stops_the_collector(world: World) -> None:
    world.send(map(world.event, range(3)))
    world.claim(0, 10)
    with pytest.raises(LogTruncatedError, match=rf"{world.topic}\[0\] ends at 3"):
        world.collector().drain()


@pytest.mark.only_on("embedded", "Kafka keeps its log when it stops")
def test_claims_of_a_broker_that_stopped_are_closed_and_the_new_stream_is_another(world: World) -> None:
    world.send(map(world.event, range(3)))
    with pytest.raises(InterruptedError):
        world.collector(Dying(world.home / "lake", 1)).drain()
    world.broker.stop()
    with EmbeddedBroker({world.topic: world.partitions}, world.home / "broker.json"):
        world.send(map(world.event, range(3)))
        world.collector().drain()
    rows = world.landed()
    assert rows["kafka_offset"].to_pylist() == [0, 1, 2]
    [closed] = [m for m in list_manifests(world.store) if m.gap_reason]
    assert (closed.offset_gaps, closed.gap_reason) == (3, "the embedded broker stopped")
    assert rows["stream_id"].to_pylist()[0] != closed.stream_id


def test_opted_out_devices_leave_no_row_and_no_payload(bare_world: World) -> None:
    bare_world.opt_out(OptOut("collar-1", bare_world.start, bare_world.start + timedelta(minutes=3)))
    bad = b'{"device_id":"collar-1"'
    bare_world.send(
        [bare_world.event(0), bare_world.event(1), bad, bare_world.event(6), bad.replace(b"-1", b"-2")]
    )
    report = bare_world.collector().drain()
    rows = bare_world.landed()
    assert report.consent_dropped == 1
    assert report.consent_dropped_by_reason == {"analytics_opt_out": 1}
    assert rows["event_id"].to_pylist() == ["e-0", "e-6"]
    [manifest] = list_manifests(bare_world.store)
    assert manifest.reject_object is not None
    dead = pq.read_table(pa.BufferReader(bare_world.store.get(manifest.reject_object)))
    assert dead["payload"].to_pylist() == [None, bad.replace(b"-1", b"-2")]
    everything = b"".join(bare_world.store.get(i.key) for i in bare_world.store.list(layout.LANDING))
    assert b"e-1" not in everything


def test_nothing_is_ingested_under_a_stale_consent_snapshot_or_none(bare_world: World) -> None:
    bare_world.send(map(bare_world.event, range(3)))
    with pytest.raises(ConsentSnapshotStaleError, match="no consent snapshot"):
        bare_world.collector().drain()
    bare_world.opt_out(built_at=utc_now() - timedelta(hours=2))
    with pytest.raises(ConsentSnapshotStaleError, match="s old"):
        bare_world.collector(consent_max_age_s=3600).drain()
    assert list_claims(bare_world.store) == []


def test_a_drain_told_to_wait_waits_and_takes_what_comes(world: World) -> None:
    world.send(map(world.event, range(2)))
    told = threading.Event()

    def later() -> None:
        until(lambda: list_manifests(world.store), "a landed range")
        world.send(map(world.event, range(2, 4)), first=2)
        told.set()

    thread = threading.Thread(target=later)
    thread.start()
    report = world.collector().drain(until=told.is_set)
    thread.join()
    assert report.messages == 4
    assert world.landed().num_rows == 4


def test_a_drain_does_not_wait_forever(world: World) -> None:
    with pytest.raises(DrainIdleError, match="1 s"):
        world.collector().drain(until=lambda: False, idle_timeout_s=1)


def test_the_service_lands_what_it_holds_when_it_is_stopped(world: World) -> None:
    stop = threading.Event()
    reports = []
    thread = threading.Thread(
        target=lambda: reports.append(
            world.collector().run_forever(stop, progress=lambda r: r.messages >= 3 and stop.set())
        )
    )
    world.send(map(world.event, range(3)))
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert reports[0].rotations_by_reason == {"stop": 1}
    assert world.landed().num_rows == 3


@pytest.mark.only_on("embedded", "the shared Kafka goes on; see test_kafka for one that stops")
def test_a_broker_that_stops_in_the_middle_is_named(world: World) -> None:
    world.send(map(world.event, range(3)))
    collector = world.collector()
    started = time.monotonic()

    def stop_broker(report: Any) -> None:
        if report.messages == 3:
            world.broker.stop()

    with pytest.raises(BrokerUnreachableError, match="PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"):
        collector.drain(until=lambda: False, progress=stop_broker)
    assert time.monotonic() - started < IN_TIME_S


def test_a_broker_that_is_down_is_named(tmp_path: Path) -> None:
    settings = BrokerSettings(bootstrap_servers="127.0.0.1:1", connect_timeout_s=1)
    with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1 .*PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"):
        connect(settings, tmp_path)


def test_a_lake_that_cannot_be_used_is_named_before_anything_is_consumed(world: World) -> None:
    (world.home / "file").touch()
    collector = Collector(
        world.client(), LocalStore(world.home / "file" / "lake"), CollectorSettings(), [world.topic]
    )
    with pytest.raises(StoreUnreachableError, match="PETWELLNESS_LAKE_URL"):
        collector.drain()
