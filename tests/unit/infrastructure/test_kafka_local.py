"""What the local Kafka makes of what it finds on a machine."""

from pathlib import Path

import pytest

from infrastructure.kafka import local


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_412"', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_the_version_of_java_is_read_from_what_it_prints(told: str, version: int | None) -> None:
    assert local.java_version(told) == version


def test_the_cache_is_named_by_version_and_content_of_the_pom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(local.JARS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert str(local.jars_folder()).startswith("/cache/petwellness/kafka-4.")
    monkeypatch.setenv(local.JARS_VARIABLE, "/jars")
    assert local.jars_folder() == Path("/jars")


def test_kafka_up_has_the_topics_that_have_a_decoder() -> None:
    from infrastructure.kafka.__main__ import telemetry_topics
    from petwellness_orchestration.cli.publish import EMBEDDED_PARTITIONS

    assert telemetry_topics() == EMBEDDED_PARTITIONS
