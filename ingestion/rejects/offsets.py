"""Sets of offsets as runs `[first, end)`: short to store, quick to ask. No I/O."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]
Runs = tuple[tuple[int, int], ...]


def runs_of(offsets: Offsets) -> Runs:
    """Ascending distinct offsets as the fewest runs."""
    if not len(offsets):
        return ()
    breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
    firsts = offsets[np.concatenate([[0], breaks])]
    lasts = offsets[np.concatenate([breaks - 1, [len(offsets) - 1]])]
    return tuple(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))


def offsets_of(runs: Runs) -> Offsets:
    """The offsets of ascending runs, in order."""
    return np.concatenate([np.arange(first, end, dtype=np.int64) for first, end in ((0, 0), *runs)])


class OffsetSet:
    """Offsets of one partition, added run by run; runs never overlap."""

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        self._runs: list[tuple[int, int]] = []
        self.add(runs)

    def add(self, runs: Iterable[tuple[int, int]]) -> None:
        """Add runs that hold nothing of the set yet."""
        self._runs = sorted([*self._runs, *runs])
        self._firsts = np.array([first for first, _ in self._runs], np.int64)
        self._ends = np.array([end for _, end in self._runs], np.int64)

    def contains(self, offsets: Offsets) -> npt.NDArray[np.bool_]:
        """Which of the offsets are in the set."""
        if not self._runs:
            return np.zeros(len(offsets), np.bool_)
        at = np.searchsorted(self._firsts, offsets, side="right") - 1
        return (at >= 0) & (offsets < self._ends[at])

    def count(self, first: int, end: int) -> int:
        """How many offsets of `[first, end)` are in the set."""
        return sum(max(0, min(high, end) - max(low, first)) for low, high in self._runs)

    def meets(self, first: int, end: int) -> bool:
        """Whether any offset of `[first, end)` is in the set."""
        return any(max(low, first) < min(high, end) for low, high in self._runs)

    def __len__(self) -> int:
        return int((self._ends - self._firsts).sum())
