"""Looking for personal data in tables and Parquet files, by DuckDB.

A finding names the place, the kind and how often, with a masked example: never
the value, so that a report is no leak itself. Nothing here changes what it reads.
What personal data looks like is `contracts.personal_data`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.personal_data import Detector, Known, masked
from lake.sql_text import literals

if TYPE_CHECKING:
    import duckdb

# The schemas that hold no direct identifiers.
OPEN_SCHEMAS = ("anl", "ml", "ops")

# Most values of a table are ids and numbers: a string of letters, digits, colons and hyphens
# holds nothing that the rules know, except words joined by a hyphen and runs of nine digits;
# hexadecimal digests and UUIDs not even these.
_WORTH_A_LOOK = "[^0-9A-Za-z:-]|[A-Za-z]{3}-[A-Za-z]{3}|[0-9]{9}"
_DIGEST = "[0-9a-f-]{16,}"
_TEXT_TYPES = ("VARCHAR", "JSON")
_ROWS_AT_ONCE = 10_000
# From so many rows a value on, grouping a column first takes less than the rules on all its rows: the ten texts of 7.2
# million events took 11 s instead of 30.
_ROWS_A_VALUE = 8


@dataclass(frozen=True)
class Finding:
    """Personal data of one kind in one place (`anl.pets.note`, `dbt/1/dbt.log:12`): how often, in what form."""

    place: str
    kind: str
    count: int
    example: str

    def __str__(self) -> str:
        return f"{self.place}: {self.count} x {self.kind}, like {self.example}"


def known_people(con: duckdb.DuckDBPyConnection, salts: Iterable[str] = ()) -> Known:
    """What the warehouse knows of people and pets, every version of it, which must appear nowhere else: with the
    salt of its hashes, and `salts`."""
    present = {
        f"{schema}.{table}"
        for schema, table in con.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_catalog = current_database()"
        ).fetchall()
    }

    def values(table: str, column: str) -> tuple[str, ...]:
        if table not in present:
            return ()
        rows = con.execute(
            f"select distinct {column} from {table} where {column} is not null order by 1"
        ).fetchall()
        return tuple(str(row[0]) for row in rows)

    return Known(
        names=values("cur.owners", "name"),
        phones=values("cur.owners", "contact_phone"),
        addresses=values("cur.owners", "address"),
        microchips=values("cur.pets", "microchip_id"),
        salts=tuple(dict.fromkeys([*salts, *values("raw.hash_salt", "salt")])),
    )


def table_findings(
    con: duckdb.DuckDBPyConnection, detector: Detector, except_columns: Mapping[str, Iterable[str]] = {}
) -> list[Finding]:
    """Every text column of every table of the open schemas; `except_columns` (table to columns) were
    looked at elsewhere."""
    columns_of: dict[str, list[str]] = {}
    for schema, table, column in con.execute(
        "select table_schema, table_name, column_name from information_schema.columns"
        " where table_catalog = current_database() and list_contains(?, table_schema)"
        " and list_contains(?, data_type) order by table_schema, table_name, ordinal_position",
        [list(OPEN_SCHEMAS), list(_TEXT_TYPES)],
    ).fetchall():
        if column not in except_columns.get(f"{schema}.{table}", ()):
            columns_of.setdefault(f"{schema}.{table}", []).append(column)
    return [
        finding
        for table, columns in columns_of.items()
        for finding in _column_findings(con, detector, table, table, columns)
    ]


def parquet_findings(
    con: duckdb.DuckDBPyConnection, detector: Detector, place: str, paths: Iterable[Path]
) -> list[Finding]:
    """Every text column of a table's Parquet files; `place` stands before the column's name."""
    relation = f"read_parquet([{literals(paths)}], hive_partitioning = false)"
    columns = [
        name
        for name, kind, *_ in con.execute(f"describe select * from {relation}").fetchall()
        if kind in _TEXT_TYPES
    ]
    return [*_column_findings(con, detector, relation, place, columns)]


def _column_findings(
    con: duckdb.DuckDBPyConnection, detector: Detector, relation: str, place: str, columns: Iterable[str]
) -> Iterator[Finding]:
    singles, salts = sorted(detector.single_names), detector.salts
    worth_a_look = [
        "regexp_matches(found_text, ?) and not regexp_full_match(found_text, ?)",
        *(["lower(found_text) = any(?)"] if singles else []),
        *("contains(found_text, ?)" for _ in salts),
    ]
    columns = tuple(columns)
    repeating = _repeating(con, relation, columns)
    for column in columns:
        text = f'cast("{column}" as varchar) as found_text'
        texts = (
            f"select {text}, count(*) as times from {relation} group by found_text"
            if column in repeating
            else f"select {text}, 1 as times from {relation}"
        )
        cursor = con.execute(
            f"select found_text, sum(times)::bigint from ({texts}) as texts"
            f" where ({') or ('.join(worth_a_look)}) group by found_text",
            [_WORTH_A_LOOK, _DIGEST, *([singles] if singles else []), *salts],
        )
        tally = Tally()
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            for value, count in rows:
                tally.add(value, detector, f"{place}.{column}", count=count)
        yield from tally.findings()


def _repeating(con: duckdb.DuckDBPyConnection, relation: str, columns: Sequence[str]) -> frozenset[str]:
    """Columns of so few values that looking at each once is less work than looking at each row."""
    if not columns:
        return frozenset()
    counted = ", ".join(f'approx_count_distinct("{column}")' for column in columns)
    [(rows, *distinct)] = con.execute(f"select count(*), {counted} from {relation}").fetchall()
    return frozenset(
        column for column, values in zip(columns, distinct, strict=True) if values * _ROWS_A_VALUE <= rows
    )


class Tally:
    """Matches in one place, counted by kind; the first of each gives the exact place and the example."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, tuple[str, str]] = {}

    def add(self, text: str, detector: Detector, place: str, line: int | None = None, count: int = 1) -> None:
        """`line` is the number of the text's first line where the place is a line."""
        for match in detector.find(text):
            self._counts[match.kind] = self._counts.get(match.kind, 0) + count
            if match.kind not in self._first:
                at = "" if line is None else f":{line + text.count(chr(10), 0, match.start)}"
                self._first[match.kind] = (place + at, masked(text[match.start : match.end]))

    def findings(self) -> list[Finding]:
        return [
            Finding(self._first[kind][0], kind, count, self._first[kind][1])
            for kind, count in sorted(self._counts.items())
        ]
