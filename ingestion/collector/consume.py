"""From Kafka's messages to columns: what a consumed batch holds for each partition.

One Python call per message and attribute is what consuming costs, so attributes are
taken column by column. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring messages of one partition in a batch; a missing key or value is b""."""

    topic: str
    partition: int
    offsets: list[int]
    arrival_ms: list[int]
    keys: list[bytes]
    values: list[bytes]


def divided(batch: list[Any]) -> tuple[list[Any], list[Any]]:
    """A consumed batch as messages and events: ends of partitions and errors."""
    import confluent_kafka

    errors = [*map(confluent_kafka.Message.error, batch)]
    if not any(error is not None for error in errors):
        return batch, []
    pairs = [*zip(batch, errors, strict=True)]
    return (
        [message for message, error in pairs if error is None],
        [event for event, error in pairs if error is not None],
    )


def runs(messages: list[Any]) -> Iterator[Run]:
    """Messages by partition, in their order."""
    import confluent_kafka

    # Its annotations allow for what only events lack.
    kind: Any = confluent_kafka.Message
    places = [*zip(map(kind.topic, messages), map(kind.partition, messages), strict=True)]
    found = dict.fromkeys(places)
    for topic, partition in found:
        run = messages
        if len(found) > 1:
            run = [one for one, place in zip(messages, places, strict=True) if place == (topic, partition)]
        yield Run(
            topic,
            partition,
            [*map(kind.offset, run)],
            [*map(_milliseconds, map(kind.timestamp, run))],
            [key or b"" for key in map(kind.key, run)],
            [value or b"" for value in map(kind.value, run)],
        )


_milliseconds = itemgetter(1)
