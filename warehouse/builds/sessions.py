"""Sessions in which the history of builds is kept: DuckDB makes its tables itself, on Snowflake they are the account's.

What is asked and written is `history`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lake.sql_text import literal
from warehouse.builds.history import TABLES

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection


class DuckDBOps:
    """`ops` of the embedded warehouse, over an open connection; what is missing of it is made."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        from lake.sql import duckdb_type

        self._con = con
        con.execute("create schema if not exists ops")
        for name, schema in TABLES.items():
            columns = ", ".join(f"{field.name} {duckdb_type(field)}" for field in schema)
            con.execute(f"create table if not exists ops.{name} ({columns})")

    def query(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        return self._con.execute(sql, [*values]).fetchall()

    def insert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        import pyarrow as pa

        if rows:
            self._con.register("_ops_rows", pa.Table.from_pylist([*rows], TABLES[name]))
            self._con.execute(f"insert into ops.{name} by name select * from _ops_rows")
            self._con.unregister("_ops_rows")

    def transaction(self) -> AbstractContextManager[None]:
        from lake.sql import transaction

        return transaction(self._con)


class SnowflakeOps:
    """`ops` of an account, in the session of a role that owns it. Raises SnowflakeError for a refusal."""

    def __init__(self, con: SnowflakeConnection) -> None:
        self._con = con

    def query(self, sql: str, values: Sequence[Any] = ()) -> Sequence[Sequence[Any]]:
        from warehouse.snowflake.session import run

        return run(self._con, sql.replace("?", "%s"), values)

    def insert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        from warehouse.snowflake.session import run_many

        columns = TABLES[name].names
        marks = ", ".join(["%s"] * len(columns))
        run_many(
            self._con,
            f"insert into ops.{name} ({', '.join(columns)}) values ({marks})",
            [[row.get(column) for column in columns] for row in rows],
        )

    def transaction(self) -> AbstractContextManager[None]:
        from warehouse.snowflake.session import transaction

        return transaction(self._con)


def carry_over(old: Path, new: Path) -> int:
    """Copy schema `ops` of one DuckDB file into another that is made for it; returns the builds in it."""
    import duckdb

    con = duckdb.connect(str(new))
    try:
        DuckDBOps(con)
        con.execute(f"attach {literal(old)} as old_warehouse (read_only)")
        present = con.execute(
            "select table_name from information_schema.tables"
            " where table_catalog = 'old_warehouse' and table_schema = 'ops'"
        ).fetchall()
        for (name,) in present:
            con.execute(f"insert into ops.{name} by name select * from old_warehouse.ops.{name}")
        con.execute("detach old_warehouse")
        row = con.execute("select count(*) from ops.builds").fetchone()
        return int(row[0]) if row else 0
    finally:
        con.close()
