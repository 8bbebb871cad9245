"""The bridge into Apache Kafka: a broker that is killed with messages under way, and limits that only it has."""

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from waiting import until

from ingestion.broker.client import BrokerClient, connect
from ingestion.settings import BrokerSettings

PARTITIONS = 4


def client_of(kafka: Any, home: Path) -> BrokerClient:
    settings = BrokerSettings(bootstrap_servers=kafka.bootstrap_servers, connect_timeout_s=30)
    return connect(settings, home)


def values(client: BrokerClient, topic: str) -> Counter[bytes]:
    """Everything in a topic."""
    consumer = client.consumer(**{"group.id": f"test-{uuid.uuid4().hex}"})
    consumer.subscribe([topic])
    found: Counter[bytes] = Counter()
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        for message in consumer.consume(1000, 0.5):
            if message.error() is None:
                found[message.value()] += 1
            else:
                ended.add(message.partition())
    consumer.close()
    return found


def test_kafka_is_killed_and_nothing_is_lost_or_repeated(
    world, disturbed_kafka, tmp_path: Path, make_events
) -> None:
    kafka = disturbed_kafka
    topic, refused = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("telemetry", "refused"))
    kafka.create_topic(topic, PARTITIONS)
    kafka.create_topic(refused)
    client = client_of(kafka, tmp_path)
    messages = make_events(600)
    bridge = world.bridge(kafka=client, topic=topic, refused_topic=refused).until_serving()
    world.publish(messages[:200])
    until(lambda: bridge.report.acknowledged == 200, "the first third is acknowledged")
    kafka.kill()
    world.publish(messages[200:400])
    until(lambda: bridge.report.received == 400, "the second third is with the bridge")
    assert bridge.report.acknowledged == 200
    kafka.start()
    world.publish(messages[400:])
    until(lambda: bridge.report.acknowledged == 600, "everything is acknowledged")
    assert bridge.report.interruptions == 0
    assert values(client, topic) == dict.fromkeys((payload for _, _, payload in messages), 1)


def test_a_message_above_the_topics_limit_is_set_aside(
    world, shared_kafka, tmp_path: Path, make_events
) -> None:
    topic, refused = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("telemetry", "refused"))
    shared_kafka.create_topic(topic, PARTITIONS, {"max.message.bytes": "100000"})
    shared_kafka.create_topic(refused)
    client = client_of(shared_kafka, tmp_path)
    [good] = make_events(1)
    bridge = world.bridge(kafka=client, topic=topic, refused_topic=refused).until_serving()
    world.publish([("petwellness/c1/collar-1/telemetry", "", b"x" * 200_000)])
    world.publish([good])
    until(lambda: bridge.report.acknowledged == 2, "everything is acknowledged")
    assert bridge.report.refused == {"kafka": 1}
    assert values(client, topic) == {good[2]: 1}
