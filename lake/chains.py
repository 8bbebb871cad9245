"""The law of a partition's claim chain: it begins at 0, and each claim starts where the one before ends.

Any other first start would be a matter of what a worker saw of the log, whose start
retention moves: two workers would claim under two keys, and both would win.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lake.layout import RangeKey

CHAIN_START = 0

BEGINS_LATE = "chain begins above 0"
OVERLAP = "claims overlap"
HOLE = "claims not contiguous"

# What mends a chain that a release before this law, or a store that let two claims stand, has left.
SUPERSEDE = "`petwellness claims supersede`"


@dataclass(frozen=True)
class ChainFault:
    """A claim that is not where the chain before it ends: its range, which rule it breaks, and in words."""

    range_key: RangeKey
    rule: str
    detail: str


def chain_faults(ends: Mapping[RangeKey, int]) -> Iterator[ChainFault]:
    """Every claim that breaks the law, in key order; `ends` has each claim's end by its range."""
    place: tuple[str, int] | None = None
    reached = CHAIN_START
    for key in sorted(ends):
        stream_id, partition, start = key
        is_first = place != (stream_id, partition)
        if is_first:
            place, reached = (stream_id, partition), CHAIN_START
        if start < reached:
            yield ChainFault(
                key, OVERLAP, f"it starts at {start}, a claim before ends at {reached}; {SUPERSEDE}"
            )
        elif start > reached and is_first:
            detail = f"the chain begins at {start}, not at {CHAIN_START}; {SUPERSEDE} closes [0, {start})"
            yield ChainFault(key, BEGINS_LATE, detail)
        elif start > reached:
            yield ChainFault(key, HOLE, f"it starts at {start}, the claim before ends at {reached}")
        reached = max(reached, ends[key])
