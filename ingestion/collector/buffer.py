"""What a partition has delivered and no range has taken yet, and when a range is due.

A buffer knows nothing of claims, threads or Kafka's client; consuming fills it
(`consume`), the engine empties it range by range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ingestion.collector.messages import Packed, grouped, pack, split

# Loose messages are packed when there are so many: fewer cost more to pack, more cost memory.
PACK_MESSAGES = 16_000
# Small batches are joined up to this size, so that a thin topic decodes as cheaply as a backlog.
DECODE_BYTES = 4 * 1024 * 1024

Received = list[tuple[float, int]]
"""(moment by the monotonic clock, number of messages) of each batch, in order."""


@dataclass(slots=True)
class Buffer:
    """Consecutive messages of one partition; `held_bytes` is what they hold in memory, about."""

    held_bytes: int = 0
    received: Received = field(default_factory=list)
    _count: int = 0
    _packed: list[Packed] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)
    _arrival_ms: list[int] = field(default_factory=list)
    _keys: list[bytes] = field(default_factory=list)
    _values: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return self._count

    @property
    def opened_at(self) -> float:
        """When its first message came; only where there is one."""
        return self.received[0][0]

    def add(
        self,
        moment: float,
        offsets: Sequence[int],
        arrival_ms: Sequence[int],
        keys: Sequence[bytes],
        values: Sequence[bytes],
    ) -> int:
        """Append a batch; returns the bytes of its values."""
        self._offsets += offsets
        self._arrival_ms += arrival_ms
        self._keys += keys
        self._values += values
        self._count += len(offsets)
        self.received.append((moment, len(offsets)))
        value_bytes = sum(map(len, values))
        self.held_bytes += value_bytes + sum(map(len, keys)) + 32 * len(offsets)
        if len(self._offsets) >= PACK_MESSAGES:
            self._pack()
        return value_bytes

    def take(self, end: int) -> Buffer:
        """Remove and return the messages before offset `end`."""
        self._pack()
        before, after = split(self._packed, end)
        taken, rest = _buffer(before), _buffer(after)
        taken.received, rest.received = _divided(self.received, len(taken))
        self._become(rest)
        return taken

    def put_back(self, earlier: Buffer) -> None:
        """Put messages in front that were taken."""
        self._pack()
        earlier._pack()
        whole = _buffer(earlier._packed + self._packed)
        whole.received = earlier.received + self.received
        self._become(whole)

    def parts(self) -> list[Packed]:
        """The messages, packed into parts that are worth decoding."""
        self._pack()
        return [*grouped(self._packed, DECODE_BYTES)]

    def _pack(self) -> None:
        if self._offsets:
            self._packed.append(
                Packed(
                    np.array(self._offsets, np.int64),
                    np.array(self._arrival_ms, np.int64),
                    pack(self._keys),
                    pack(self._values),
                )
            )
            self._offsets, self._arrival_ms, self._keys, self._values = [], [], [], []

    def _become(self, other: Buffer) -> None:
        self.held_bytes, self.received = other.held_bytes, other.received
        self._count, self._packed = other._count, other._packed


def _buffer(parts: list[Packed]) -> Buffer:
    return Buffer(
        held_bytes=sum(part.held_bytes for part in parts),
        _count=sum(len(part) for part in parts),
        _packed=parts,
    )


def _divided(received: Received, count: int) -> tuple[Received, Received]:
    """Batches of the first `count` messages, and of the rest; one batch may end up in both."""
    before: Received = []
    for place, (moment, size) in enumerate(received):
        if count < size:
            before += [(moment, count)] if count else []
            return before, [(moment, size - count), *received[place + 1 :]]
        before.append((moment, size))
        count -= size
    return before, []


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a range is closed: whichever comes first. `linger_s` closes at the end of the log, None never does."""

    rows: int
    held_bytes: int
    age_s: float
    linger_s: float | None = None

    def due(self, buffer: Buffer, moment: float, at_end: bool) -> str | None:
        """Why a buffer with messages has to be closed now, None if it may wait."""
        if len(buffer) >= self.rows:
            return "rows"
        if buffer.held_bytes >= self.held_bytes:
            return "bytes"
        if moment - buffer.opened_at >= self.age_s:
            return "age"
        if self.linger_s is not None and at_end and moment - buffer.received[-1][0] >= self.linger_s:
            return "end_of_log"
        return None
