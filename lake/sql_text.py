"""How text and paths stand in SQL that this platform writes: one place, because a path may hold an apostrophe.

Values of queries are bound. What cannot be bound (`attach`, the target of `copy`, a file list in a view, statements
that are kept) is written with these.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def literal(value: str | Path) -> str:
    """A string or a path as an SQL string literal, of DuckDB and of Snowflake without a backslash in it."""
    return "'" + str(value).replace("'", "''") + "'"


def literals(values: Iterable[str | Path]) -> str:
    """String literals with commas between them."""
    return ", ".join(map(literal, values))
