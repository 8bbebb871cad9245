"""The collector on Apache Kafka: what the embedded broker cannot do.

Identity of topics, restarts, growth, groups with several members, committed
offsets, transactions. What both brokers can do is in `test_drain`.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from waiting import DEADLINE_S, IN_TIME_S, until

from ingestion.broker import client as broker_client
from ingestion.broker.client import BrokerClient, BrokerUnreachableError
from ingestion.collector.engine import DrainReport
from lake.landing import list_claims, list_manifests, read_manifest
from simulation.publisher import RetentionTooShortError, publish_wave

World = Any  # The class of the fixtures; see conftest.


class Message(NamedTuple):
    topic: str
    key: bytes
    value: bytes
    arrival_ts_ms: int


class QuickClient(BrokerClient):
    """Its consumers hear of a rebalance at once; members hear of it with their heartbeats, every 3 s."""

    def consumer(self, **overrides: Any) -> Any:
        return super().consumer(**{"heartbeat.interval.ms": 300} | overrides)


class Service:
    """A collector that runs forever in a thread; `stop` gives its report or raises what it raised."""

    def __init__(self, world: World, member: str | None = None, **settings: Any) -> None:
        self.messages = 0
        self._stop = threading.Event()
        self._report: DrainReport | None = None
        self._error: BaseException | None = None
        given = vars(world.client(group_instance_id=member))
        # How long a broker takes to come back is the machine's business, beyond what the setting allows.
        patient = given["settings"].model_copy(update={"connect_timeout_s": DEADLINE_S})
        client = QuickClient(**given | {"settings": patient})
        self._collector = world.collector(client=client, **{"rotate_age_s": 0.2} | settings)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._report = self._collector.run_forever(self._stop, self._note)
        except BaseException as error:
            self._error = error

    def _note(self, report: DrainReport) -> None:
        self.messages = report.messages

    def running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> DrainReport:
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the collector does not stop"
        if self._error is not None:
            raise self._error
        assert self._report is not None
        return self._report


@contextlib.contextmanager
def service(world: World, member: str | None = None, **settings: Any) -> Iterator[Service]:
    one = Service(world, member, **settings)
    try:
        yield one
    finally:
        one._stop.set()
        one._thread.join(timeout=60)


def landed_count(world: World) -> int:
    return sum(manifest.rows for manifest in list_manifests(world.store))


def until_landed(world: World, rows: int, *services: Service) -> None:
    def there() -> bool:
        for one in services:
            if not one.running():
                one.stop()  # Raises what ended it.
        return landed_count(world) >= rows

    until(there, f"{rows} landed rows")


def members(world: World) -> list[int]:
    """How many partitions each member of a stable group has; empty while the group is not stable."""
    from confluent_kafka import ConsumerGroupState

    [group] = world.broker.admin().describe_consumer_groups([world.group_id]).values()
    found = group.result()
    if found.state != ConsumerGroupState.STABLE:
        return []
    return sorted(len(member.assignment.topic_partitions) for member in found.members)


def commit(world: World, offset: int, metadata: str, partition: int = 0) -> None:
    """Commit an offset for the world's group, as a former owner would."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    place = TopicPartition(world.topic, partition, offset, metadata)
    request = [ConsumerGroupTopicPartitions(world.group_id, [place])]
    [done] = world.broker.admin().alter_consumer_group_offsets(request).values()
    assert done.result().topic_partitions[0].error is None


def committed(world: World, partition: int = 0) -> tuple[int, str]:
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    request = [ConsumerGroupTopicPartitions(world.group_id, [TopicPartition(world.topic, partition)])]
    [done] = world.broker.admin().list_consumer_group_offsets(request).values()
    [place] = done.result().topic_partitions
    return place.offset, place.metadata


def event_ids(world: World) -> list[str]:
    return sorted(world.landed()["event_id"].to_pylist(), key=lambda name: int(name[2:]))


def ids(count: int, first: int = 0) -> list[str]:
    return [f"e-{number}" for number in range(first, first + count)]


# Identity


@pytest.mark.only_on("kafka", "the embedded broker has no topics to delete")
def test_a_recreated_topic_is_a_new_stream_and_starts_at_its_own_offset_0(world: World) -> None:
    world.send(map(world.event, range(5)))
    first = world.stream_id()
    world.collector().drain()
    world.broker.delete_topic(world.topic)
    world.broker.create_topic(world.topic, world.partitions)
    second = world.stream_id()
    world.send(map(world.event, range(10, 13)), first=10)
    world.collector().drain()
    rows = world.landed().to_pylist()
    assert {(row["stream_id"], row["event_id"], row["kafka_offset"]) for row in rows} == {
        *((first, f"e-{n}", n) for n in range(5)),
        *((second, f"e-{10 + n}", n) for n in range(3)),
    }


@pytest.mark.only_on("kafka", "the embedded broker has no topics to delete")
@pytest.mark.parametrize("messages", [3, 12], ids=["shorter", "longer"])
@pytest.mark.parametrize("rotate_age_s", [0.2, 3.0], ids=["landed", "buffered"])
def test_a_topic_recreated_under_a_running_collector_is_mixed_with_nothing(
    world: World, messages: int, rotate_age_s: float
) -> None:
    """The collector may go on or stop with an error; what it lands carries the stream it came from.

    The old stream's messages are landed, or still in the buffer that the new one's would join. Those
    in the buffer were deleted with their topic and may be lost.
    """
    world.send(map(world.event, range(5)))
    first = world.stream_id()
    with service(world, rotate_age_s=rotate_age_s) as one:
        until(lambda: one.messages >= 5, "the old stream's messages")
        if rotate_age_s < 1:
            until_landed(world, 5, one)
        world.broker.delete_topic(world.topic)
        world.broker.create_topic(world.topic, world.partitions)
        second = world.stream_id()
        world.send(map(world.event, range(100, 100 + messages)), first=100)
        # Its consumer meets the new topic within a second; a collector that takes no notice lands it.
        until(lambda: not one.running() or one.messages > 5, "the new stream's messages")
        with contextlib.suppress(Exception):
            one.stop()
    world.collector().drain()
    of_the_first = {(first, f"e-{n}", n) for n in range(5)}
    of_the_second = {(second, f"e-{100 + n}", n) for n in range(messages)}
    rows = world.landed().to_pylist()
    landed = {(row["stream_id"], row["event_id"], row["kafka_offset"]) for row in rows}
    assert landed | of_the_first == of_the_first | of_the_second
    assert of_the_second <= landed
    if rotate_age_s < 1:
        assert of_the_first <= landed


@pytest.mark.only_on("kafka", "the embedded broker has no retention by time")
def test_a_replay_into_a_topic_that_would_delete_it_is_refused(world: World) -> None:
    world.broker.delete_topic(world.topic)
    world.broker.create_topic(world.topic, world.partitions, {"retention.ms": "3600000"})
    message = Message(world.topic, b"k", world.event(0), arrival_ts_ms=1_496_448_000_000)
    with pytest.raises(RetentionTooShortError, match=world.topic):
        publish_wave(world.client(), world.store, "w1", [[message]])
    assert world.collector().drain().messages == 0


# The broker comes and goes


@pytest.mark.parametrize("crash", [False, True], ids=["in good order", "kill -9"])
def test_a_broker_that_restarts_in_the_middle_loses_and_repeats_nothing(
    kafka_world: World, crash: bool
) -> None:
    world = kafka_world
    world.send(map(world.event, range(20)))
    with service(world) as one:
        until_landed(world, 20, one)
        world.send(map(world.event, range(20, 40)), first=20)
        world.broker.restart(crash=crash)
        world.send(map(world.event, range(40, 60)), first=40)
        until_landed(world, 60, one)
        one.stop()
    assert event_ids(world) == ids(60)
    # The next one goes on where this one ended.
    assert world.collector().drain().messages == 0


def test_a_broker_that_answers_late_loses_and_repeats_nothing(kafka_world: World) -> None:
    world = kafka_world
    world.send(map(world.event, range(20)))
    with service(world) as one:
        until_landed(world, 20, one)
        for first in (20, 40):
            world.send(map(world.event, range(first, first + 20)), first=first)
            world.broker.pause()
            time.sleep(2)  # What is tested is this silence.
            world.broker.resume()
        until_landed(world, 60, one)
        one.stop()
    assert event_ids(world) == ids(60)


def test_a_broker_that_stops_for_good_is_named(kafka_world: World) -> None:
    world = kafka_world
    world.send(map(world.event, range(3)))
    collector = world.collector()
    started = time.monotonic()

    def stop_broker(report: DrainReport) -> None:
        if report.messages == 3 and world.broker.running():
            world.broker.kill()

    with pytest.raises(BrokerUnreachableError, match="PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"):
        collector.drain(until=lambda: False, progress=stop_broker)
    assert time.monotonic() - started < IN_TIME_S
    world.broker.start()
    # Another group: the member that was cut off has not timed out in its own.
    world.collector(client=world.client("another")).drain()
    assert event_ids(world) == ids(3)


@pytest.mark.only_on("kafka", "the embedded broker's topics do not grow")
def test_a_running_collector_takes_partitions_that_are_added(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_client, "METADATA_REFRESH_MS", 500)
    world.send(map(world.event, range(3)))
    with service(world) as one:
        until_landed(world, 3, one)
        world.broker.add_partitions(world.topic, 5)
        world.send(map(world.event, range(3, 6)), partition=4, first=3)
        world.send(map(world.event, range(6, 9)), first=6)
        until_landed(world, 9, one)
        one.stop()
    rows = world.landed()
    assert set(rows["kafka_partition"].to_pylist()) == {0, 4}
    assert event_ids(world) == ids(9)


@pytest.mark.only_on("kafka", "the embedded broker's topics do not grow")
def test_a_topic_with_more_partitions_than_yesterday_is_read_from_their_start(world: World) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    world.broker.add_partitions(world.topic, 4)
    world.send(map(world.event, range(3, 6)), partition=3, first=3)
    world.collector().drain()
    assert event_ids(world) == ids(6)


# Groups


@pytest.mark.only_on("kafka", "members of the embedded broker's groups are each alone")
def test_members_that_come_and_go_land_every_message_once(world: World) -> None:
    world.broker.add_partitions(world.topic, 6)
    sent = 0

    def send(count: int = 180) -> None:
        nonlocal sent
        world.send(map(world.event, range(sent, sent + count)), first=sent, over=6)
        sent += count

    with contextlib.ExitStack() as running:
        group = []
        for shares in ([6], [3, 3], [2, 2, 2]):
            send()
            group.append(running.enter_context(service(world)))
            send()
            until(lambda shares=shares: members(world) == shares, f"a group that shares as {shares}")
            send()
        until_landed(world, sent, *group)
        reports = [group.pop(1).stop()]
        send()
        until(lambda: members(world) == [3, 3], "a group of two")
        send()
        until_landed(world, sent, *group)
        reports += [one.stop() for one in group]
    assert event_ids(world) == ids(sent)
    assert all(report.rows for report in reports)
    assert sum(report.rows for report in reports) >= sent


@pytest.mark.only_on("kafka", "the embedded broker knows no static members")
def test_a_static_member_that_restarts_gets_its_partition_back(world: World) -> None:
    def owners() -> dict[str, list[int]]:
        [group] = world.broker.admin().describe_consumer_groups([world.group_id]).values()
        return {
            member.group_instance_id: [place.partition for place in member.assignment.topic_partitions]
            for member in group.result().members
        }

    with service(world, "a") as first, service(world, "b") as other:
        until(lambda: members(world) == [1, 1], "a group of two")
        before = owners()
        world.send(map(world.event, range(10)), over=2)
        until_landed(world, 10, first, other)
        first.stop()
        # Nobody takes over while it may come back.
        assert (members(world), owners()) == ([1, 1], before)
        world.send(map(world.event, range(10, 20)), first=10, over=2)
        with service(world, "a") as again:
            until_landed(world, 20, again, other)
            assert (members(world), owners()) == ([1, 1], before)
            reports = [again.stop(), other.stop()]
    assert reports[0].rows == 5
    assert event_ids(world) == ids(20)


# Committed offsets are hints


@pytest.mark.only_on("kafka", "the embedded broker's groups remember nothing")
def test_landed_ranges_are_committed_with_the_stream_they_belong_to(world: World) -> None:
    world.send(map(world.event, range(5)))
    world.collector().drain()
    assert committed(world) == (5, world.stream_id())


@pytest.mark.only_on("kafka", "the embedded broker's groups remember nothing")
@pytest.mark.parametrize("offset", [0, 3, 1_000_000])
def test_a_committed_offset_of_another_stream_is_ignored(world: World, offset: int) -> None:
    world.send(map(world.event, range(5)))
    commit(world, offset, "another-cluster.telemetry.another-topic")
    world.collector().drain()
    assert event_ids(world) == ids(5)
    assert committed(world) == (5, world.stream_id())


@pytest.mark.only_on("kafka", "the embedded broker's groups remember nothing")
def test_a_former_owners_older_commit_brings_nothing_back(world: World) -> None:
    world.send(map(world.event, range(5)))
    world.collector().drain()
    commit(world, 2, world.stream_id())
    world.send(map(world.event, range(5, 7)), first=5)
    report = world.collector().drain()
    assert report.messages == 2
    assert event_ids(world) == ids(7)


@pytest.mark.only_on("kafka", "the embedded broker's groups remember nothing")
def test_an_older_commit_before_partitions_change_hands_brings_nothing_back(world: World) -> None:
    """Whoever left the group may commit until it is joined again; the next owner must not believe it."""
    world.send(map(world.event, range(10)), over=2)
    with service(world) as one:
        until_landed(world, 10, one)
        one.stop()
    for partition in range(world.partitions):
        commit(world, 1, world.stream_id(), partition)
    with service(world) as one, service(world) as two:
        until(lambda: members(world) == [1, 1], "a group of two")
        world.send(map(world.event, range(10, 14)), first=10, over=2)
        until_landed(world, 14, one, two)
        reports = [one.stop(), two.stop()]
    assert sum(report.messages for report in reports) == 4
    assert event_ids(world) == ids(14)


# Offsets without messages


def transactions(world: World, *steps: tuple[range, bool]) -> None:
    """Messages of each step in a transaction that is committed, or else aborted."""
    producer = world.client().producer(**{"transactional.id": f"tx-{world.topic}"})
    producer.init_transactions(30)
    for numbers, commits in steps:
        producer.begin_transaction()
        for number in numbers:
            producer.produce(world.topic, world.event(number), b"k", 0)
        producer.flush(30)
        producer.commit_transaction(30) if commits else producer.abort_transaction(30)


@pytest.mark.only_on("kafka", "the embedded broker's transactions leave no markers")
def test_aborted_messages_and_markers_of_transactions_are_gaps(world: World) -> None:
    # Offsets: 0-2, marker 3, aborted 4-5, marker 6, 7-8, marker 9.
    transactions(world, (range(3), True), (range(3, 5), False), (range(5, 7), True))
    world.collector().drain()
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 7, 8]
    again = world.collector().drain()
    assert (again.messages, again.rows) == (0, 0)
    world.send(map(world.event, range(7, 9)), first=7)
    world.collector().drain()
    rows = world.landed()
    assert rows["kafka_offset"].to_pylist() == [0, 1, 2, 7, 8, 10, 11]
    assert sum(manifest.offset_gaps for manifest in list_manifests(world.store)) == 5


@pytest.mark.only_on("kafka", "the embedded broker's transactions leave no markers")
def test_the_replay_of_a_claim_that_ends_with_a_marker_ends(world: World) -> None:
    transactions(world, (range(3), True))
    world.claim(0, 4)
    report = world.collector().drain()
    manifest = read_manifest(world.store, (list_claims(world.store)[0].stream_id, 0, 0))
    assert (manifest.end, manifest.rows, manifest.offset_gaps) == (4, 3, 1)
    assert report.recovered_claims == 1


@pytest.mark.only_on("kafka", "the embedded broker's transactions leave no markers")
def test_an_open_transaction_is_waited_for_by_nobody_and_lost_by_nobody(world: World) -> None:
    world.send(map(world.event, range(2)))
    producer = world.client().producer(**{"transactional.id": f"tx-{world.topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(world.topic, world.event(2), b"k", 0)
    producer.flush(30)
    world.collector().drain()
    assert event_ids(world) == ids(2)
    producer.commit_transaction(30)
    world.collector().drain()
    assert event_ids(world) == ids(3)
