"""Landed ranges into `raw.*` of the embedded warehouse, each exactly once.

The ledger `raw.load_history` decides what is loaded, by (stream, partition,
start, end) and never by path. Rows and ledger entries of one load are one
transaction. Rows that the redaction ledger or the quarantine covers are neither
loaded nor kept: `raw.redacted_ranges` counts them by range, `raw.redactions` says
which entries of both have been applied. A range that is, or was, quarantined in part
is loaded again whenever an entry is new, so that it is as if loaded now.
`raw.build_marks` remembers up to which load the warehouse was built, so that days
left dirty by a run that died are taken up by the next one; models of records keep
marks of their own there, under `schema.table`.
`raw.cold_days` and `raw.kept_days` are the retention tiers' own (`governance.archive`),
`raw.rebuilt_days` is in `rebuilt`. Transformations do not live here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.columns import JSON_COLUMNS
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
from lake.sql import duckdb_type, register_lake
from lake.sql_text import literal
from lake.store import ObjectStore
from warehouse.duckdb.redactions import (
    Removed,
    delete_redacted,
    quarantined,
    redacted,
    register_redactions,
    register_spans,
)
from warehouse.ledger import (
    PRESENT_MARK,
    REWRITTEN_MARK,
    SCORES_MARK,
    WAREHOUSE_MARK,
    LoadMismatchError,
    LoadReport,
    extract_values,
    history_values,
    manifest_event_dates,
    pending_ranges,
    spans_to_load_again,
)
from warehouse.watermark import PartitionProgress, Place, advanced, newest_end, with_loaded, with_marks

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

# Files per insert: bounds the memory of one statement, keeps its progress visible.
FILES_PER_INSERT = 64

# The load streams; without a limit DuckDB would take most of the machine for its cache.
MEMORY_LIMIT = "600MB"


class WarehouseUnreachableError(RuntimeError):
    """The warehouse file cannot be opened; the message names the file and what to do."""


@contextmanager
def open_warehouse(
    path: Path, store: ObjectStore | None = None, read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connection to the warehouse file, closed at the end; creates the raw schema when writable.

    `store` makes the lake's files readable inside SQL where they are not local.
    Raises WarehouseUnreachableError when another process holds the file.
    """
    import duckdb

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        con = duckdb.connect(str(path), read_only=read_only)
    except duckdb.IOException as error:
        raise WarehouseUnreachableError(
            f"cannot open the warehouse {path}: another process may be using it "
            f"(a run, `make dev`); wait for it or set PETWELLNESS_HOME. ({str(error).splitlines()[0]})"
        ) from error
    try:
        con.execute("set timezone = 'UTC'")
        con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        con.execute("set preserve_insertion_order = false")
        if store is not None:
            register_lake(con, store)
        if not read_only:
            create_raw_tables(con)
        yield con
    finally:
        con.close()


def sql_type(field: pa.Field) -> str:
    """DuckDB type of one landing column in raw."""
    return "json" if field.name in JSON_COLUMNS else duckdb_type(field)


def create_raw_tables(con: duckdb.DuckDBPyConnection) -> None:
    """Create what is missing of the raw schema. No keys: enforcing one on 8 million rows
    took 28 s against 3 s, so tests guard uniqueness."""
    con.execute("create schema if not exists raw")
    # Not information_schema, which takes longer than all the rest when nothing is missing.
    present = set(
        con.execute(
            "select table_name, column_name from duckdb_columns()"
            " where database_name = current_database() and schema_name = 'raw'"
        ).fetchall()
    )
    tables = {table for table, _ in present}
    for table, schema in {**{feed: feed_schema(feed) for feed in FEEDS}, **LEDGERS}.items():
        if table not in tables:
            columns = ", ".join(
                f"{column.name} {sql_type(column)}{'' if column.nullable else ' not null'}"
                for column in schema
            )
            con.execute(f"create table raw.{table} ({columns})")
            continue
        # Columns that the contract got since the warehouse was made; rows loaded before have nulls there.
        for column in schema:
            if (table, column.name) not in present:
                con.execute(f"alter table raw.{table} add column {column.name} {sql_type(column)}")


def loaded_keys(con: duckdb.DuckDBPyConnection, until_seq: int | None = None) -> set[RangeKey]:
    """(stream, partition, start) of every range in the ledger, or of those loaded up to `until_seq`."""
    rows = con.execute(
        "select stream_id, kafka_partition, start_offset from raw.load_history"
        " where load_seq <= coalesce(?, load_seq)",
        [until_seq],
    ).fetchall()
    return {(stream_id, partition, start) for stream_id, partition, start in rows}


def load_pending(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    manifests: Iterable[Manifest],
    progress: Callable[[str], None] = lambda _: None,
) -> LoadReport:
    """Load every manifest's range that the ledger does not hold yet, in one transaction.

    A range that several manifests bring is loaded from the first of them, from the
    object that stands for it now. Rows that the redaction ledger or the quarantine
    covers stay out, and those loaded before an entry was written are deleted; what was
    released from quarantine comes back.

    Raises LoadMismatchError when a file cannot be read or its rows differ from
    its manifest, NewerSchemaError when a newer release landed it; then nothing of
    this load stays.
    """
    loaded = loaded_keys(con)
    redactions, quarantine = load_redactions(store), load_quarantine(store)
    unapplied = {*redactions.ids, *quarantine.ids} - applied_redactions(con)
    again = [
        read_manifest(store, range_key)
        for range_key in _loaded_in(con, spans_to_load_again(quarantine, unapplied))
    ]
    pending = pending_ranges([*manifests, *again], loaded - {m.range_key for m in again})
    load_seq = latest_load_seq(con) + 1
    started_at = utc_now()
    check_schema_version(pending)
    con.execute("begin transaction")
    try:
        _forget(con, again)
        removed = _apply_redactions(con, store, redactions.only(unapplied), load_seq, started_at)
        again_dates = sorted({day for m in again for day in manifest_event_dates(m)})
        _record_applied(con, sorted(unapplied & {*quarantine.ids}), again_dates, load_seq, started_at)
        register_redactions(con, redactions)
        register_spans(con, quarantine.spans)
        rows_by_feed = _insert_rows(con, store, pending, redactions, quarantine, progress)
        if pending:
            _record_loads(con, pending, load_seq, started_at)
        _follow_partitions(con, store, loaded, pending)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    days = {day for m in pending for day in manifest_event_dates(m)}
    return LoadReport(
        load_seq if pending or unapplied else load_seq - 1,
        len(pending),
        rows_by_feed,
        tuple(sorted(days.union(removed.event_dates))),
        len(unapplied),
        sum(removed.rows_by_range.values()),
    )


def _loaded_in(con: duckdb.DuckDBPyConnection, spans: Iterable[Span]) -> list[RangeKey]:
    """Ranges of the ledger that any of the spans meets."""
    found: set[RangeKey] = set()
    for span in spans:
        found.update(
            con.execute(
                "select stream_id, kafka_partition, start_offset from raw.load_history"
                " where stream_id = ? and kafka_partition = ? and start_offset < ? and end_offset > ?",
                [span.stream_id, span.partition, span.end, span.start],
            ).fetchall()
        )
    return sorted(found)


def applied_redactions(con: duckdb.DuckDBPyConnection) -> set[str]:
    """Ids of the entries of the redaction and quarantine ledgers that raw honours."""
    return {row[0] for row in con.execute("select redaction_id from raw.redactions").fetchall()}


def _apply_redactions(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    unapplied: Redactions,
    load_seq: int,
    applied_at: datetime,
) -> Removed:
    """Delete what new entries of the ledger cover and remember that they were applied."""
    if not unapplied:
        return Removed({}, {}, ())
    register_redactions(con, unapplied)
    removed = delete_redacted(con, unapplied)
    for range_key, rows in removed.rows_by_range.items():
        _count_redacted(con, read_manifest(store, range_key), rows)
    # Which entry touched which day does not matter: the days of all are dirty since this load.
    _record_applied(con, unapplied.ids, removed.event_dates, load_seq, applied_at)
    return removed


def _record_applied(
    con: duckdb.DuckDBPyConnection,
    entry_ids: Sequence[str],
    event_dates: Sequence[date],
    load_seq: int,
    applied_at: datetime,
) -> None:
    if entry_ids:
        con.executemany(
            "insert into raw.redactions values (?, ?, ?, ?)",
            [[entry_id, [*event_dates], load_seq, applied_at] for entry_id in entry_ids],
        )


def _count_redacted(
    con: duckdb.DuckDBPyConnection, manifest: Manifest, rows: int, quarantined_rows: int = 0
) -> None:
    """Add to the redacted rows of a range. Its newest arrival stays on record, unless some of its rows are
    quarantined: theirs may be what it was quarantined for."""
    before = con.execute(
        "delete from raw.redacted_ranges where stream_id = ? and kafka_partition = ? and start_offset = ?"
        " returning redacted_count",
        [*manifest.range_key],
    ).fetchone()
    con.execute(
        "insert into raw.redacted_ranges values (?, ?, ?, ?, ?, ?, ?)",
        [
            *manifest.range_key,
            manifest.feed,
            rows + (before[0] if before else 0),
            None if quarantined_rows else manifest.max_arrival_ts,
            quarantined_rows,
        ],
    )


def _insert_rows(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    pending: list[Manifest],
    redactions: Redactions,
    quarantine: Quarantine,
    progress: Callable[[str], None],
) -> dict[str, int]:
    import duckdb

    replacements = load_replacements(store)
    rows_by_feed: dict[str, int] = {}
    for feed in sorted({m.feed for m in pending}):
        of_feed = [m for m in pending if m.feed == feed]
        is_redacted = redacted(feed, redactions, "landed")
        for first in range(0, len(of_feed), FILES_PER_INSERT):
            batch = of_feed[first : first + FILES_PER_INSERT]
            uris = [store.uri(replacements.main_object_of(m)) for m in batch]
            is_met = any(quarantine.meets(m.stream_id, m.partition, m.start, m.end) for m in batch)
            is_quarantined = quarantined("landed") if is_met else "false"
            try:
                left_out = _left_out(con, uris, batch, is_redacted, is_quarantined)
                inserted = _insert_files(con, feed, uris, batch, f"({is_redacted} or {is_quarantined})")
            except (
                duckdb.IOException,
                duckdb.InvalidInputException,
                duckdb.ConversionException,
                duckdb.ConstraintException,
                duckdb.BinderException,
            ) as error:
                raise LoadMismatchError(
                    f"raw.{feed}: a landed file cannot be read, or does not fit; nothing was loaded. Restore it from the"
                    f" lake's backup. ({str(error).splitlines()[0]})"
                ) from error
            found, expected = (
                inserted + sum(sum(rows) for rows in left_out.values()),
                sum(replacements.stored_object_of(m).rows for m in batch),
            )
            if found != expected:
                raise LoadMismatchError(
                    f"raw.{feed}: {len(batch)} files from {batch[0].source_file} on hold {found} rows,"
                    f" their manifests say {expected}; nothing was loaded. Compare the objects' sha256"
                    " with their manifests."
                )
            _count_left_out(con, batch, replacements, left_out)
            rows_by_feed[feed] = rows_by_feed.get(feed, 0) + inserted
            progress(f"raw.{feed}: {rows_by_feed[feed]:,} rows")
    return rows_by_feed


def _left_out(
    con: duckdb.DuckDBPyConnection,
    uris: list[str],
    batch: list[Manifest],
    is_redacted: str,
    is_quarantined: str,
) -> dict[RangeKey, tuple[int, int]]:
    """Rows of the files that are redacted, and those that are only quarantined, by range."""
    if is_redacted == is_quarantined == "false":
        return {}
    counted = con.execute(
        f"select landed.filename, count(*) filter ({is_redacted}),"
        f" count(*) filter ({is_quarantined} and not {is_redacted})"
        " from read_parquet(?, hive_partitioning = false, filename = true) as landed"
        f" where {is_redacted} or {is_quarantined} group by all",
        [uris],
    ).fetchall()
    # By file: two ranges of one partition may hold the same offsets.
    by_file = {uri: m.range_key for uri, m in zip(uris, batch, strict=True)}
    return {by_file[uri]: (redacted_rows, others) for uri, redacted_rows, others in counted}


def _count_left_out(
    con: duckdb.DuckDBPyConnection,
    batch: list[Manifest],
    replacements: Replacements,
    left_out: dict[RangeKey, tuple[int, int]],
) -> None:
    for manifest in batch:
        redacted_rows, quarantined_rows = left_out.get(manifest.range_key, (0, 0))
        missing = manifest.rows - replacements.stored_object_of(manifest).rows + redacted_rows
        if missing or quarantined_rows:
            _count_redacted(con, manifest, missing, quarantined_rows)


def _insert_files(
    con: duckdb.DuckDBPyConnection, feed: str, uris: list[str], batch: list[Manifest], covered: str
) -> int:
    # By name: a column that no file has yet is null. Files of several schemas are united, which
    # asks the store for each file's columns first.
    mixed = len({m.schema_version for m in batch}) > 1
    result = con.execute(
        f"insert into raw.{feed} by name select * from"
        f" read_parquet(?, hive_partitioning = false, union_by_name = {str(mixed).lower()}) as landed"
        f" where not {covered}",
        [uris],
    ).fetchone()
    return int(result[0]) if result else 0


def _record_loads(
    con: duckdb.DuckDBPyConnection, pending: list[Manifest], load_seq: int, loaded_at: datetime
) -> None:
    con.executemany(
        "insert into raw.load_history values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [history_values(m, load_seq, loaded_at) for m in pending],
    )
    extracts = [extract_values(m) for m in pending if m.extract_id is not None]
    if extracts:
        con.executemany("insert into raw.extracts values (?, ?, ?, ?, ?, ?, ?, ?, ?)", extracts)


def count_rows_in(con: duckdb.DuckDBPyConnection, spans: Sequence[Span]) -> int:
    """Rows of raw, of all feeds, that lie in the spans."""
    register_spans(con, spans)
    counted = " + ".join(
        f"(select count(*) from raw.{feed} as landed where {quarantined('landed')})" for feed in FEEDS
    )
    [(rows,)] = con.execute(f"select {counted}").fetchall()
    return int(rows)


def forget_ranges(con: duckdb.DuckDBPyConnection, manifests: Iterable[Manifest]) -> int:
    """Take ranges out of raw and ledger, in one transaction, so that the next load brings them again.

    Returns the rows that were deleted. Everything is in the lake: nothing is lost. Models of records are
    built whole next time: rows that should not have been there leave no other trace.
    """
    con.execute("begin transaction")
    try:
        deleted = _forget(con, manifests)
        forget_model_marks(con)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    return deleted


def _forget(con: duckdb.DuckDBPyConnection, manifests: Iterable[Manifest]) -> int:
    """Part of the caller's transaction; returns the rows that were deleted."""
    deleted = 0
    for m in manifests:
        row = con.execute(
            f"delete from raw.{m.feed} where stream_id = ? and kafka_partition = ?"
            " and kafka_offset >= ? and kafka_offset < ?",
            [m.stream_id, m.partition, m.start, m.end],
        ).fetchone()
        deleted += int(row[0]) if row else 0
        con.execute(
            "delete from raw.load_history where stream_id = ? and kafka_partition = ? and start_offset = ?",
            [m.stream_id, m.partition, m.start],
        )
        con.execute(
            "delete from raw.redacted_ranges where stream_id = ? and kafka_partition = ? and start_offset = ?",
            [m.stream_id, m.partition, m.start],
        )
        con.execute("delete from raw.extracts where stream_id = ?", [m.stream_id])
    return deleted


def latest_load_seq(con: duckdb.DuckDBPyConnection) -> int:
    """Number of the newest load, be it of ranges or of redactions; 0 before the first."""
    row = con.execute(
        "select coalesce(max(load_seq), 0) from"
        " (select load_seq from raw.load_history union all select load_seq from raw.redactions)"
    ).fetchone()
    return int(row[0]) if row else 0


def fetch_rows(con: duckdb.DuckDBPyConnection, sql: str) -> list[dict[str, Any]]:
    """The rows of a query, each a dictionary by column name."""
    cursor = con.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def load_history_rows(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """The load ledger, one dictionary per range."""
    return fetch_rows(con, "select * exclude (event_dates) from raw.load_history")


def newest_extract_at(con: duckdb.DuckDBPyConnection, feed: str, until: datetime) -> datetime | None:
    """When the newest extract of a feed was taken, of those up to a moment (naive UTC); None before the first."""
    row = con.execute(
        "select max(extracted_at) from raw.extracts where feed = ? and extracted_at <= ?", [feed, until]
    ).fetchone()
    return row[0] if row else None


def last_load_started_at(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """When the newest load began (naive UTC); None before the first."""
    row = con.execute("select max(loaded_at) from raw.load_history").fetchone()
    return row[0] if row else None


def data_time(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """The data's own present (naive UTC), the watermark; None while no telemetry is loaded.

    Stands where a rebuild could not repeat the wall clock. It never falls, also where rows are erased.
    """
    row = con.execute("select max(watermark_ts) from raw.watermark").fetchone()
    return row[0] if row else None


def partition_progress(con: duckdb.DuckDBPyConnection) -> dict[Place, PartitionProgress]:
    """Up to where each partition is loaded and known."""
    rows = con.execute(f"select {', '.join(LEDGERS['partition_progress'].names)} from raw.partition_progress")
    return {one[:2]: PartitionProgress(*one) for one in rows.fetchall()}


def _follow_partitions(
    con: duckdb.DuckDBPyConnection, store: ObjectStore, loaded: set[RangeKey], brought: list[Manifest]
) -> None:
    """Keep up with what was loaded and what marks say of the ends of logs, and move the watermark."""
    before = partition_progress(con)
    if loaded and not before:
        # Nobody has followed them yet; the lake says the same as if somebody had.
        brought = [*(m for m in list_manifests(store) if m.range_key in loaded), *brought]
    after = with_marks(with_loaded(before, brought), read_progress(store, newest_end(before)))
    for place, one in after.items():
        if one != before.get(place):
            con.execute(
                "delete from raw.partition_progress where stream_id = ? and kafka_partition = ?", [*place]
            )
            con.execute("insert into raw.partition_progress values (?, ?, ?, ?, ?, ?)", [*astuple(one)])
    present = data_time(con)
    reached = advanced(present, after, dead_streams(store))
    if reached != present:
        con.execute("delete from raw.watermark")
        con.execute("insert into raw.watermark values (?)", [reached])


def table_row_counts(con: duckdb.DuckDBPyConnection, schema: str) -> dict[str, int]:
    """Rows of every table of a schema, by name."""
    tables = con.execute(
        "select table_name from information_schema.tables"
        " where table_schema = ? and table_type = 'BASE TABLE' order by table_name",
        [schema],
    ).fetchall()
    counts = {}
    for (table,) in tables:
        row = con.execute(f'select count(*) from "{schema}"."{table}"').fetchone()
        counts[table] = int(row[0]) if row else 0
    return counts


def build_mark(con: duckdb.DuckDBPyConnection, mark: str) -> int:
    """Load number up to which `mark` (a stage) has been built; 0 before the first."""
    row = con.execute(
        "select coalesce(max(load_seq), 0) from raw.build_marks where mark = ?", [mark]
    ).fetchone()
    return int(row[0]) if row else 0


def set_build_mark(con: duckdb.DuckDBPyConnection, mark: str, load_seq: int) -> None:
    """Remember that stage `mark` has been built up to load `load_seq`."""
    con.execute("begin transaction")
    con.execute("delete from raw.build_marks where mark = ?", [mark])
    con.execute("insert into raw.build_marks values (?, ?)", [mark, load_seq])
    con.execute("commit")


def forget_model_marks(con: duckdb.DuckDBPyConnection) -> None:
    """Make the next build take every model of records whole instead of what new loads touched."""
    con.execute(
        "delete from raw.build_marks where mark not in (?, ?, ?, ?)",
        [WAREHOUSE_MARK, REWRITTEN_MARK, SCORES_MARK, PRESENT_MARK],
    )


def put_salt(con: duckdb.DuckDBPyConnection, salt: str) -> None:
    """Give the warehouse its salt. Raises SaltError when it has another."""
    if is_new_salt(con.execute("select salt from raw.hash_salt").fetchall(), salt):
        con.execute("insert into raw.hash_salt values (?)", [salt])


def dirty_days(con: duckdb.DuckDBPyConnection, since_seq: int) -> list[date]:
    """Event dates (UTC) that loads after `since_seq` brought rows of, or redactions took rows from.

    Days that a changed record touches are found by the dbt models themselves.
    """
    rows = con.execute(
        "select distinct unnest(event_dates) as event_date from"
        " (select event_dates, load_seq from raw.load_history"
        " union all select event_dates, load_seq from raw.redactions)"
        " where load_seq > ? order by event_date",
        [since_seq],
    ).fetchall()
    return [row[0] for row in rows]


def redacted_days(con: duckdb.DuckDBPyConnection, since_seq: int) -> list[date] | None:
    """Event dates (UTC) that redactions applied after load `since_seq` took rows from; None when none was applied."""
    rows = con.execute("select event_dates from raw.redactions where load_seq > ?", [since_seq]).fetchall()
    return sorted({day for (days,) in rows for day in days}) if rows else None


def last_redaction_applied_at(con: duckdb.DuckDBPyConnection) -> datetime | None:
    """When entries of the ledger were last applied to raw (naive UTC); None if never."""
    row = con.execute("select max(applied_at) from raw.redactions").fetchone()
    return row[0] if row else None


def vouched_seq(con: duckdb.DuckDBPyConnection) -> int:
    """Load number up to which raw is known to be what landed: a build took it up, which waits for the
    reconciliation, and nothing was redacted since."""
    mark = build_mark(con, WAREHOUSE_MARK)
    row = con.execute("select coalesce(max(load_seq), 0) from raw.redactions").fetchone()
    return 0 if row and int(row[0]) > mark else mark


def needs_rewriting(con: duckdb.DuckDBPyConnection) -> bool:
    """Whether redacted rows may still be legible in unused blocks of the warehouse file.

    So it is from the build after a redaction until the file has been rewritten.
    """
    row = con.execute("select coalesce(max(load_seq), 0) from raw.redactions").fetchone()
    redacted_at = int(row[0]) if row else 0
    return build_mark(con, REWRITTEN_MARK) < redacted_at <= build_mark(con, WAREHOUSE_MARK)


def rewrite_warehouse(path: Path) -> None:
    """Copy every table into a fresh file and put it in place: what was deleted is in no block of it.

    Raises WarehouseUnreachableError when another process holds the file.
    """
    import duckdb

    fresh = path.with_name(f".{path.name}.rewritten")
    fresh.unlink(missing_ok=True)
    with open_warehouse(path) as stale:
        load_seq = latest_load_seq(stale)
    con = duckdb.connect()
    try:
        con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        con.execute("set preserve_insertion_order = false")
        con.execute(f"attach {literal(path)} as stale (read_only)")
        con.execute(f"attach {literal(fresh)} as fresh")
        con.execute("copy from database stale to fresh")
        con.execute("detach fresh")
    finally:
        con.close()
    with open_warehouse(fresh) as rewritten:
        set_build_mark(rewritten, REWRITTEN_MARK, load_seq)
    os.replace(fresh, path)
