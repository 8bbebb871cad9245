"""All peers one after the other on one topic, and a run of its own with a broker and messages."""

import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from verification.benchmarks.peers.contenders import PEERS, Job
from verification.benchmarks.peers.figures import NotMeasured, Outcome
from verification.benchmarks.peers.installs import NotInstalledError
from verification.benchmarks.peers.watch import PeerFailedError

TOPIC = "telemetry"
MESSAGES = 300_000
PARTITIONS = 8

Say = Callable[[str], None]


def measure(
    bootstrap: str,
    messages: int,
    *,
    topic: str = TOPIC,
    names: Sequence[str] = tuple(PEERS),
    say: Say = print,
) -> list[Outcome]:
    """Each named peer on a topic that holds `messages` messages of `verification.benchmarks.messages.generate`.

    Installs what is missing, which takes minutes the first time. What each peer
    wrote is read back, counted and removed.
    """
    outcomes = []
    for name in names:
        say(f"{name} ...")
        with tempfile.TemporaryDirectory(prefix=f"petwellness-peer-{name}-") as folder:
            job = Job(bootstrap, topic, messages, f"{name}-{uuid.uuid4().hex[:8]}", Path(folder).resolve())
            outcomes.append(_outcome(name, job))
    return outcomes


def run(
    messages: int = MESSAGES,
    partitions: int = PARTITIONS,
    names: Sequence[str] = tuple(PEERS),
    say: Say = print,
) -> list[Outcome]:
    """`measure` on a broker and messages of its own. Raises LocalKafkaError when Kafka cannot run here."""
    from infrastructure.kafka.local import LocalKafka

    with (
        tempfile.TemporaryDirectory(prefix="petwellness-peers-kafka-") as folder,
        LocalKafka(Path(folder)) as kafka,
    ):
        kafka.create_topic(TOPIC, partitions)
        say(f"{messages:,} messages into {partitions} partitions ...")
        produce(kafka.bootstrap_servers, messages, partitions)
        return measure(kafka.bootstrap_servers, messages, names=names, say=say)


def produce(bootstrap: str, messages: int, partitions: int) -> None:
    """Put generated messages into the topic, spread evenly."""
    from confluent_kafka import Producer

    from verification.benchmarks.messages import generate

    producer = Producer(
        {"bootstrap.servers": bootstrap, "linger.ms": 50, "queue.buffering.max.kbytes": 262_144}
    )
    values, arrivals = generate(messages)
    for i, (value, arrival_ms) in enumerate(zip(values, arrivals, strict=True)):
        while True:
            try:
                producer.produce(TOPIC, value, b"k", i % partitions, timestamp=arrival_ms)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(60):
        raise TimeoutError(f"{left} messages did not reach the broker")


def _outcome(name: str, job: Job) -> Outcome:
    try:
        return PEERS[name](job)
    except (NotInstalledError, PeerFailedError) as error:
        return NotMeasured(name, str(error))
