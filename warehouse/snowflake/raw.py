"""Landed ranges into `raw.*` on Snowflake, each exactly once, whoever brings its rows first.

Pipes put files into raw tables as they land and know nothing of ranges. A load
counts what they brought against the manifests and enters it into the ledger
`raw.load_history` (*adopts* it); what they did not bring within their grace it
copies by name, with the feed's pipe held still; and where a pipe brings a file
again, it puts the range back to what its file says. Each of these is one
transaction of the ranges' rows and ledger entries, so that a load that dies leaves
neither a gap nor a repeat. Redactions are honoured as in `duckdb.raw`, whose
vocabulary this keeps; pipes are in `snowflake.pipes`, what differs between lake and
raw is found in `snowflake.reconcile`.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from contracts.ledgers import LEDGERS
from contracts.registry import FEEDS
from contracts.salt import is_new_salt
from lake.landing import Manifest, feed_schema, list_manifests, read_manifest, utc_now
from lake.layout import RangeKey
from lake.progress import dead_streams, read_progress
from lake.quarantine import Quarantine, Span, load_quarantine
from lake.reading import check_schema_version
from lake.redactions import Redactions, load_redactions
from lake.replacements import Replacements, load_replacements
from lake.store import ObjectStore
from warehouse.gaps import Gap
from warehouse.ledger import (
    PRESENT_MARK,
    REWRITTEN_MARK,
    SCORES_MARK,
    WAREHOUSE_MARK,
    LoadMismatchError,
    LoadReport,
    manifest_event_dates,
    pending_ranges,
    spans_to_load_again,
)
from warehouse.snowflake.files import NOTHING, Counted, file_gaps, holds, rows_gap
from warehouse.snowflake.pipes import MARK_PREFIX, PipeBusyError, Pipes, ensure_mark, held_still
from warehouse.snowflake.redactions import (
    COVERED,
    IS_GONE,
    REDACTION_TABLES,
    Gone,
    count_in_spans,
    cover,
    create_redactions,
    delete_covered,
    delete_redacted,
    drop_redactions,
)
from warehouse.snowflake.session import SnowflakeError, StatementFailedError, run, run_many, transaction
from warehouse.snowflake.sql import FILES_PER_COPY, RAW, WITHHELD, copy_statement, snowflake_type, staged
from warehouse.watermark import (
    PartitionProgress,
    Place,
    advanced,
    newest_end,
    oldest_arrival,
    with_loaded,
    with_marks,
)

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

# Ranges of one transaction: as many files as one COPY INTO takes.
RANGES_PER_BATCH = FILES_PER_COPY

# Two loads at once wait for each other at this row.
LOCK_MARK = "loads"

# Rows that a pipe brought since the ledger was read are of files claimed later than this before it.
RECENT = timedelta(days=1)

_BATCH = f"{RAW}.loading_ranges"
_BATCH_FILES = f"select source_file from {_BATCH}"
_BATCH_COLUMNS = {
    "stream_id": "varchar",
    "kafka_partition": "number(10, 0)",
    "start_offset": "number(19, 0)",
    "end_offset": "number(19, 0)",
    "feed": "varchar",
    "source_file": "varchar",
    "row_count": "number(19, 0)",
    "rejected_count": "number(19, 0)",
    "consent_dropped_count": "number(19, 0)",
    "offset_gap_count": "number(19, 0)",
    "event_dates": "varchar",
    "max_arrival_ts": "timestamp_ntz(6)",
    "extract_id": "varchar",
    "source_system": "varchar",
    "is_complete": "boolean",
    "extracted_at": "timestamp_ntz(6)",
    "claimed_at": "timestamp_ntz(6)",
}


class ConcurrentLoadError(SnowflakeError):
    """Another load ran meanwhile and knew more; the transaction at hand was undone."""


class LoadRefusedError(LoadMismatchError):
    """Some ranges cannot be loaded as they are; everything else was. `gaps` name each with its fix."""

    def __init__(self, gaps: Sequence[Gap], report: SnowflakeLoadReport) -> None:
        named = "; ".join(f"{gap.where}: {gap.detail} ({gap.kind.fix})" for gap in gaps[:5])
        super().__init__(f"{len(gaps)} ranges were not loaded, all others were: {named}")
        self.gaps = tuple(gaps)
        self.report = report


@dataclass(frozen=True)
class SnowflakeLoadReport(LoadReport):
    """A load and who brought its ranges: pipes (`adopted`) or COPY INTO (`copied`).

    `mended` ranges were there twice and are once now, `waiting` are left to their pipes.
    """

    adopted: int = 0
    copied: int = 0
    mended: int = 0
    waiting: int = 0


@dataclass
class _Progress:
    """What a load has done so far."""

    brought: list[Manifest] = field(default_factory=list)
    rows_by_feed: dict[str, int] = field(default_factory=dict)
    adopted: int = 0
    copied: int = 0
    mended: int = 0
    waiting: int = 0
    refused: list[Gap] = field(default_factory=list)


def loaded_keys(con: SnowflakeConnection, until_seq: int | None = None) -> set[RangeKey]:
    """(stream, partition, start) of every range in the ledger, or of those loaded up to `until_seq`."""
    limit = "" if until_seq is None else f" where load_seq <= {until_seq:d}"
    rows = run(con, f"select stream_id, kafka_partition, start_offset from {RAW}.load_history{limit}")
    return {(stream_id, int(partition), int(start)) for stream_id, partition, start in rows}


def latest_load_seq(con: SnowflakeConnection) -> int:
    """Number of the newest load, be it of ranges or of redactions; 0 before the first."""
    [(newest,)] = run(
        con,
        "select coalesce(max(load_seq), 0) as load_seq from"
        f" (select load_seq from {RAW}.load_history union all select load_seq from {RAW}.redactions) as loads",
    )
    return int(newest)


def applied_redactions(con: SnowflakeConnection) -> set[str]:
    """Ids of the entries of the redaction and quarantine ledgers that raw honours."""
    return {row[0] for row in run(con, f"select redaction_id from {RAW}.redactions")}


def load_pending(
    con: SnowflakeConnection,
    store: ObjectStore,
    manifests: Iterable[Manifest],
    pipes: Pipes,
    grace_s: float = 0.0,
    drain_s: float = 600.0,
    progress: Callable[[str], None] = lambda _: None,
) -> SnowflakeLoadReport:
    """Bring raw and ledger up to the manifests: adopt, copy, mend; see the module.

    A range that its pipe has not brought `grace_s` seconds after its claim is copied, with the pipe held still
    for at most `drain_s` seconds. A load that is cut short is resumed by the next one.

    Raises LoadRefusedError when files are gone or are not what their manifests say, after everything else was
    loaded, as is PipeBusyError; NewerSchemaError before anything when a newer release landed one;
    ConcurrentLoadError; SnowflakeError.
    """
    started_at = utc_now()
    loaded = loaded_keys(con)
    pending = pending_ranges(manifests, loaded)
    redactions, quarantine = load_redactions(store), load_quarantine(store)
    ensure_mark(con, LOCK_MARK)
    unapplied = {*redactions.ids, *quarantine.ids} - applied_redactions(con)
    again = [
        read_manifest(store, range_key)
        for range_key in _loaded_in(con, spans_to_load_again(quarantine, unapplied))
    ]
    pending = pending_ranges([*pending, *again], ())
    check_schema_version(pending)
    removed_rows, removed_dates = _apply_redactions(
        con, store, redactions.only(unapplied), unapplied & {*quarantine.ids}, again, started_at
    )
    done = _Progress()
    replacements = load_replacements(store)
    loader = _Loader(
        con, store, pipes, redactions, quarantine, replacements, drain_s, started_at, done, progress
    )
    settled_before = started_at - timedelta(seconds=grace_s)
    busy: list[PipeBusyError] = []
    try:
        for feed in FEEDS:
            # One feed's pipe at work is no reason for others to wait.
            with _noted(busy):
                loader.load(feed, [m for m in pending if m.feed == feed], settled_before)
        for feed in feeds_with_surplus(con, started_at - RECENT):
            with _noted(busy):
                loader.mend(feed)
    finally:
        # Where the session is over, so are they.
        with contextlib.suppress(SnowflakeError):
            loader.drop_temporary()
    brought = {m.range_key for m in done.brought}
    _move_watermark(con, store, loaded, oldest_arrival(m for m in pending if m.range_key not in brought))
    days = {day for m in done.brought for day in manifest_event_dates(m)}
    report = SnowflakeLoadReport(
        latest_load_seq(con),
        len(done.brought),
        done.rows_by_feed,
        tuple(sorted(days.union(removed_dates))),
        len(unapplied),
        removed_rows,
        adopted=done.adopted,
        copied=done.copied,
        mended=done.mended,
        waiting=done.waiting,
    )
    if done.refused:
        raise LoadRefusedError(done.refused, report)
    if busy:
        raise busy[0]
    return report


@contextlib.contextmanager
def _noted(busy: list[PipeBusyError]) -> Iterator[None]:
    try:
        yield
    except PipeBusyError as error:
        busy.append(error)


def _take_lock(con: SnowflakeConnection) -> int:
    """Make any other load wait until this transaction is over; the number of the load at hand.

    Snowflake enforces no keys: without it two loads could both find a range missing.
    """
    run(con, f"update {RAW}.build_marks set load_seq = load_seq + 1 where mark = %s", [LOCK_MARK])
    return latest_load_seq(con) + 1


def _loaded_in(con: SnowflakeConnection, spans: Iterable[Span]) -> list[RangeKey]:
    """Ranges of the ledger that any of the spans meets."""
    found: set[RangeKey] = set()
    for span in spans:
        rows = run(
            con,
            f"select stream_id, kafka_partition, start_offset from {RAW}.load_history"
            " where stream_id = %s and kafka_partition = %s and start_offset < %s and end_offset > %s",
            [span.stream_id, span.partition, span.end, span.start],
        )
        found |= {(stream_id, int(partition), int(start)) for stream_id, partition, start in rows}
    return sorted(found)


def _apply_redactions(
    con: SnowflakeConnection,
    store: ObjectStore,
    unapplied: Redactions,
    quarantine_ids: Collection[str],
    again: Sequence[Manifest],
    applied_at: datetime,
) -> tuple[int, tuple[date, ...]]:
    """Delete of loaded ranges what new redactions cover, take out whole the ranges that are to be loaded `again`
    because of the quarantine, and remember which entries of both were applied.

    Ranges that are not in the ledger yet are seen to when they get there, with both ledgers as they are now.
    """
    if not unapplied and not quarantine_ids:
        return 0, ()
    create_redactions(con, unapplied)
    with transaction(con):
        load_seq = _take_lock(con)
        _forget(con, again)
        removed = delete_redacted(con, unapplied)
        for range_key, rows in removed.rows_by_range.items():
            _add_redacted(con, read_manifest(store, range_key), rows)
        touched = {*removed.event_dates, *(day for m in again for day in manifest_event_dates(m))}
        dates = json.dumps([day.isoformat() for day in sorted(touched)])
        # Another load may have applied some since they were looked up.
        for redaction_id in sorted({*unapplied.ids, *quarantine_ids} - applied_redactions(con)):
            run(
                con,
                f"insert into {RAW}.redactions (redaction_id, event_dates, load_seq, applied_at)"
                " select %s as redaction_id, parse_json(%s) as event_dates, %s as load_seq,"
                " %s::timestamp_ntz as applied_at",
                [redaction_id, dates, load_seq, applied_at],
            )
    drop_redactions(con)
    return sum(removed.rows_by_range.values()), removed.event_dates


def _add_redacted(con: SnowflakeConnection, manifest: Manifest, rows: int) -> None:
    """Add to the redacted rows of a range. Its newest arrival stays on record."""
    where = "where stream_id = %s and kafka_partition = %s and start_offset = %s"
    before = run(con, f"select redacted_count from {RAW}.redacted_ranges {where}", [*manifest.range_key])
    run(con, f"delete from {RAW}.redacted_ranges {where}", [*manifest.range_key])
    total = rows + sum(int(count) for (count,) in before)
    _insert_redacted(con, [(*manifest.range_key, manifest.feed, total, manifest.max_arrival_ts, 0)])


def _insert_redacted(con: SnowflakeConnection, rows: Sequence[Sequence[Any]]) -> None:
    run_many(
        con,
        f"insert into {RAW}.redacted_ranges"
        " (stream_id, kafka_partition, start_offset, feed, redacted_count, max_arrival_ts, quarantined_count)"
        " values (%s, %s, %s, %s, %s, %s, %s)",
        rows,
    )


@dataclass(frozen=True)
class _Loader:
    """One load at work: what it needs for every feed."""

    con: SnowflakeConnection
    store: ObjectStore
    pipes: Pipes
    redactions: Redactions
    quarantine: Quarantine
    replacements: Replacements
    drain_s: float
    started_at: datetime
    done: _Progress
    say: Callable[[str], None]
    temporary: set[str] = field(default_factory=set)

    def load(self, feed: str, pending: Sequence[Manifest], settled_before: datetime) -> None:
        """Adopt what the feed's pipe brought, copy what it should have brought by now."""
        rest: list[Manifest] = []
        for batch in _batches(pending):
            rest += self._adopt(feed, batch)
        late = [m for m in rest if m.ingested_at < settled_before]
        self.done.waiting += len(rest) - len(late)
        if late:
            with held_still(self.con, self.pipes, feed, self.drain_s):
                for batch in _batches(late):
                    # Drained, the pipe may have brought some.
                    self._copy(feed, self._adopt(feed, batch))

    def mend(self, feed: str) -> None:
        """Put ranges that are there more than once back to what their files say."""
        if not repeated_ranges(self.con, feed):
            return
        with held_still(self.con, self.pipes, feed, self.drain_s):
            repeated = repeated_ranges(self.con, feed)
            for batch in _batches([read_manifest(self.store, key) for key in repeated]):
                self._copy(feed, batch, is_mending=True)

    def _adopt(self, feed: str, batch: Sequence[Manifest]) -> list[Manifest]:
        """Enter into the ledger the ranges whose rows are all there, once; returns the others."""
        found = counted_files(self.con, feed, batch)
        whole = [m for m in batch if holds(m, m.rows, found.get(m.source_file, NOTHING))]
        if whole:
            self._create_batch(whole)
            with transaction(self.con):
                load_seq = self._begin()
                self._leave_out_loaded()
                gone = self._cover(feed, f"{RAW}.{feed}", whole)
                if gone:
                    delete_covered(self.con, feed)
                self.done.adopted += self._record(feed, whole, load_seq, gone)
        return [m for m in batch if m not in whole]

    def _copy(self, feed: str, batch: Sequence[Manifest], is_mending: bool = False) -> None:
        """Bring ranges from their files, in place of whatever raw holds of them.

        A file that is gone or is not what it should be is left out and named.
        """
        good = self._staged(feed, batch)
        if not good:
            return
        landed = _landed_table(feed)
        columns = feed_schema(feed).names
        self._create_batch(good)
        with transaction(self.con):
            load_seq = self._begin()
            if is_mending:
                self._forget_batch(feed)
            else:
                self._leave_out_loaded()
            gone = self._cover(feed, landed, good)
            run(self.con, f"delete from {RAW}.{feed} where source_file in ({_BATCH_FILES})")
            run(
                self.con,
                f"insert into {RAW}.{feed} ({', '.join(columns)})"
                f" select {', '.join(f'landed.{name}' for name in columns)} from {landed} as landed"
                + (f" left join {COVERED} as gone on {IS_GONE}" if gone else "")
                + f" where landed.source_file in ({_BATCH_FILES})"
                + (" and gone.stream_id is null" if gone else ""),
            )
            # The object in force lacks what an earlier redaction took out of it.
            for manifest in good:
                purged = manifest.rows - self.replacements.stored_object_of(manifest).rows
                redacted_rows, quarantined_rows = gone.get(manifest.source_file, Gone())
                gone[manifest.source_file] = Gone(redacted_rows + purged, quarantined_rows)
            brought = self._record(feed, good, load_seq, gone)
        if is_mending:
            self.done.mended += brought
        else:
            self.done.copied += brought

    def _cover(self, feed: str, table: str, batch: Sequence[Manifest]) -> dict[str, Gone]:
        is_met = any(self.quarantine.meets(m.stream_id, m.partition, m.start, m.end) for m in batch)
        return cover(self.con, feed, self.redactions, table, _BATCH_FILES, is_met)

    def _begin(self) -> int:
        """Begin a transaction's work: the number of the load at hand. Raises ConcurrentLoadError."""
        load_seq = _take_lock(self.con)
        if not applied_redactions(self.con) <= {*self.redactions.ids, *self.quarantine.ids}:
            # Its rows would come in under a ledger of redactions that is older than what raw says it honours.
            raise ConcurrentLoadError(
                "another load has applied redactions or a quarantine that this one does not know; run it again"
            )
        return load_seq

    def _staged(self, feed: str, batch: Sequence[Manifest]) -> list[Manifest]:
        """Copy the ranges' files into a temporary table; those of them that are what their manifests say."""
        landed = _landed_table(feed)
        good = list(batch)
        while good:
            run(self.con, create_landed_statement(feed))
            self.temporary.add(landed)
            by_stage: dict[str, list[str]] = defaultdict(list)
            for manifest in good:
                stage, path = staged(self.replacements.main_object_of(manifest))
                by_stage[stage].append(path)
            try:
                for stage, paths in by_stage.items():
                    run(self.con, copy_statement(landed, feed_schema(feed), stage, paths))
            except StatementFailedError:
                wrong = file_gaps(self.store, feed, good, self.replacements)
                if not wrong:
                    raise
                self.done.refused += wrong.values()
                good = [m for m in good if m.range_key not in wrong]
                continue
            found = counted_files(self.con, feed, good, table=landed)
            wrong = {
                m.range_key: gap
                for m in good
                if (gap := rows_gap(m, self.replacements, found.get(m.source_file, NOTHING)))
            }
            self.done.refused += wrong.values()
            return [m for m in good if m.range_key not in wrong]
        return []

    def _create_batch(self, manifests: Sequence[Manifest]) -> None:
        """The ranges of a transaction as a temporary table, which its statements join, and what is redacted."""
        if not self.temporary & REDACTION_TABLES.keys():
            self.temporary.update(REDACTION_TABLES)
            create_redactions(self.con, self.redactions, self.quarantine.spans)
        self.temporary.add(_BATCH)
        columns = ", ".join(f"{name} {kind}" for name, kind in _BATCH_COLUMNS.items())
        run(self.con, f"create or replace temporary table {_BATCH} ({columns})")
        run_many(
            self.con,
            f"insert into {_BATCH} ({', '.join(_BATCH_COLUMNS)})"
            f" values ({', '.join(['%s'] * len(_BATCH_COLUMNS))})",
            [_batch_values(m) for m in manifests],
        )

    def drop_temporary(self) -> None:
        """Drop what this load made for itself, as the session may go on."""
        for table in self.temporary:
            run(self.con, f"drop table if exists {table}")

    def _leave_out_loaded(self) -> None:
        """Take ranges out of the batch that another load has entered since."""
        run(
            self.con,
            f"delete from {_BATCH} as batch using {RAW}.load_history as history"
            " where history.stream_id = batch.stream_id and history.kafka_partition = batch.kafka_partition"
            " and history.start_offset = batch.start_offset",
        )

    def _forget_batch(self, feed: str) -> None:
        for table in ("load_history", "redacted_ranges"):
            run(
                self.con,
                f"delete from {RAW}.{table} as known using {_BATCH} as batch"
                " where known.stream_id = batch.stream_id and known.kafka_partition = batch.kafka_partition"
                " and known.start_offset = batch.start_offset",
            )
        run(
            self.con,
            f"delete from {RAW}.extracts where feed = %s and stream_id in (select stream_id from {_BATCH})",
            [feed],
        )
        forget_model_marks(self.con)

    def _record(self, feed: str, manifests: Sequence[Manifest], load_seq: int, gone: dict[str, Gone]) -> int:
        """Enter what is left of the batch into the ledgers; returns how many ranges that are."""
        run(
            self.con,
            f"insert into {RAW}.load_history (stream_id, kafka_partition, start_offset, end_offset, feed,"
            " source_file, row_count, rejected_count, consent_dropped_count, offset_gap_count, event_dates,"
            " load_seq, loaded_at)"
            " select stream_id, kafka_partition, start_offset, end_offset, feed, source_file, row_count,"
            " rejected_count, consent_dropped_count, offset_gap_count, parse_json(event_dates) as event_dates,"
            f" %s as load_seq, %s::timestamp_ntz as loaded_at from {_BATCH}",
            [load_seq, self.started_at],
        )
        if any(m.extract_id is not None for m in manifests):
            run(
                self.con,
                f"insert into {RAW}.extracts (extract_id, feed, source_system, stream_id, complete, row_count,"
                " extracted_at, claimed_at, arrival_ts)"
                " select extract_id, feed, source_system, stream_id, is_complete, row_count, extracted_at,"
                f" claimed_at, max_arrival_ts from {_BATCH} where extract_id is not null",
            )
        kept = {
            (stream_id, int(partition), int(start))
            for stream_id, partition, start in run(
                self.con, f"select stream_id, kafka_partition, start_offset from {_BATCH}"
            )
        }
        brought = [m for m in manifests if m.range_key in kept]
        missing = [(m, gone.get(m.source_file, Gone())) for m in brought]
        _insert_redacted(
            self.con,
            [
                # The data's present does not go by what a quarantined row says of its receipt.
                (
                    *m.range_key,
                    m.feed,
                    rows.redacted,
                    None if rows.quarantined else m.max_arrival_ts,
                    rows.quarantined,
                )
                for m, rows in missing
                if any(rows)
            ],
        )
        _note_progress(self.con, with_loaded(partition_progress(self.con), brought))
        rows = sum(m.rows - sum(gone_rows) for m, gone_rows in missing)
        self.done.brought += brought
        self.done.rows_by_feed[feed] = self.done.rows_by_feed.get(feed, 0) + rows
        self.say(f"raw.{feed}: {self.done.rows_by_feed[feed]:,} rows")
        return len(brought)


def _batch_values(manifest: Manifest) -> list[Any]:
    return [
        *manifest.range_key,
        manifest.end,
        manifest.feed,
        manifest.source_file,
        manifest.rows,
        manifest.rejected,
        manifest.consent_dropped,
        manifest.offset_gaps,
        json.dumps([day.isoformat() for day in manifest_event_dates(manifest)]),
        manifest.max_arrival_ts,
        manifest.extract_id,
        manifest.source_system,
        None if manifest.complete is None else bool(manifest.complete),
        manifest.extracted_at,
        manifest.ingested_at,
    ]


def _batches(manifests: Sequence[Manifest]) -> Iterator[Sequence[Manifest]]:
    for first in range(0, len(manifests), RANGES_PER_BATCH):
        yield manifests[first : first + RANGES_PER_BATCH]


def create_landed_statement(feed: str) -> str:
    """Makes the table that files are copied into first, as strict as raw: what does not fit is refused here."""
    columns = ", ".join(
        f"{column.name} {snowflake_type(column).lower()}{'' if column.nullable else ' not null'}"
        for column in feed_schema(feed)
    )
    return f"create or replace temporary table {_landed_table(feed)} ({columns})"


def _landed_table(feed: str) -> str:
    return f"{RAW}.loading_{feed}"


def counted_files(
    con: SnowflakeConnection, feed: str, manifests: Collection[Manifest], table: str | None = None
) -> dict[str, Counted]:
    """What `table` (the feed's own, if none is given) holds of the ranges' files, by source file."""
    if not manifests:
        return {}
    claimed = [m.ingested_at for m in manifests]
    marks = ", ".join(["%s"] * len(manifests))
    rows = run(
        con,
        "select source_file, count(*) as row_count, count(distinct kafka_offset) as offset_count,"
        " min(kafka_offset) as first_offset, max(kafka_offset) as last_offset"
        f" from {table or f'{RAW}.{feed}'}"
        # The claim's time is on every row: Snowflake skips what was claimed at other times.
        " where ingested_at >= %s::timestamp_ntz and ingested_at <= %s::timestamp_ntz"
        f" and source_file in ({marks}) group by source_file",
        [min(claimed), max(claimed), *(m.source_file for m in manifests)],
    )
    return {name: Counted(*(int(value) for value in counts)) for name, *counts in rows}


def feeds_with_surplus(con: SnowflakeConnection, recent_from: datetime) -> list[str]:
    """Feeds of which raw holds more rows than the ledger and files on their way explain.

    Counting a table costs nothing on Snowflake, so that the usual load looks no further. A range that lacks as
    many rows as another has too many hides it: the reconciliation looks at each.
    """
    counts = " union all ".join(
        f"select '{feed}' as feed, (select count(*) from {RAW}.{feed})"
        f" - (select coalesce(sum(row_count), 0) from {RAW}.load_history where feed = '{feed}')"
        f" + (select coalesce(sum({WITHHELD}), 0) from {RAW}.redacted_ranges as gone where feed = '{feed}')"
        " as surplus"
        for feed in FEEDS
    )
    surplus = {feed: int(rows) for feed, rows in run(con, counts) if int(rows) > 0}
    return [feed for feed, rows in surplus.items() if rows > _unledgered_rows(con, feed, recent_from)]


def _unledgered_rows(con: SnowflakeConnection, feed: str, recent_from: datetime) -> int:
    """Rows of files claimed since a moment that the ledger does not know."""
    [(rows,)] = run(
        con,
        f"select count(*) as row_count from {RAW}.{feed} as landed left join {RAW}.load_history as history"
        f" on history.feed = '{feed}' and history.source_file = landed.source_file"
        " where landed.ingested_at >= %s::timestamp_ntz and history.source_file is null",
        [recent_from],
    )
    return int(rows)


def repeated_ranges(con: SnowflakeConnection, feed: str) -> list[RangeKey]:
    """Ranges of the ledger of which a feed's table holds more rows than it should, or an offset twice."""
    rows = run(
        con,
        "with files as ("
        " select source_file, count(*) as row_count, count(distinct kafka_offset) as offset_count"
        f" from {RAW}.{feed} group by source_file"
        ")"
        " select history.stream_id, history.kafka_partition, history.start_offset"
        f" from {RAW}.load_history as history"
        " inner join files on files.source_file = history.source_file"
        f" left join {RAW}.redacted_ranges as gone on gone.stream_id = history.stream_id"
        " and gone.kafka_partition = history.kafka_partition and gone.start_offset = history.start_offset"
        f" where history.feed = '{feed}' and (files.offset_count <> files.row_count"
        f" or files.row_count > history.row_count - coalesce({WITHHELD}, 0))"
        " order by history.stream_id, history.kafka_partition, history.start_offset",
    )
    return [(stream_id, int(partition), int(start)) for stream_id, partition, start in rows]


def count_rows_in(con: SnowflakeConnection, spans: Sequence[Span]) -> int:
    """Rows of raw, of all feeds, that lie in the spans."""
    create_redactions(con, Redactions(), spans)
    rows = sum(count_in_spans(con, f"{RAW}.{feed}") for feed in FEEDS)
    drop_redactions(con)
    return rows


def forget_ranges(con: SnowflakeConnection, manifests: Iterable[Manifest]) -> int:
    """Take ranges out of raw and ledger, in one transaction, so that the next load brings them again.

    Returns the rows that were there. Everything is in the lake: nothing is lost. As pipes do not bring a file
    twice, the next load copies them.
    """
    with transaction(con):
        _take_lock(con)
        deleted = _forget(con, manifests)
        forget_model_marks(con)
    return deleted


def _forget(con: SnowflakeConnection, manifests: Iterable[Manifest]) -> int:
    """Part of the caller's transaction; returns the rows that were there."""
    deleted = 0
    for m in manifests:
        here = f"from {RAW}.{m.feed} where source_file = %s"
        [(rows,)] = run(con, f"select count(*) as row_count {here}", [m.source_file])
        deleted += int(rows)
        run(con, f"delete {here}", [m.source_file])
        for table in ("load_history", "redacted_ranges"):
            run(
                con,
                f"delete from {RAW}.{table}"
                " where stream_id = %s and kafka_partition = %s and start_offset = %s",
                [*m.range_key],
            )
        run(con, f"delete from {RAW}.extracts where stream_id = %s", [m.stream_id])
    return deleted


def forget_model_marks(con: SnowflakeConnection) -> None:
    """Make the next build take every model of records whole instead of what new loads touched."""
    run(
        con,
        f"delete from {RAW}.build_marks where mark not in (%s, %s, %s, %s, %s) and not startswith(mark, %s)",
        [WAREHOUSE_MARK, REWRITTEN_MARK, SCORES_MARK, PRESENT_MARK, LOCK_MARK, MARK_PREFIX],
    )


def build_mark(con: SnowflakeConnection, mark: str) -> int:
    """Load number up to which `mark` (a stage) has been built; 0 before the first."""
    [(load_seq,)] = run(
        con,
        f"select coalesce(max(load_seq), 0) as load_seq from {RAW}.build_marks where mark = %s",
        [mark],
    )
    return int(load_seq)


def set_build_mark(con: SnowflakeConnection, mark: str, load_seq: int) -> None:
    """Remember that stage `mark` has been built up to load `load_seq`."""
    with transaction(con):
        run(con, f"delete from {RAW}.build_marks where mark = %s", [mark])
        run_many(con, f"insert into {RAW}.build_marks (mark, load_seq) values (%s, %s)", [(mark, load_seq)])


def put_salt(con: SnowflakeConnection, salt: str) -> None:
    """Give the warehouse its salt. Raises SaltError when it has another."""
    if is_new_salt(run(con, f"select salt from {RAW}.hash_salt"), salt):
        run_many(con, f"insert into {RAW}.hash_salt (salt) values (%s)", [(salt,)])


def dirty_days(con: SnowflakeConnection, since_seq: int) -> list[date]:
    """Event dates (UTC) that loads after `since_seq` brought rows of, or redactions took rows from."""
    rows = run(
        con,
        "with loads as ("
        f" select event_dates, load_seq from {RAW}.load_history"
        f" union all select event_dates, load_seq from {RAW}.redactions"
        ")"
        " select distinct dates.value::varchar as event_date"
        " from loads, lateral flatten(input => loads.event_dates) as dates"
        " where loads.load_seq > %s order by event_date",
        [since_seq],
    )
    return [date.fromisoformat(text) for (text,) in rows]


def redacted_days(con: SnowflakeConnection, since_seq: int) -> list[date] | None:
    """Event dates (UTC) that redactions applied after load `since_seq` took rows from; None when none was applied."""
    rows = run(con, f"select event_dates from {RAW}.redactions where load_seq > %s", [since_seq])
    return sorted({date.fromisoformat(day) for (days,) in rows for day in json.loads(days)}) if rows else None


def last_load_started_at(con: SnowflakeConnection) -> datetime | None:
    """When the newest load began (naive UTC); None before the first."""
    [(newest,)] = run(con, f"select max(loaded_at) as loaded_at from {RAW}.load_history")
    return newest


def load_history_rows(con: SnowflakeConnection) -> list[dict[str, Any]]:
    """The load ledger, one dictionary per range."""
    names = [name for name in LEDGERS["load_history"].names if name != "event_dates"]
    return [
        dict(zip(names, row, strict=True))
        for row in run(con, f"select {', '.join(names)} from {RAW}.load_history")
    ]


def newest_extract_at(con: SnowflakeConnection, feed: str, until: datetime) -> datetime | None:
    """When the newest extract of a feed was taken, of those up to a moment (naive UTC); None before the first."""
    [(newest,)] = run(
        con,
        f"select max(extracted_at) as extracted_at from {RAW}.extracts where feed = %s and extracted_at <= %s",
        [feed, until],
    )
    return newest


def data_time(con: SnowflakeConnection) -> datetime | None:
    """The data's own present (naive UTC), the watermark; None while no telemetry is loaded. It never falls."""
    [(moment,)] = run(con, f"select max(watermark_ts) as watermark_ts from {RAW}.watermark")
    return moment


def partition_progress(con: SnowflakeConnection) -> dict[Place, PartitionProgress]:
    """Up to where each partition is loaded and known."""
    rows = run(con, f"select {', '.join(LEDGERS['partition_progress'].names)} from {RAW}.partition_progress")
    return {
        (stream_id, int(partition)): PartitionProgress(stream_id, int(partition), int(end), *moments)
        for stream_id, partition, end, *moments in rows
    }


def _note_progress(con: SnowflakeConnection, after: dict[Place, PartitionProgress]) -> None:
    """Write the rows of partitions that have got further; part of a transaction that holds the lock."""
    before = partition_progress(con)
    names = LEDGERS["partition_progress"].names
    changed = [one for place, one in after.items() if one != before.get(place)]
    for one in changed:
        run(
            con,
            f"delete from {RAW}.partition_progress where stream_id = %s and kafka_partition = %s",
            [one.stream_id, one.kafka_partition],
        )
    if changed:
        run_many(
            con,
            f"insert into {RAW}.partition_progress ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})",
            [astuple(one) for one in changed],
        )


def _move_watermark(
    con: SnowflakeConnection, store: ObjectStore, loaded: Collection[RangeKey], waiting_since: datetime | None
) -> None:
    """Take up what marks say of the ends of logs, and move the watermark."""
    with transaction(con):
        _take_lock(con)
        known = partition_progress(con)
        followed: list[Manifest] = []
        if loaded and not known:
            # Nobody has followed them yet; the lake says the same as if somebody had.
            followed = [m for m in list_manifests(store) if m.range_key in loaded]
        after = with_marks(with_loaded(known, followed), read_progress(store, newest_end(known)))
        _note_progress(con, after)
        present = data_time(con)
        reached = advanced(present, after, dead_streams(store), waiting_since)
        if reached is not None and reached != present:
            run(con, f"delete from {RAW}.watermark")
            run_many(con, f"insert into {RAW}.watermark (watermark_ts) values (%s)", [(reached,)])


def table_row_counts(con: SnowflakeConnection, schema: str) -> dict[str, int]:
    """Rows of every table of a schema, by name."""
    tables = run(
        con,
        "select lower(table_name) as table_name from information_schema.tables"
        " where table_schema = %s and table_type = 'BASE TABLE' order by table_name",
        [schema.upper()],
    )
    return {
        table: int(run(con, f"select count(*) as row_count from {schema}.{table}")[0][0])
        for (table,) in tables
    }


def vouched_seq(con: SnowflakeConnection) -> int:
    """Load number up to which raw is known to be what landed: a build took it up, which waits for the
    reconciliation, and nothing was redacted since."""
    mark = build_mark(con, WAREHOUSE_MARK)
    [(redacted_at,)] = run(con, f"select coalesce(max(load_seq), 0) as load_seq from {RAW}.redactions")
    return 0 if int(redacted_at) > mark else mark
