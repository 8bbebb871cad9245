"""Which days of which table the latest builds rebuilt: `raw.rebuilt_days`, written by dbt's pre-hooks
and by whoever else takes days out of a table or puts them back.

A build costs its days; so must what follows it. The published copy takes up the
days rebuilt since its last version, checks look at those of the last build. Days
that nobody needs any more are pruned by the next build.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING

from warehouse.duckdb.raw import build_mark

if TYPE_CHECKING:
    import duckdb

PUBLISHED_MARK = "published"

RebuiltDays = Mapping[str, frozenset[date] | None]
"""Table (`schema.name`) to its rebuilt event dates; None stands for all of them."""


def begin_build(con: duckdb.DuckDBPyConnection) -> int:
    """The number of a new build, higher than any before; what all have taken up is forgotten."""
    con.execute("delete from raw.rebuilt_days where build_seq <= ?", [build_mark(con, PUBLISHED_MARK)])
    return latest_build_seq(con) + 1


def note_rebuilt(con: duckdb.DuckDBPyConnection, table: str, day: date) -> None:
    """Note that a day of a table was changed outside a build, in the caller's transaction."""
    con.execute("insert into raw.rebuilt_days values (?, ?, ?)", [table, day, latest_build_seq(con) + 1])


def latest_build_seq(con: duckdb.DuckDBPyConnection) -> int:
    """Number of the newest build that rebuilt a day; 0 before the first."""
    row = con.execute("select coalesce(max(build_seq), 0) from raw.rebuilt_days").fetchone()
    return max(int(row[0]) if row else 0, build_mark(con, PUBLISHED_MARK))


def rebuilt_since_publication(con: duckdb.DuckDBPyConnection) -> RebuiltDays:
    """Days of each table rebuilt after the build that the published copy holds."""
    rows = con.execute(
        "select table_name, event_date from raw.rebuilt_days where build_seq > ?",
        [build_mark(con, PUBLISHED_MARK)],
    ).fetchall()
    return _by_table(rows)


def rebuilt_last(con: duckdb.DuckDBPyConnection, table: str) -> frozenset[date] | None:
    """Days of a table that its last build rebuilt; None when it was all of them, or is not known any more."""
    rows = con.execute(
        "select table_name, event_date from raw.rebuilt_days where table_name = ?"
        " and build_seq = (select max(build_seq) from raw.rebuilt_days where table_name = ?)",
        [table, table],
    ).fetchall()
    return _by_table(rows).get(table)


def in_days(column: str, days: frozenset[date] | None) -> str:
    """SQL: a date column lies in `days`, as literals that let a scan skip what is older."""
    if days is None:
        return "true"
    if not days:
        return "false"
    listed = ", ".join(f"date '{day}'" for day in sorted(days))
    return f"{column} in ({listed})"


def _by_table(rows: list[tuple[str, date | None]]) -> dict[str, frozenset[date] | None]:
    found: dict[str, set[date] | None] = {}
    for table, day in rows:
        days = found.setdefault(table, set())
        if day is None:
            found[table] = None
        elif days is not None:
            days.add(day)
    return {table: None if days is None else frozenset(days) for table, days in found.items()}
