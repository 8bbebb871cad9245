"""Lake, ledger, raw tables, pipes and copy history of Snowflake held against each other; findings with their fix.

What `reconcile` says of ranges is said here, too, and why a range is missing: its file
is gone or drifted, its pipe stopped, was made anew or hears nothing. Finding only:
loads mend what they can (`snowflake.raw`), `forget_ranges` what they do not touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from contracts.registry import FEEDS
from lake.chains import BEGINS_LATE, OVERLAP
from lake.landing import Claim, Manifest, list_claims, list_manifests
from lake.layout import RangeKey
from lake.quarantine import NOTHING_QUARANTINED, Quarantine, load_quarantine
from lake.replacements import load_replacements
from lake.store import ObjectStore
from warehouse.gaps import BROKEN, DEAD, FORKED, UNFINISHED, Gap, Kind, Orphans
from warehouse.reconcile import Finding, RawRange, reconcile
from warehouse.snowflake.files import file_gaps
from warehouse.snowflake.pipes import MEMORY, Pipes, PipeStatus, pipe_gaps, skipped_gaps
from warehouse.snowflake.session import run
from warehouse.snowflake.sql import RAW, WITHHELD

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

_LOAD, _RELOAD = "`petwellness load`", "`petwellness reload --yes`, then `petwellness build`"
NOT_LOADED = Kind("not loaded", "landed, neither brought by its pipe nor copied", _LOAD)
LOADED_TWICE = Kind("loaded twice", "a file came by its pipe and by COPY, or by a new pipe again", _LOAD)
ROWS_DIFFER = Kind("rows differ", "raw lacks rows that the ledger has", _RELOAD)
UNADOPTED = Kind("not adopted", "brought by a pipe, not in the ledger yet", _LOAD)
UNKNOWN_ROWS = Kind(
    "unknown rows",
    "in raw, but of no range of the lake",
    "find who wrote them; restore the lake, or delete them from raw",
)


@dataclass(frozen=True)
class AccountFindings:
    """What does not agree, claims nobody can land any more, ranges that only a reload puts right; `passed` when
    nothing is open."""

    gaps: tuple[Gap, ...]
    dead: tuple[Claim, ...] = ()
    to_reload: tuple[Manifest, ...] = ()
    ranges: int = 0
    pending: int = 0

    @property
    def passed(self) -> bool:
        return not any(gap.kind.is_open for gap in self.gaps)


def read_raw_ranges(
    con: SnowflakeConnection, since_seq: int = 0, claimed_from: datetime | None = None
) -> dict[RangeKey, RawRange]:
    """Every ledger entry of a load after `since_seq` with what its table holds of it.

    Of the tables only rows of ranges claimed at or after `claimed_from` (naive UTC) are read; it has to lie at
    or before the claims of those loads.
    """
    files = " union all ".join(
        f"select '{feed}' as feed, source_file, count(*) as row_count,"
        " count(distinct kafka_offset) as offset_count, min(kafka_offset) as first_offset,"
        f" max(kafka_offset) as last_offset from {RAW}.{feed}{_claimed(claimed_from)} group by source_file"
        for feed in FEEDS
    )
    rows = run(
        con,
        f"with files as ({files})"
        " select history.stream_id, history.kafka_partition, history.start_offset, history.end_offset,"
        " history.row_count, coalesce(files.row_count, 0) as table_rows,"
        " coalesce(files.offset_count, 0) as offset_count,"
        f" coalesce({WITHHELD}, 0) as redacted_count"
        f" from {RAW}.load_history as history"
        f" left join {RAW}.redacted_ranges as gone on gone.stream_id = history.stream_id"
        " and gone.kafka_partition = history.kafka_partition and gone.start_offset = history.start_offset"
        " left join files on files.feed = history.feed and files.source_file = history.source_file"
        " and files.first_offset >= history.start_offset and files.last_offset < history.end_offset"
        f" where history.load_seq > {since_seq:d}",
    )
    return {
        (stream_id, int(partition), int(start)): RawRange(*(int(value) for value in values))
        for stream_id, partition, start, *values in rows
    }


def read_orphans(
    con: SnowflakeConnection, claimed_from: datetime | None = None, settled_before: datetime | None = None
) -> list[Orphans]:
    """Raw rows outside the ledger, by the file that brought them.

    Of ranges claimed in `[claimed_from, settled_before)` (naive UTC); later ones may be on their way.
    """
    found = " union all ".join(
        f"select '{feed}' as feed, landed.stream_id, landed.kafka_partition, min(landed.kafka_offset) as first_offset,"
        " max(landed.kafka_offset) as last_offset, count(*) as row_count, landed.source_file"
        f" from {RAW}.{feed} as landed left join {RAW}.load_history as history"
        f" on history.feed = '{feed}' and history.source_file = landed.source_file"
        f"{_claimed(claimed_from, settled_before, 'landed.')}"
        f"{' and' if claimed_from or settled_before else ' where'} history.source_file is null"
        " group by landed.stream_id, landed.kafka_partition, landed.source_file"
        for feed in FEEDS
    )
    return [
        Orphans(feed, stream_id, int(partition), int(first), int(last), int(rows))
        for feed, stream_id, partition, first, last, rows, _ in run(con, found)
    ]


def _claimed(from_ts: datetime | None, before: datetime | None = None, table: str = "") -> str:
    """The rest of a query of rows that were claimed in a stretch of time."""
    limits = [
        f"{table}ingested_at {sign} '{moment:%Y-%m-%d %H:%M:%S.%f}'::timestamp_ntz"
        for sign, moment in ((">=", from_ts), ("<", before))
        if moment is not None
    ]
    return f" where {' and '.join(limits)}" if limits else ""


def range_gaps(
    claims: Iterable[Claim],
    manifests: Sequence[Manifest],
    raw_ranges: Mapping[RangeKey, RawRange],
    orphans: Iterable[Orphans],
    settled_before: datetime,
    is_dead: Callable[[str], bool] = lambda _: False,
    quarantine: Quarantine = NOTHING_QUARANTINED,
) -> AccountFindings:
    """What claims, manifests, ledger and raw rows disagree about, range by range.

    Ranges claimed at or after `settled_before` (naive UTC) may be on their way; `is_dead` tells stream ids of
    deleted topics.
    """
    claims = list(claims)
    result = reconcile(claims, manifests, dict(raw_ranges), 0, settled_before, quarantine=quarantine)
    by_key = {m.range_key: m for m in manifests}
    dead = {c.range_key: c for c in claims if c.range_key not in by_key and is_dead(c.stream_id)}
    gaps, again = [], {}
    for finding in result.findings:
        kind = DEAD if finding.range_key in dead else _kind_of(finding, raw_ranges)
        stream_id, partition, start = finding.range_key
        where = f"{stream_id} partition {partition} from {start}"
        rows = by_key[finding.range_key].rows if finding.range_key in by_key else 0
        gaps.append(Gap(kind, where, rows, f"{finding.rule}: {finding.detail}"))
        if kind is ROWS_DIFFER:
            again[finding.range_key] = by_key[finding.range_key]
    for found in orphans:
        is_known = any(
            (m.feed, m.stream_id, m.partition) == (found.feed, found.stream_id, found.partition)
            and m.start <= found.first
            and found.last < m.end
            for m in manifests
        )
        where = f"{found.stream_id} partition {found.partition} [{found.first}, {found.last}]"
        detail = f"{found.rows} rows of {found.feed}"
        gaps.append(Gap(UNADOPTED if is_known else UNKNOWN_ROWS, where, found.rows, detail))
    return AccountFindings(
        tuple(gaps), tuple(dead.values()), tuple(again.values()), len(raw_ranges), result.pending
    )


def _kind_of(finding: Finding, raw_ranges: Mapping[RangeKey, RawRange]) -> Kind:
    if finding.rule == "offset twice":
        return LOADED_TWICE
    if finding.rule == "rows":
        raw = raw_ranges[finding.range_key]
        return LOADED_TWICE if raw.table_rows + raw.redacted_rows > raw.ledger_rows else ROWS_DIFFER
    return {
        "range end": ROWS_DIFFER,
        "manifest not loaded": NOT_LOADED,
        "ledger without manifest": UNKNOWN_ROWS,
        "claim without manifest": UNFINISHED,
        BEGINS_LATE: FORKED,
        OVERLAP: FORKED,
    }.get(finding.rule, BROKEN)


def account_findings(
    con: SnowflakeConnection,
    store: ObjectStore,
    pipes: Pipes,
    now: datetime,
    grace_s: float,
    is_dead: Callable[[str], bool] = lambda _: False,
) -> AccountFindings:
    """Everything that does not agree, over all ranges, and why; reads every raw table's files once.

    Ranges claimed less than `grace_s` seconds before `now` (naive UTC) may be on their way. Raises SnowflakeError.
    """
    settled_before = now - timedelta(seconds=grace_s)
    manifests = list_manifests(store)
    raw_ranges = read_raw_ranges(con)
    found = range_gaps(
        list_claims(store),
        manifests,
        raw_ranges,
        read_orphans(con, None, settled_before),
        settled_before,
        is_dead,
        load_quarantine(store),
    )
    replacements = load_replacements(store)
    why: list[Gap] = []
    for feed in FEEDS:
        landed = [m for m in manifests if m.feed == feed]
        unloaded = [m for m in landed if m.range_key not in raw_ranges and m.ingested_at < settled_before]
        why += file_gaps(store, feed, unloaded, replacements).values()
        if landed:
            why += feed_pipe_gaps(con, pipes, feed, landed, raw_ranges, now)
    return replace(found, gaps=(*found.gaps, *why))


def feed_pipe_gaps(
    con: SnowflakeConnection,
    pipes: Pipes,
    feed: str,
    landed: Sequence[Manifest],
    raw_ranges: Mapping[RangeKey, RawRange],
    now: datetime,
) -> list[Gap]:
    """What is wrong with a feed's pipe, and the files it could not load and nobody has since."""
    status = pipes.status(feed)
    [(first_loaded_at,)] = run(
        con, f"select min(loaded_at) as loaded_at from {RAW}.load_history where feed = '{feed}'"
    )
    newest = max((m.ingested_at for m in landed), default=None)
    gaps = pipe_gaps(status, now, newest, pipes.created_at(feed), first_loaded_at)
    is_loaded = {m.source_file.rpartition("/")[2]: m.range_key in raw_ranges for m in landed}
    return gaps + skipped_gaps(pipes.copied_since(feed, now - MEMORY), is_loaded)


def pipe_statuses(pipes: Pipes) -> list[PipeStatus]:
    """What every feed's pipe says of itself."""
    return [pipes.status(feed) for feed in FEEDS]
