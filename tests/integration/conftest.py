"""Apache Kafka for the tests that can do with nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HEAP_MB = 256


def kafka_or_skip(folder: Path, **options: Any) -> Any:
    """A started LocalKafka; skips, with the reason, where Java, Maven or the jars cannot be had."""
    from infrastructure.kafka.local import KafkaUnavailableError, LocalKafka

    kafka = LocalKafka(folder, **{"heap_mb": HEAP_MB} | options)
    try:
        kafka.start()
    except KafkaUnavailableError as error:
        pytest.skip(f"not run on Apache Kafka: {error}")
    return kafka


@pytest.fixture(scope="session")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A broker that all tests of this process share: leave it running and use topics of your own."""
    kafka = kafka_or_skip(tmp_path_factory.mktemp("kafka"))
    yield kafka
    kafka.kill()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Any]:
    """A broker of this test alone, which may stop, kill and freeze it."""
    kafka = kafka_or_skip(tmp_path / "kafka")
    yield kafka
    kafka.kill()
