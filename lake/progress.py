"""Progress marks: what collectors knew of their partitions, so that one at its end can be told from one that lags.

A mark is create-only and says for each partition of a collector up to where it has
landed, and when, if ever, its log was seen to end there. Nobody has to read more than
the newest ones. A stream that will never get another message can be declared dead.
What follows for the data's present is in `warehouse.watermark`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from lake import layout
from lake.store import ObjectExistsError, ObjectStore

# Marks are found by their writers' clocks, which differ.
CLOCKS_DIFFER = timedelta(hours=1)


class PartitionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A partition of a mark: everything before offset `end` has landed.

    `at` (naive UTC) is when the log ended there; None where it was not seen to.
    """

    stream_id: str
    partition: int
    end: int
    at: datetime | None


class ProgressMark(msgspec.Struct, frozen=True, kw_only=True):
    """What one collector knew of all its partitions at a moment (naive UTC)."""

    marked_at: datetime
    marked_by: str
    partitions: list[PartitionSeen]


class DeadStream(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of which nothing more can come: why, who says so, and since when."""

    stream_id: str
    reason: str
    declared_by: str
    declared_at: datetime


def put_progress(store: ObjectStore, mark: ProgressMark) -> None:
    """Leave a mark; one without partitions is none."""
    if mark.partitions:
        # Of the same collector and moment, it says the same.
        with contextlib.suppress(ObjectExistsError):
            store.put_new(layout.progress_key(mark.marked_at, mark.marked_by), msgspec.json.encode(mark))


def read_progress(store: ObjectStore, since: datetime | None = None) -> list[ProgressMark]:
    """All marks in order of time, or those since about a moment."""
    after = "" if since is None else layout.progress_key(since - CLOCKS_DIFFER, "")
    keys = [info.key for info in store.list(layout.PROGRESS, after)]
    return [*map(msgspec.json.Decoder(ProgressMark).decode, store.get_many(keys))]


def superseded_marks(store: ObjectStore, before: datetime) -> Iterator[tuple[str, int]]:
    """Key and bytes of marks older than a moment that say nothing newer marks do not say."""
    infos = [*store.list(layout.PROGRESS)]
    decoder = msgspec.json.Decoder(ProgressMark)
    marks = map(decoder.decode, store.get_many([info.key for info in infos]))
    said: set[tuple[str, int, bool]] = set()
    for info, mark in sorted(zip(infos, marks, strict=True), key=lambda one: one[0].key, reverse=True):
        says = {(seen.stream_id, seen.partition, seen.at is not None) for seen in mark.partitions}
        if says <= said and layout.progress_marked_at(info.key) < before:
            yield info.key, info.size
        # That its end was seen says of a partition, too, that it is there.
        said |= says | {(stream_id, partition, False) for stream_id, partition, _ in says}


def declare_dead(store: ObjectStore, stream_ids: Iterable[str], reason: str, by: str, at: datetime) -> None:
    """Say of streams that nothing more comes of them; of one that is dead already it stays as it was said."""
    for stream_id in stream_ids:
        dead = DeadStream(stream_id=stream_id, reason=reason, declared_by=by, declared_at=at)
        with contextlib.suppress(ObjectExistsError):
            store.put_new(layout.dead_stream_key(stream_id), msgspec.json.encode(dead))


def dead_streams(store: ObjectStore) -> frozenset[str]:
    """Ids of the streams that were declared dead."""
    return frozenset(layout.dead_stream_of(info.key) for info in store.list(layout.DEAD_STREAMS))
