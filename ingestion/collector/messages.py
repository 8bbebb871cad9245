"""Buffered messages of one partition, packed: bytes in a row and arrays beside them, no object per message.

A consumed batch becomes a `Packed` per partition, a partition's buffer is a list of
them. Nothing here knows Kafka's client or what the messages mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# The scanner compares words: it looks at up to 24 bytes behind a message, and uses none of them.
PADDING = b" " * 32


@dataclass(frozen=True, slots=True)
class Texts:
    """Byte strings in a row: number i is `data[bounds[i]:bounds[i + 1]]`; PADDING follows the last one."""

    data: bytes
    bounds: Ints

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: int) -> bytes:
        return self.data[self.bounds[number] : self.bounds[number + 1]]

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))

    @property
    def length(self) -> int:
        """Their bytes without what else `data` may hold."""
        return int(self.bounds[-1] - self.bounds[0])

    def part(self, low: int, high: int) -> Texts:
        """Numbers `low` to `high`, sharing the data."""
        return Texts(self.data, self.bounds[low : high + 1])


def pack(texts: Sequence[bytes]) -> Texts:
    """Byte strings as one."""
    bounds = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=bounds[1:])
    return Texts(b"".join([*texts, PADDING]), bounds)


def _joined(parts: Sequence[Texts]) -> Texts:
    if len(parts) == 1:
        return parts[0]
    sizes = [np.diff(part.bounds) for part in parts]
    bounds = np.zeros(sum(map(len, parts)) + 1, np.int64)
    np.cumsum(np.concatenate(sizes), out=bounds[1:])
    pieces = [memoryview(part.data)[part.bounds[0] : part.bounds[-1]] for part in parts]
    return Texts(b"".join([*pieces, PADDING]), bounds)


@dataclass(frozen=True, slots=True)
class Packed:
    """Messages in order of offset; a missing key or value is empty. `arrival_ms` is Kafka's timestamp."""

    offsets: Ints
    arrival_ms: Ints
    keys: Texts
    payloads: Texts

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def held_bytes(self) -> int:
        """What they hold in memory: keys, values and 32 bytes of numbers each."""
        return self.keys.length + self.payloads.length + 32 * len(self)

    def split(self, end: int) -> tuple[Packed, Packed]:
        """Messages before offset `end`, and the rest."""
        at = int(np.searchsorted(self.offsets, end))
        return self._part(0, at), self._part(at, len(self))

    def _part(self, low: int, high: int) -> Packed:
        return Packed(
            self.offsets[low:high],
            self.arrival_ms[low:high],
            self.keys.part(low, high),
            self.payloads.part(low, high),
        )


def joined(parts: Sequence[Packed]) -> Packed:
    """Consecutive parts as one."""
    if len(parts) == 1:
        return parts[0]
    return Packed(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.arrival_ms for part in parts]),
        _joined([part.keys for part in parts]),
        _joined([part.payloads for part in parts]),
    )


def grouped(parts: Iterable[Packed], at_least_bytes: int) -> Iterator[Packed]:
    """The same messages in parts of about `at_least_bytes`, so that many small batches cost as little as one."""
    group: list[Packed] = []
    size = 0
    for part in parts:
        group.append(part)
        size += part.held_bytes
        if size >= at_least_bytes:
            yield joined(group)
            group, size = [], 0
    if group:
        yield joined(group)


def split(parts: Sequence[Packed], end: int) -> tuple[list[Packed], list[Packed]]:
    """Parts with the messages before offset `end`, and with the rest."""
    before: list[Packed] = []
    after: list[Packed] = []
    for part in parts:
        low, high = part.split(end)
        before += [low] if len(low) else []
        after += [high] if len(high) else []
    return before, after
