"""The one comparison of two tables, behind every equality the platform claims.

Incremental = rebuild, embedded = Snowflake, offline = online: all of them ask
`compare_tables`, or `compare_whole_tables` where the count of what was compared is
wanted, too. It reads through plain DB-API cursors; of a warehouse it knows how its
semi-structured columns are announced. What is left out of a comparison is said by
the caller (`loaded_at` and run ids are the only standing exclusions).
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

RELATIVE_TOLERANCE = 1e-9
FETCH_ROWS = 20_000

ABSENT = "(no row)"

# How a cursor's description names VARIANT, OBJECT and ARRAY (Snowflake), and JSON (DuckDB; its lists end in []).
SEMI_STRUCTURED = frozenset({"5", "9", "10", "JSON"})


class Cursor(Protocol):
    """The part of a DB-API cursor that a comparison needs."""

    @property
    def description(self) -> Any: ...
    def execute(self, operation: str) -> Any: ...
    def fetchmany(self, size: int, /) -> list[Any]: ...


class Connection(Protocol):
    """Anything that hands out DB-API cursors: a DuckDB or a Snowflake connection."""

    def cursor(self) -> Cursor: ...


class ComparisonError(ValueError):
    """The two tables cannot be compared as asked: a column or a key is wrong."""


@dataclass(frozen=True)
class Difference:
    """One value that differs, or one row that only one side has.

    `column` is empty for a row that one side has not (or has once less); the
    values then say which.
    """

    table: str
    key: tuple[tuple[str, Any], ...]
    column: str
    value_a: Any
    value_b: Any

    def __str__(self) -> str:
        key = ", ".join(f"{name}={value}" for name, value in self.key)
        column = f" {self.column}" if self.column else ""
        return f"{self.table} [{key}]{column}: {self.value_a!r} != {self.value_b!r}"


@dataclass(frozen=True)
class Comparison:
    """Two tables held against each other whole: what was compared, and how much of it differs.

    `differing` counts values that differ and rows that only one side has;
    `differences` are the first of them.
    """

    table: str
    columns: tuple[str, ...]
    rows_a: int
    rows_b: int
    differing: int
    differences: tuple[Difference, ...]


def compare_tables(
    con_a: Connection,
    table_a: str,
    con_b: Connection,
    table_b: str,
    key: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int = 20,
) -> list[Difference]:
    """The first `limit` differences between two tables; empty when they are equal.

    Rows are matched by `key` (no key: by every compared column). Values are
    equal when exactly equal; doubles when within 1e-9 of each other, relative;
    semi-structured ones when they are the same JSON value. Columns named in
    `exclude` are not looked at.

    Raises ComparisonError when the tables do not have the same columns or lack
    one that `key` or `exclude` names.
    """
    return list(compare_whole_tables(con_a, table_a, con_b, table_b, key, exclude, limit).differences)


def compare_whole_tables(
    con_a: Connection,
    table_a: str,
    con_b: Connection,
    table_b: str,
    key: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: int = 20,
) -> Comparison:
    """As `compare_tables`, with the counts of rows, columns and everything that differs."""
    columns_a, columns_b = (
        _columns(con, table, exclude) for con, table in ((con_a, table_a), (con_b, table_b))
    )
    if set(columns_a) != set(columns_b):
        only_a, only_b = sorted(set(columns_a) - set(columns_b)), sorted(set(columns_b) - set(columns_a))
        raise ComparisonError(
            f"{table_a} and {table_b} have different columns: "
            f"only {table_a}: {only_a}; only {table_b}: {only_b}"
        )
    # Rows are ordered by their keys where they are, and JSON as text is written in two ways.
    plain_first = sorted(columns_a, key=lambda name: columns_a[name] or columns_b[name])
    key = [name.lower() for name in key] or plain_first
    if unknown := sorted(set(key) - set(columns_a)):
        raise ComparisonError(f"key columns {unknown} are not compared columns of {table_a}")
    columns = [*key, *(name for name in columns_a if name not in key)]
    label = table_a if table_a == table_b else f"{table_a} / {table_b}"
    rows_a = _rows(con_a, table_a, columns, columns_a, len(key))
    rows_b = _rows(con_b, table_b, columns, columns_b, len(key))
    count_a = count_b = differing = 0
    found: list[Difference] = []
    for row_a, row_b in _matched(rows_a, rows_b, len(key)):
        differences = _row_differences(label, columns, len(key), row_a, row_b)
        found += differences[: max(limit - len(found), 0)]
        count_a += row_a is not None
        count_b += row_b is not None
        differing += len(differences)
    return Comparison(label, tuple(columns), count_a, count_b, differing, tuple(found))


def _columns(con: Connection, table: str, exclude: Sequence[str]) -> dict[str, bool]:
    """Names of the compared columns, and whether each is semi-structured."""
    cursor = con.cursor()
    cursor.execute(f"select * from {table} limit 0")
    columns = {column[0].lower(): _is_semi_structured(str(column[1])) for column in cursor.description}
    excluded = {name.lower() for name in exclude}
    if unknown := sorted(excluded - set(columns)):
        raise ComparisonError(f"excluded columns {unknown} are not columns of {table}")
    return {name: is_json for name, is_json in columns.items() if name not in excluded}


def _is_semi_structured(type_code: str) -> bool:
    return type_code in SEMI_STRUCTURED or type_code.endswith("[]")


def _rows(
    con: Connection, table: str, columns: Sequence[str], is_json: dict[str, bool], key_width: int
) -> Iterator[tuple[Any, ...]]:
    """Rows in the order of their keys, nulls first."""
    order = ", ".join(f"{name} nulls first" for name in columns[:key_width])
    parsed = [number for number, name in enumerate(columns) if is_json[name]]
    cursor = con.cursor()
    cursor.execute(f"select {', '.join(columns)} from {table} order by {order}")
    while rows := cursor.fetchmany(FETCH_ROWS):
        for row in rows:
            values = list(row)
            for number in parsed:
                values[number] = _canonical(values[number])
            yield tuple(values)


def _canonical(value: Any) -> str | None:
    """A semi-structured value as one text, however a warehouse orders its keys and spaces it."""
    if value is None:
        return None
    found = json.loads(value, parse_float=_number) if isinstance(value, str) else value
    return json.dumps(found, sort_keys=True, default=str, ensure_ascii=False)


def _number(text: str) -> int | float:
    """A number of JSON: 1.0 is 1."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _matched(
    rows_a: Iterator[tuple[Any, ...]], rows_b: Iterator[tuple[Any, ...]], key_width: int
) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Merge two ordered row streams; a side without the row is None."""
    row_a, row_b = next(rows_a, None), next(rows_b, None)
    while row_a is not None or row_b is not None:
        order = _compare_keys(row_a, row_b, key_width)
        yield (row_a if order <= 0 else None, row_b if order >= 0 else None)
        if order <= 0:
            row_a = next(rows_a, None)
        if order >= 0:
            row_b = next(rows_b, None)


def _compare_keys(row_a: tuple[Any, ...] | None, row_b: tuple[Any, ...] | None, key_width: int) -> int:
    """-1 when the row of a comes first, 1 when that of b does, 0 when their keys are equal."""
    if row_a is None or row_b is None:
        return 1 if row_a is None else -1
    for value_a, value_b in zip(row_a[:key_width], row_b[:key_width], strict=True):
        if value_a is None or value_b is None:
            if (value_a is None) != (value_b is None):
                return -1 if value_a is None else 1
        elif not _equal(value_a, value_b):
            return -1 if value_a < value_b else 1
    return 0


def _row_differences(
    table: str,
    columns: Sequence[str],
    key_width: int,
    row_a: tuple[Any, ...] | None,
    row_b: tuple[Any, ...] | None,
) -> list[Difference]:
    if row_a == row_b:
        return []
    present = row_a or row_b or ()
    key = tuple(zip(columns[:key_width], present[:key_width], strict=True))
    if row_a is None or row_b is None:
        return [
            Difference(table, key, "", ABSENT if row_a is None else "row", ABSENT if row_b is None else "row")
        ]
    values = zip(columns[key_width:], row_a[key_width:], row_b[key_width:], strict=True)
    return [
        Difference(table, key, column, value_a, value_b)
        for column, value_a, value_b in values
        if not _equal(value_a, value_b)
    ]


def _equal(value_a: Any, value_b: Any) -> bool:
    if isinstance(value_a, float) and isinstance(value_b, float):
        if math.isnan(value_a) or math.isnan(value_b):
            return math.isnan(value_a) and math.isnan(value_b)
        return math.isclose(value_a, value_b, rel_tol=RELATIVE_TOLERANCE, abs_tol=0.0)
    return bool(value_a == value_b)
