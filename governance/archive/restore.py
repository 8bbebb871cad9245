"""Bringing a day back from cold storage into its table, and how long it then stays."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from governance.archive.archive import (
    TierProofError,
    cold_files,
    cold_in_warehouse,
    columns_of,
    content,
    day_sql,
    stored_sql,
    table_exists,
)
from governance.archive.cold import load_cold_days
from governance.archive.policy import TieredTable
from governance.erasure.leftovers import covered_rows, register_covered
from lake.redactions import load_redactions
from lake.sql import transaction
from warehouse.duckdb.rebuilt import note_rebuilt

if TYPE_CHECKING:
    import duckdb

    from lake.store import ObjectStore


class RestoreError(Exception):
    """A day cannot be brought back; the message says what to do instead."""


class UnknownDayError(RestoreError):
    """A table has no rows of the day, neither in the warehouse nor in cold storage."""


def restore_day(
    con: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    table: TieredTable,
    day: date,
    kept_until: date,
    scratch: Path,
) -> int:
    """Bring a day back into its table and keep it there until a date of the data's present; rows brought.

    0 for a day that is in the warehouse already: it is only kept. Raises UnknownDayError
    for a day that is neither here nor there, RestoreError for one whose files hold
    redacted rows or that another version of the model wrote, TierProofError for
    damaged files.
    """
    if not table_exists(con, table.full_name):
        raise RestoreError(f"the warehouse has no table {table.full_name}; build it first")
    if (table.full_name, day) not in cold_in_warehouse(con):
        if not content(con, day_sql(table, day, columns_of(con, table.full_name)))[0]:
            raise UnknownDayError(
                f"{table.full_name} has no rows of {day}, in the warehouse or in cold storage"
            )
        with transaction(con):
            _keep(con, table, day, kept_until)
        return 0
    cold_day = load_cold_days(store).get((table.full_name, day))
    if cold_day is None or cold_day.is_withdrawn:
        raise RestoreError(
            f"{table.full_name} {day} should be in cold storage at {store.url}, but nothing there says so;"
            f" {_rebuild(table, day)}"
        )
    if cold_day.columns != columns_of(con, table.full_name):
        raise RestoreError(
            f"{table.full_name} {day} was moved with other columns than the table has now;"
            f" {_rebuild(table, day)}"
        )
    names = ", ".join(f'"{name}"' for name, _ in cold_day.columns)
    with cold_files(store, cold_day, scratch) as paths:
        stored = stored_sql(paths, cold_day.columns)
        redactions = load_redactions(store)
        register_covered(con, redactions)
        columns = [name for name, _ in cold_day.columns]
        if covered_rows(con, f"({stored})", table.name, columns, redactions):
            raise RestoreError(
                f"{table.full_name} {day}: its files hold rows that a redaction covers;"
                " `petwellness load` and `petwellness build` bring the day back without them"
            )
        with transaction(con):
            con.execute(f"insert into {table.full_name} ({names}) {stored}")
            note_rebuilt(con, table.full_name, day)
            restored = content(con, day_sql(table, day, cold_day.columns))
            if restored != content(con, stored) or restored[0] != cold_day.rows:
                raise TierProofError(
                    f"{table.full_name} {day}: the table has {restored[0]:,} rows of the day after the restore,"
                    f" {cold_day.rows:,} were moved. Nothing was changed; {_rebuild(table, day)}"
                )
            _forget(con, "cold_days", table, day)
            _keep(con, table, day, kept_until)
    return cold_day.rows


def release_day(con: duckdb.DuckDBPyConnection, table: TieredTable, day: date) -> bool:
    """Let the next run move a day that was kept on purpose; whether it was."""
    return _forget(con, "kept_days", table, day)


def _keep(con: duckdb.DuckDBPyConnection, table: TieredTable, day: date, until: date) -> None:
    _forget(con, "kept_days", table, day)
    con.execute("insert into raw.kept_days values (?, ?, ?)", [table.full_name, day, until])


def _forget(con: duckdb.DuckDBPyConnection, ledger: str, table: TieredTable, day: date) -> bool:
    row = con.execute(
        f"delete from raw.{ledger} where table_name = ? and event_date = ?", [table.full_name, day]
    ).fetchone()
    return bool(row and row[0])


def _rebuild(table: TieredTable, day: date) -> str:
    return f"materialize the partition {day} of {table.schema}/{table.name} and what reads it (`make dev`)"
