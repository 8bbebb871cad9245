"""From Kafka's messages to columns: what a consumed batch holds for each partition.

One Python call per message and attribute is what consuming costs, so attributes are
taken column by column. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
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


def runs(batch: list[Any]) -> Iterator[Run]:
    """The messages of a batch by partition, in their order; events (ends, errors) are left out."""
    import confluent_kafka

    # Its annotations allow for what only events lack.
    message_type: Any = confluent_kafka.Message
    messages = [
        message for message, error in zip(batch, map(message_type.error, batch), strict=True) if error is None
    ]
    places = zip(map(message_type.topic, messages), map(message_type.partition, messages), strict=True)
    low = 0
    for (topic, partition), same in groupby(places):
        high = low + sum(1 for _ in same)
        run = messages[low:high]
        yield Run(
            topic,
            partition,
            [*map(message_type.offset, run)],
            [*map(_milliseconds, map(message_type.timestamp, run))],
            [key or b"" for key in map(message_type.key, run)],
            [value or b"" for value in map(message_type.value, run)],
        )
        low = high


def events(batch: list[Any]) -> list[Any]:
    """The members of a batch that are no messages: ends of partitions and errors."""
    return [message for message in batch if message.error() is not None]


_milliseconds = itemgetter(1)
