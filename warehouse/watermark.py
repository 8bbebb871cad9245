"""The watermark: what "now" means for the data, as far as every partition is known.

A partition is known up to its newest loaded arrival, or up to when its log was last
seen to end behind what is loaded. The watermark is the least of these, so that
nothing judged by it is taken back because a partition was late. It never falls: what
was present stays. Values only; the statements are `duckdb.raw`'s and `snowflake.raw`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from contracts.registry import TELEMETRY_FEED
from contracts.telemetry import NOT_BEFORE
from lake import layout
from lake.landing import Manifest
from lake.progress import ProgressMark

Place = tuple[str, int]
"""`(stream_id, partition)`."""


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """One row of `raw.partition_progress`, in the order of its columns; times are naive UTC.

    `end_offset` is the end of what is loaded, `newest_arrival_ts` the newest receipt in it, never later than its
    claim, `at_end_ts` when the log was last seen to end there, `first_seen_at` when the partition was first heard of.
    """

    stream_id: str
    kafka_partition: int
    end_offset: int
    newest_arrival_ts: datetime | None
    at_end_ts: datetime | None
    first_seen_at: datetime

    @property
    def known_until(self) -> datetime | None:
        """Up to when everything of the partition is loaded; None if nothing is known."""
        return _later(self.newest_arrival_ts, self.at_end_ts)


Progress = Mapping[Place, PartitionProgress]


def with_loaded(progress: Progress, manifests: Iterable[Manifest]) -> dict[Place, PartitionProgress]:
    """Progress after ranges were loaded. Records, and rejects that were replayed, are none of a partition's log."""
    after = {**progress}
    for m in manifests:
        if m.feed != TELEMETRY_FEED or layout.is_replay(m.stream_id):
            continue
        before = after.get((m.stream_id, m.partition))
        # Nothing was received after it was claimed, whatever its producer's clock said.
        arrival = None if m.max_arrival_ts is None else min(m.max_arrival_ts, m.ingested_at)
        if before is None:
            before = PartitionProgress(m.stream_id, m.partition, m.end, arrival, None, m.ingested_at)
        after[m.stream_id, m.partition] = replace(
            before,
            end_offset=max(before.end_offset, m.end),
            newest_arrival_ts=_later(before.newest_arrival_ts, arrival),
            first_seen_at=min(before.first_seen_at, m.ingested_at),
        )
    return after


def with_marks(progress: Progress, marks: Iterable[ProgressMark]) -> dict[Place, PartitionProgress]:
    """Progress after marks were read.

    A mark of an end counts once everything before it is loaded. A partition that was only seen is known by it, so
    that it holds the watermark until something of it is loaded or its end is seen.
    """
    after = {**progress}
    for mark in marks:
        for seen in mark.partitions:
            place = seen.stream_id, seen.partition
            before = after.get(place) or PartitionProgress(*place, 0, None, None, mark.marked_at)
            at_end = seen.at if seen.end <= before.end_offset else None
            after[place] = replace(
                before,
                at_end_ts=_later(before.at_end_ts, at_end),
                first_seen_at=min(before.first_seen_at, mark.marked_at),
            )
    return after


def oldest_arrival(waiting: Iterable[Manifest]) -> datetime | None:
    """The oldest receipt in ranges of telemetry that landed and are not loaded yet; None without one."""
    arrivals = (
        m.min_arrival_ts for m in waiting if m.feed == TELEMETRY_FEED and not layout.is_replay(m.stream_id)
    )
    return min((arrival for arrival in arrivals if arrival is not None), default=None)


def newest_end(progress: Progress) -> datetime | None:
    """When the newest end was seen that is known: only newer marks say more."""
    return max((one.at_end_ts for one in progress.values() if one.at_end_ts is not None), default=None)


def watermark(progress: Progress, dead: Collection[str] = ()) -> datetime | None:
    """The least moment up to which an active partition is known, never past the newest arrival; None before any.

    Partitions of `dead` streams, and of those whose topic has a newer stream, are not active: they hold nothing, and
    what they brought has been present.
    """
    active = _active([one for one in progress.values() if one.stream_id not in dead])
    arrivals = [one.newest_arrival_ts for one in progress.values() if one.newest_arrival_ts is not None]
    known = [one.known_until for one in active if one.known_until is not None]
    if not arrivals:
        return None
    if len(known) < len(active):
        # Of some partition nothing is known: no receipt that anybody believes is earlier.
        return NOT_BEFORE
    return min([*known, max(arrivals)])


def advanced(
    before: datetime | None, progress: Progress, dead: Collection[str], waiting_since: datetime | None = None
) -> datetime | None:
    """The watermark after a load: later than it was, or as it was.

    `waiting_since` is the oldest arrival of what landed and is not loaded yet.
    """
    reached = watermark(progress, dead)
    if reached is not None and waiting_since is not None:
        reached = min(reached, waiting_since)
    return _later(before, reached)


def _active(partitions: Collection[PartitionProgress]) -> list[PartitionProgress]:
    """Partitions of each topic's newest stream: an id that is new is of a topic that was made anew."""
    first_seen: dict[str, datetime] = {}
    for one in partitions:
        first_seen[one.stream_id] = min(first_seen.get(one.stream_id, one.first_seen_at), one.first_seen_at)
    newest = {
        _topic(stream_id): stream_id for _, stream_id in sorted((at, name) for name, at in first_seen.items())
    }
    return [one for one in partitions if newest[_topic(one.stream_id)] == one.stream_id]


def _topic(stream_id: str) -> str:
    """Cluster and topic of `cluster.topic.topic_id`."""
    return stream_id.rpartition(".")[0] or stream_id


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
