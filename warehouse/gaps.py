"""Where telemetry is missing between the broker's log, the lake, raw and what devices should have sent.

Each gap has a kind, which says what it means, what closes it and whether it is still
open. Finding only: `duckdb.raw.forget_ranges` and the next load, or a collector, close
them. The comparison of lake and raw is `reconcile`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from contracts.registry import FEEDS
from ingestion.collector.recovery import EMBEDDED_STOPPED
from lake import layout
from lake.chains import BEGINS_LATE, CHAIN_START, OVERLAP, SUPERSEDE
from lake.landing import Claim, Manifest
from lake.layout import RangeKey
from lake.quarantine import NOTHING_QUARANTINED, Quarantine
from warehouse.reconcile import Finding, RawRange, reconcile

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Kind:
    """What a gap means and what closes it; `is_open` until then. The others are told and cannot be closed here."""

    name: str
    title: str
    fix: str
    is_open: bool = True


WAITING = Kind("waiting", "in the broker's log, not claimed", "`petwellness collect`")
WAITING_BESIDE = Kind(
    "waiting",
    "in the broker's log, not claimed",
    "nothing while collectors run and it shrinks",
    is_open=False,
)
EXPIRED = Kind(
    "expired",
    "left the broker's log before they were collected",
    "`petwellness collect` records the loss; lengthen the topic's retention",
)
UNFINISHED = Kind(
    "unfinished",
    "claimed, not landed",
    "`petwellness collect` (extracts: `petwellness extract`; streams `rejects.*`: `petwellness rejects replay`)",
)
DEAD = Kind(
    "dead",
    "claimed of a topic that was deleted, never landed",
    "`petwellness gaps --close-dead` records the loss, once no collector of that time runs",
)
BROKEN = Kind(
    "broken", "the lake contradicts itself", "restore the lake's objects from its backup, then look again"
)
FORKED = Kind("forked", "claims that overlap, or do not begin at 0", SUPERSEDE)
UNLOADED = Kind("unloaded", "landed, not loaded", "`petwellness load`")
DIFFERENT = Kind(
    "different", "raw differs from the lake", "`petwellness reload --yes`, then `petwellness build`"
)
UNKNOWN = Kind(
    "unknown", "in raw, but of no range of the lake", "restore the lake or `petwellness rebuild --yes`"
)
LOST = Kind("lost", "gone from the log for good", "let the source send them again", is_open=False)
SILENT = Kind(
    "silent",
    "devices below their expected heartbeat",
    "battery, assignment, gateway of the clinic: see the runbook",
    is_open=False,
)

_KIND_OF_RULE = {
    BEGINS_LATE: FORKED,
    OVERLAP: FORKED,
    "claim without manifest": UNFINISHED,
    "manifest not loaded": UNLOADED,
    "rows": DIFFERENT,
    "range end": DIFFERENT,
    "offset twice": DIFFERENT,
    "ledger without manifest": UNKNOWN,
}


@dataclass(frozen=True)
class Gap:
    """One gap: where, how many messages, rows or devices it concerns, and in words."""

    kind: Kind
    where: str
    count: int
    detail: str


class Orphans(NamedTuple):
    """Raw rows of one file that no ledger entry covers."""

    feed: str
    stream_id: str
    partition: int
    first: int
    last: int
    rows: int


@dataclass(frozen=True)
class LakeGaps:
    """What is missing in or between lake and raw, the claims nobody can finish, the ranges to load again."""

    gaps: tuple[Gap, ...]
    dead: tuple[Claim, ...]
    to_reload: tuple[Manifest, ...]
    pending: int


def lake_gaps(
    claims: Iterable[Claim],
    manifests: Iterable[Manifest],
    raw_ranges: Mapping[RangeKey, RawRange],
    orphans: Iterable[Orphans],
    is_dead: Callable[[str], bool],
    settled_before: datetime | None = None,
    quarantine: Quarantine = NOTHING_QUARANTINED,
) -> LakeGaps:
    """Compare claims, manifests, ledger and raw rows; `is_dead` tells stream ids of deleted topics.

    Where collectors run beside, ranges claimed at or after `settled_before` (naive UTC)
    may be on their way and are only counted, as `pending`.
    """
    claims, manifests = list(claims), list(manifests)
    result = reconcile(claims, manifests, dict(raw_ranges), 0, settled_before, quarantine=quarantine)
    by_key = {m.range_key: m for m in manifests}
    ends = {c.range_key: c.end for c in claims} | {key: m.end for key, m in by_key.items()}
    unlanded = [claim for claim in claims if claim.range_key not in by_key]
    dead = {claim.range_key: claim for claim in unlanded if is_dead(claim.stream_id)}
    again: dict[RangeKey, Manifest] = {}
    gaps = []
    for found in orphans:
        manifest = _covering(by_key.values(), found)
        place = f"{found.stream_id} partition {found.partition} [{found.first}, {found.last}]"
        if manifest is None:
            gaps.append(Gap(UNKNOWN, place, found.rows, f"{found.rows} rows of {found.feed}"))
        else:
            again[manifest.range_key] = manifest
            gaps.append(Gap(DIFFERENT, place, found.rows, f"{found.rows} rows that the ledger does not know"))
    for finding in result.findings:
        kind = _KIND_OF_RULE.get(finding.rule, BROKEN)
        if kind is UNFINISHED and finding.range_key in dead:
            kind = DEAD
        if kind is UNLOADED and finding.range_key in again:
            continue  # Loading it would double the rows that are there.
        if kind is DIFFERENT:
            again[finding.range_key] = by_key[finding.range_key]
        gaps.append(_range_gap(kind, finding, ends, raw_ranges))
    gaps += _lost(manifests)
    return LakeGaps(
        tuple(gaps), tuple(dead.values()), tuple(again[key] for key in sorted(again)), result.pending
    )


def _covering(manifests: Iterable[Manifest], found: Orphans) -> Manifest | None:
    return next(
        (
            m
            for m in manifests
            if (m.feed, m.stream_id, m.partition) == (found.feed, found.stream_id, found.partition)
            and m.start <= found.first
            and found.last < m.end
        ),
        None,
    )


def _range_gap(
    kind: Kind, finding: Finding, ends: Mapping[RangeKey, int], raw_ranges: Mapping[RangeKey, RawRange]
) -> Gap:
    key = finding.range_key
    stream_id, partition, start = key
    end = ends[key] if key in ends else raw_ranges[key].end
    detail = finding.detail if kind in (UNFINISHED, DEAD, UNLOADED) else f"{finding.rule}: {finding.detail}"
    return Gap(kind, f"{stream_id} partition {partition} [{start}, {end})", end - start, detail)


def _lost(manifests: Iterable[Manifest]) -> Iterator[Gap]:
    for m in sorted(lost_ranges(manifests), key=lambda m: m.ingested_at, reverse=True):
        why = m.gap_reason or "some of the range's messages were gone when it was landed"
        where = f"{m.stream_id} partition {m.partition} [{m.start}, {m.end})"
        yield Gap(LOST, where, m.offset_gaps, f"{why} ({m.ingested_at:%Y-%m-%d %H:%M} UTC)")


def lost_ranges(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Landed ranges with offsets that the log had lost.

    Not those of a stopped embedded broker, whose messages are published again, nor those
    of replays, which hold what was a reject and leave out the rest. A transactional
    producer's markers look the same.
    """
    return [
        m
        for m in manifests
        if m.offset_gaps and m.gap_reason != EMBEDDED_STOPPED and not layout.is_replay(m.stream_id)
    ]


def deleted_topics(alive: Iterable[str]) -> Callable[[str], bool]:
    """Tells stream ids of deleted topics, given those of all topics that a Kafka cluster has now.

    Ids never come back (`cluster.topic.topic_id`), and another cluster's are not judged.
    """
    known = {*alive}
    clusters = {stream_id.partition(".")[0] for stream_id in known}
    return lambda stream_id: stream_id.partition(".")[0] in clusters and stream_id not in known


def log_gaps(
    topic: str,
    stream_id: str,
    bounds: Mapping[int, tuple[int, int]],
    claims: Iterable[Claim],
    collectors_run: bool,
) -> list[Gap]:
    """What the log of each partition holds behind its last claim, and what it held and has lost."""
    ends: dict[int, int] = {}
    for claim in claims:
        if claim.stream_id == stream_id:
            ends[claim.partition] = max(ends.get(claim.partition, 0), claim.end)
    gaps = []
    for partition, (low, high) in sorted(bounds.items()):
        end = ends.get(partition, CHAIN_START)
        if end < low:
            gaps.append(
                Gap(EXPIRED, f"{topic}[{partition}] [{end}, {low})", low - end, f"the log starts at {low}")
            )
        if high > max(end, low):
            kind = WAITING_BESIDE if collectors_run else WAITING
            behind = high - max(end, low)
            gaps.append(Gap(kind, f"{topic}[{partition}] [{max(end, low)}, {high})", behind, "lag"))
    return gaps


def read_orphans(con: duckdb.DuckDBPyConnection) -> list[Orphans]:
    """Raw rows outside the ledger, by the file that brought them."""
    found = []
    for feed in FEEDS:
        found += con.execute(
            f"""
            with files as (
                select
                    stream_id, kafka_partition, source_file,
                    min(kafka_offset) as first_offset, max(kafka_offset) as last_offset, count(*) as row_count
                from raw.{feed}
                group by stream_id, kafka_partition, source_file
            )
            select '{feed}' as feed, f.stream_id, f.kafka_partition, f.first_offset, f.last_offset, f.row_count
            from files as f
            left join raw.load_history as l
                on l.feed = '{feed}' and l.stream_id = f.stream_id
                and l.kafka_partition = f.kafka_partition
                and f.first_offset >= l.start_offset and f.last_offset < l.end_offset
            where l.stream_id is null
            order by all
            """
        ).fetchall()
    return [Orphans(*row) for row in found]


def heartbeat_gaps(con: duckdb.DuckDBPyConnection, min_ratio: float) -> list[Gap]:
    """Devices and days below their expected heartbeat, the emptiest first; [] before the first build."""
    built = con.execute(
        "select count(*) from information_schema.tables"
        " where table_schema = 'anl' and table_name = 'device_daily_heartbeat'"
    ).fetchone()
    if not built or not built[0]:
        return []
    rows = con.execute(
        "select device_id, event_date, coalesce(clinic_id, 'unknown'), event_count, expected_events"
        " from anl.device_daily_heartbeat where heartbeat_ratio < ?"
        " order by heartbeat_ratio, event_date, device_id",
        [min_ratio],
    ).fetchall()
    return [
        Gap(
            SILENT,
            f"{device_id} on {event_date:%Y-%m-%d}",
            int(expected) - int(events),
            f"{events} of {expected} events, clinic {clinic}",
        )
        for device_id, event_date, clinic, events, expected in rows
    ]
