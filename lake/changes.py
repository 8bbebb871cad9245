"""The change log of a record feed: what records say, and what neighbouring complete extracts say without a record.

The law of contracts.md (Histories), for readers of the lake; the warehouse has it in
`dbt_project/macros/histories/change_log.sql`. Plain values, no I/O.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from contracts.consent import RECORD_CLOCK_AHEAD

CHANGE_ORDER = ["changed_at", "arrival_ts", "stream_id", "kafka_partition", "kafka_offset"]

Row = Mapping[str, Any]
"""A landed record: CHANGE_ORDER, `op`, the key of its entity and whatever a reader asked for besides."""

_place: Callable[[Row], tuple[datetime, datetime, str, int, int]] = itemgetter(*CHANGE_ORDER)


class Extract(NamedTuple):
    """A complete extract, of no rows perhaps: what its source has of a feed at `extracted_at` (naive UTC).

    `arrival_ts` is when the last of its rows was received, `row_count` how many it had when it landed.
    """

    source_system: str
    stream_id: str
    extracted_at: datetime
    arrival_ts: datetime
    row_count: int


class Change(NamedTuple):
    """From `changed_at` on (naive UTC) the entity `key` is what `row` says; None: it is deleted.

    Placed by CHANGE_ORDER: a stated one as its record, a derived one as its extract was received.
    """

    key: str
    changed_at: datetime
    arrival_ts: datetime
    stream_id: str
    kafka_partition: int
    kafka_offset: int
    row: Row | None


def change_log(rows: Iterable[Row], extracts: Iterable[Extract], key: str) -> list[Change]:
    """Every change of the entities of one feed, whose id is the column `key`, in order of change.

    Of two neighbouring complete extracts of a source, what the earlier alone holds is deleted, and what the
    later alone holds is there with the content of its row, both at the later's `extracted_at`. A record of a
    clock that is ahead is no change; in an extract it says that its entity is there. For what was known at a
    moment give the rows and the extracts that had been received by then.
    """
    given = [*rows]
    stated = [
        Change(row[key], *_place(row), None if row["op"] == "delete" else row)
        for row in given
        if not is_dated_ahead(row)
    ]
    return sorted([*stated, *_derived(given, extracts, key)], key=lambda change: change[1:6])


def is_dated_ahead(row: Row) -> bool:
    """Whether a record is dated so far after its receipt that its clock was wrong."""
    return bool(row["changed_at"] > row["arrival_ts"] + RECORD_CLOCK_AHEAD)


def _derived(rows: Iterable[Row], extracts: Iterable[Extract], key: str) -> Iterator[Change]:
    held = _held(rows, key)
    by_source: dict[str, list[Extract]] = defaultdict(list)
    for one in extracts:
        by_source[one.source_system].append(one)
    for of_source in by_source.values():
        ordered = sorted(of_source, key=lambda one: (one.extracted_at, one.arrival_ts, one.stream_id))
        for earlier, later in pairwise(ordered):
            before, after = held.get(earlier.stream_id, {}), held.get(later.stream_id, {})
            at = later.extracted_at, later.arrival_ts, later.stream_id, 0
            for entity in before.keys() - after.keys():
                # After the extract's own rows, whose offsets are their row numbers.
                yield Change(entity, *at, later.row_count, None)
            for entity in after.keys() - before.keys():
                yield Change(entity, *at, after[entity]["kafka_offset"], after[entity])


def _held(rows: Iterable[Row], key: str) -> dict[str, dict[str, Row]]:
    """What each extract holds by entity: its last row of it, one of a clock that is ahead only for want of
    another."""
    held: dict[str, dict[str, Row]] = defaultdict(dict)
    listed = (row for row in rows if row["op"] == "snapshot")
    for row in sorted(listed, key=lambda row: (not is_dated_ahead(row), _place(row))):
        held[row["stream_id"]][row[key]] = row
    return held
