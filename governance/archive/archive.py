"""Moving days out of the warehouse: written, proved, stated, and only then deleted.

The steps of one day, so that a run that died at any point is finished by the next:

1. the files, under names with their content's hash;
2. the proof: read back, they are the table's day, by number of rows and content;
3. the statement, which names them;
4. in one transaction of the warehouse: the rows are deleted, `raw.cold_days` has the day;
5. files that no statement names any more are removed.

A day that is in cold storage and has come back (restored, or built again because of
a late event, a correction, a redaction or a rebuild of the warehouse) is in the
warehouse as a whole. If it is as it was, its files are proved again and used; if not,
it gets new ones and the old ones go. Whoever calls holds the warehouse, which one
process at a time can; so no two moves meet.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from governance.archive.cold import ColdDay, DayKey, load_cold_days, put_cold_day, unnamed_files
from governance.archive.policy import TieredTable
from lake import layout
from lake.compaction import DamagedObjectError, fetch
from lake.landing import COMPRESSION
from lake.quarantine import load_quarantine
from lake.redactions import load_redactions
from lake.replacements import StoredObject
from lake.scratch import scratch_folder
from lake.sql import transaction
from lake.sql_text import literals
from lake.store import ObjectExistsError, ObjectStore
from warehouse.duckdb.publish import ROWS_AND_HASH
from warehouse.duckdb.raw import WAREHOUSE_MARK, applied_redactions, build_mark, latest_load_seq
from warehouse.duckdb.rebuilt import note_rebuilt

if TYPE_CHECKING:
    import duckdb

# A file is held in memory once before it is stored.
FILE_BYTES = 64 * 1024 * 1024
ROW_GROUP_ROWS = 122_880

Columns = list[tuple[str, str]]


class TierProofError(Exception):
    """What was stored is not the table's day; the day is in the warehouse, nothing of it was deleted."""


@dataclass(frozen=True)
class DueDay:
    """A day of a table past its limit; `bytes` is its share of the table's blocks."""

    table: TieredTable
    day: date
    rows: int
    bytes: int


@dataclass(frozen=True)
class RetainReport:
    """What a run moved: days by table, rows, bytes of files written and used again, files removed.

    `waiting` says why nothing was moved at all; empty otherwise.
    """

    days: dict[str, list[date]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    written_bytes: int = 0
    reused_days: int = 0
    withdrawn_days: int = 0
    removed_files: int = 0
    waiting: str = ""


def why_waiting(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> str:
    """Why no day may move now; empty when one may.

    A day that waits to be built would move as it was, and come back at once.
    """
    if {*load_redactions(store).ids, *load_quarantine(store).ids} - applied_redactions(con):
        return "redactions or quarantined rows wait to be applied: load and build first"
    if build_mark(con, WAREHOUSE_MARK) < latest_load_seq(con):
        return "loads wait to be built: build first"
    return ""


def due_days(
    con: duckdb.DuckDBPyConnection, tables: Iterable[TieredTable], as_of: datetime | None
) -> list[DueDay]:
    """Days in the warehouse that are past their table's limit at the data's present and not kept on
    purpose, by table and day."""
    if as_of is None:
        return []
    found = []
    for table in tables:
        if not table_exists(con, table.full_name):
            continue
        rows = con.execute(
            f"select {table.day_column}, count(*) from {table.full_name}"
            f" where {table.day_column} <= ? and {table.day_column} not in"
            " (select event_date from raw.kept_days where table_name = ? and kept_until > ?)"
            " group by all order by 1",
            [table.last_due(as_of), table.full_name, as_of.date()],
        ).fetchall()
        bytes_per_row = _bytes_per_row(con, table.full_name) if rows else 0.0
        found += [DueDay(table, day, count, round(count * bytes_per_row)) for day, count in rows]
    return found


def retain(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    tables: Sequence[TieredTable],
    as_of: datetime | None,
    now: datetime,
    scratch: Path,
    only: Iterable[date] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> RetainReport:
    """Move every due day (of `only`, where given), and remove files that nothing names any more.

    Raises TierProofError when what was stored does not prove right.
    """
    if waiting := why_waiting(con, store):
        progress(f"nothing is moved: {waiting}")
        return RetainReport(waiting=waiting)
    in_force = load_cold_days(store)
    removed = remove_unnamed(store, in_force.values())
    report = RetainReport()
    wanted = None if only is None else set(only)
    for due in due_days(con, tables, as_of):
        if wanted is not None and due.day not in wanted:
            continue
        assert as_of is not None  # Without a present no day is due.
        before = in_force.get((due.table.full_name, due.day))
        moved = _move(con, store, due, before, as_of, now, scratch)
        in_force[moved.day_key] = moved
        report = _added(report, moved, moved is before)
        progress(
            f"{moved.table} {moved.day}: {moved.rows:,} rows in cold storage"
            f"{' since before' if moved is before else ''}, deleted from the warehouse"
        )
    withdrawn = withdraw_outdated(con, store, tables, in_force, now)
    removed += remove_unnamed(store, in_force.values())
    return replace(report, withdrawn_days=withdrawn, removed_files=removed)


def withdraw_outdated(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    tables: Iterable[TieredTable],
    in_force: dict[DayKey, ColdDay],
    now: datetime,
) -> int:
    """Withdraw what cold storage holds of `outdated_days`; number of days. Updates `in_force`."""
    outdated = outdated_days(con, tables, in_force)
    for cold_day in outdated:
        withdrawn = msgspec.structs.replace(cold_day, n=cold_day.n + 1, files=[], written_at=now)
        put_cold_day(store, withdrawn)
        in_force[cold_day.day_key] = withdrawn
    return len(outdated)


def outdated_days(
    con: duckdb.DuckDBPyConnection, tables: Iterable[TieredTable], in_force: Mapping[DayKey, ColdDay]
) -> list[ColdDay]:
    """Statements on days that are in the warehouse with other rows.

    What came back changed must not stay behind as it was: it may hold redacted rows.
    Only right while nothing waits to be built (`why_waiting`).
    """
    by_name = {table.full_name: table for table in tables if table_exists(con, table.full_name)}
    cold = cold_in_warehouse(con)
    return [
        cold_day
        for key, cold_day in in_force.items()
        if not cold_day.is_withdrawn
        and key not in cold
        and cold_day.table in by_name
        and not is_as_stated(con, by_name[cold_day.table], cold_day)
    ]


def find_problems(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> dict[str, list[str]]:
    """By table: days that the warehouse has moved and that cold storage does not hold as moved.

    Looks at statements, names and sizes; files are read when a day is moved or restored.
    """
    in_force = load_cold_days(store)
    sizes = {info.key: info.size for info in store.list(layout.COLD)}
    found: dict[str, list[str]] = {}
    for table, day, rows, fingerprint in con.execute(
        "select table_name, event_date, row_count, fingerprint from raw.cold_days order by all"
    ).fetchall():
        problems = found.setdefault(table, [])
        cold_day = in_force.get((table, day))
        if cold_day is None or (cold_day.rows, cold_day.fingerprint) != (rows, fingerprint):
            problems.append(f"{day}: no statement in force on the {rows:,} rows that were moved")
            continue
        problems += [f"{day}: {f.key} is not there" for f in cold_day.files if f.key not in sizes]
        problems += [
            f"{day}: {f.key} has {sizes[f.key]:,} bytes instead of {f.bytes:,}"
            for f in cold_day.files
            if sizes.get(f.key, f.bytes) != f.bytes
        ]
    return found


def remove_unnamed(store: ObjectStore, in_force: Iterable[ColdDay]) -> int:
    """Remove files in cold storage that no statement in force names; how many there were."""
    unnamed = unnamed_files(store, in_force)
    for info in unnamed:
        store.delete(info.key)
    return len(unnamed)


def _move(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    due: DueDay,
    before: ColdDay | None,
    as_of: datetime,
    now: datetime,
    scratch: Path,
) -> ColdDay:
    """Steps 1 to 4 of one day; the statement in force afterwards, `before` itself where it still holds."""
    table, day = due.table, due.day
    cold_day = _proved_before(con, store, table, before, scratch)
    if cold_day is None:
        columns = columns_of(con, table.full_name)
        number = before.n + 1 if before is not None else 1
        _, fingerprint = content(con, day_sql(table, day, columns))
        files = [_store_file(store, table, day, number, *file) for file in _files(con, table, day, columns)]
        cold_day = ColdDay(
            table=table.full_name,
            day=day,
            n=number,
            files=files,
            columns=columns,
            fingerprint=fingerprint,
            model=table.model,
            as_of=as_of,
            written_at=now,
        )
        _prove(con, store, table, cold_day, scratch)
        put_cold_day(store, cold_day)
    with transaction(con):
        con.execute(f"delete from {table.full_name} where {table.day_column} = ?", [day])
        note_rebuilt(con, table.full_name, day)
        con.execute(
            "insert into raw.cold_days values (?, ?, ?, ?)",
            [table.full_name, day, cold_day.rows, cold_day.fingerprint],
        )
        con.execute(
            "delete from raw.kept_days where table_name = ? and event_date = ?", [table.full_name, day]
        )
    return cold_day


def _proved_before(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    table: TieredTable,
    before: ColdDay | None,
    scratch: Path,
) -> ColdDay | None:
    """The statement in force if the day is as it says and its files prove it; else None, for new files."""
    if before is None or before.is_withdrawn or not is_as_stated(con, table, before):
        return None
    try:
        _prove(con, store, table, before, scratch)
    except TierProofError:
        return None
    return before


def _prove(
    con: duckdb.DuckDBPyConnection, store: ObjectStore, table: TieredTable, cold_day: ColdDay, scratch: Path
) -> None:
    """Read the files back: bytes as stated, columns, rows and content as in the table now."""
    with cold_files(store, cold_day, scratch) as paths:
        stored = stored_sql(paths, cold_day.columns)
        expected = content(con, day_sql(table, cold_day.day, cold_day.columns))
        differs = (
            stored_columns(con, paths) != cold_day.columns
            or expected != content(con, stored)
            or expected[0] != cold_day.rows
        )
    if differs:
        raise TierProofError(
            f"{cold_day.table} {cold_day.day}: {cold_day.files[0].key} and the files with it are not the"
            f" {expected[0]:,} rows of the table. Nothing was deleted; run again, it writes them anew"
        )


@contextmanager
def cold_files(store: ObjectStore, cold_day: ColdDay, scratch: Path) -> Iterator[list[str]]:
    """Local paths of a day's files, their sha256 checked.

    Raises TierProofError naming the first that is missing or damaged.
    """
    with scratch_folder(scratch, "cold") as folder:
        try:
            yield fetch(store, [(file.key, file.sha256) for file in cold_day.files], folder, lambda _: None)
        except DamagedObjectError as error:
            raise TierProofError(f"{cold_day.table} {cold_day.day}: {error}") from error


def is_as_stated(con: duckdb.DuckDBPyConnection, table: TieredTable, cold_day: ColdDay) -> bool:
    """Whether the table holds the day with the columns, rows and content of the statement."""
    columns = columns_of(con, table.full_name)
    return columns == cold_day.columns and content(con, day_sql(table, cold_day.day, columns)) == (
        cold_day.rows,
        cold_day.fingerprint,
    )


def content(con: duckdb.DuckDBPyConnection, select: str) -> tuple[int, str]:
    """Number of rows and fingerprint of a query's rows, whatever their order."""
    rows, fingerprint = con.execute(f"select {ROWS_AND_HASH} from ({select}) as content").fetchall()[0]
    return rows, fingerprint


def columns_of(con: duckdb.DuckDBPyConnection, table: str) -> Columns:
    """Names and types of a table's columns, in order."""
    return [(name, kind) for name, kind, *_ in con.execute(f"describe {table}").fetchall()]


def stored_columns(con: duckdb.DuckDBPyConnection, paths: list[str]) -> Columns:
    """Names and types of the columns of Parquet files, as the warehouse reads them."""
    described = con.execute(
        "describe select * from read_parquet(?, hive_partitioning = false)", [paths]
    ).fetchall()
    return [(name, kind) for name, kind, *_ in described]


def day_sql(table: TieredTable, day: date, columns: Columns) -> str:
    """The rows of one day of a table."""
    return f"select {_names(columns)} from {table.full_name} where {table.day_column} = date '{day}'"


def stored_sql(paths: list[str], columns: Columns) -> str:
    """The rows of Parquet files."""
    return f"select {_names(columns)} from read_parquet([{literals(paths)}], hive_partitioning = false)"


def table_exists(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the warehouse has a table `schema.name`."""
    schema, name = table.split(".")
    found = con.execute(
        "select 1 from information_schema.tables where table_schema = ? and table_name = ?", [schema, name]
    )
    return found.fetchone() is not None


def cold_in_warehouse(con: duckdb.DuckDBPyConnection) -> set[DayKey]:
    """Tables' days that are in cold storage and not in the warehouse."""
    return {*con.execute("select table_name, event_date from raw.cold_days").fetchall()}


def _files(
    con: duckdb.DuckDBPyConnection, table: TieredTable, day: date, columns: Columns
) -> Iterator[tuple[int, bytes, int]]:
    """A day's rows, sorted, as Parquet files of about FILE_BYTES: (position, content, rows)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = ", ".join([*table.order, *(name for name, _ in columns if name not in table.order)])
    reader = con.sql(f"{day_sql(table, day, columns)} order by {order}").to_arrow_reader(ROW_GROUP_ROWS)
    sink, writer, rows, position = io.BytesIO(), None, 0, 0
    for batch in reader:
        if not batch.num_rows:
            continue
        if writer is None:
            sink, rows = io.BytesIO(), 0
            writer = pq.ParquetWriter(
                sink, reader.schema, compression=COMPRESSION, store_decimal_as_integer=True
            )
        writer.write_table(pa.Table.from_batches([batch]), row_group_size=ROW_GROUP_ROWS)
        rows += batch.num_rows
        if sink.tell() >= FILE_BYTES:
            writer.close()
            yield position, sink.getvalue(), rows
            writer, position = None, position + 1
    if writer is not None:
        writer.close()
        yield position, sink.getvalue(), rows


def _store_file(
    store: ObjectStore, table: TieredTable, day: date, number: int, position: int, data: bytes, rows: int
) -> StoredObject:
    sha256 = hashlib.sha256(data).hexdigest()
    key = layout.cold_key(table.full_name, day, number, position, sha256)
    with suppress(ObjectExistsError):  # The name is the content's hash; the proof reads what is there.
        store.put_new(key, data)
    return StoredObject(key, sha256, rows, len(data))


def _bytes_per_row(con: duckdb.DuckDBPyConnection, table: str) -> float:
    """A table's blocks in the file over its rows."""
    (blocks,) = con.execute(
        f"select count(distinct block_id) from pragma_storage_info('{table}') where block_id >= 0"
    ).fetchall()[0]
    (block_bytes,) = con.execute("select block_size from pragma_database_size()").fetchall()[0]
    (rows,) = con.execute(f"select count(*) from {table}").fetchall()[0]
    return blocks * block_bytes / max(1, rows)


def _names(columns: Columns) -> str:
    return ", ".join(f'"{name}"' for name, _ in columns)


def _added(report: RetainReport, moved: ColdDay, is_reused: bool) -> RetainReport:
    days = [*report.days.get(moved.table, []), moved.day]
    return replace(
        report,
        days={**report.days, moved.table: days},
        rows={**report.rows, moved.table: report.rows.get(moved.table, 0) + moved.rows},
        written_bytes=report.written_bytes + (0 if is_reused else moved.bytes),
        reused_days=report.reused_days + is_reused,
    )
