"""A warehouse as this package sees it: rows selected into Arrow, rows replaced, rows deleted.

DuckDB and Snowflake differ in how values are handed over, in the case of names and in the types that
come back; the rest of the package knows neither. Opening a connection is the caller's.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

from ml.errors import DatasetError

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection

Value = str | date | datetime | Sequence[str] | Sequence[date] | Sequence[datetime]
"""What a `?` of a statement stands for; a list fills the parentheses of an `in`."""

# Rows of one insert statement.
ROWS_AT_ONCE = 10_000


class Warehouse(Protocol):
    """Tables are named `schema.table`; every `?` in a statement or condition stands for one of `values`."""

    def select(self, sql: str, values: Sequence[Value], schema: pa.Schema) -> pa.Table:
        """The rows of a query, with the columns of `schema`. Raises DatasetError when a table or column is missing,
        on Snowflake the connector's error."""

    def has(self, table: str) -> bool:
        """Whether a table is there."""

    def delete(self, table: str, where: str, values: Sequence[Value]) -> int:
        """Delete rows; how many."""

    def replace(self, table: str, where: str, values: Sequence[Value], rows: pa.Table) -> None:
        """Rows that meet a condition go and `rows` come, in one transaction. A table that is missing is made, where
        the account's configuration has not."""


def expanded(sql: str, values: Sequence[Value], mark: str) -> tuple[str, list[str | date | datetime]]:
    """A statement with a mark for each single value: a list becomes as many, an empty one `null`.

    Raises ValueError unless there are as many `?` as values.
    """
    first, *others = sql.split("?")
    if len(others) != len(values):
        raise ValueError(f"{len(others)} question marks and {len(values)} values")
    single: list[str | date | datetime] = []
    for value, text in zip(values, others, strict=True):
        given = [value] if isinstance(value, str | date) else list(value)
        first += (", ".join([mark] * len(given)) or "null") + text
        single += given
    return first, single


class DuckDBWarehouse:
    """The embedded warehouse, over an open connection, which may hold a result that was not read to the end: so every
    call has a cursor of its own."""

    def __init__(self, con: "duckdb.DuckDBPyConnection") -> None:
        self._con = con

    def select(self, sql: str, values: Sequence[Value], schema: pa.Schema) -> pa.Table:
        import duckdb

        statement, given = expanded(sql, values, "?")
        try:
            with self._con.cursor() as cursor:
                return cursor.sql(statement, params=given).to_arrow_table().cast(schema)
        except (duckdb.CatalogException, duckdb.BinderException) as error:
            raise DatasetError(f"{error}; run dbt build first") from error

    def has(self, table: str) -> bool:
        schema, name = table.split(".")
        with self._con.cursor() as cursor:
            found = cursor.execute(
                "select 1 from information_schema.tables where table_schema = ? and table_name = ?",
                [schema, name],
            )
            return found.fetchone() is not None

    def delete(self, table: str, where: str, values: Sequence[Value]) -> int:
        with self._con.cursor() as cursor:
            return _deleted(cursor, table, where, values)

    def replace(self, table: str, where: str, values: Sequence[Value], rows: pa.Table) -> None:
        columns = ", ".join(
            f"{field.name} {_duckdb_type(field.type)}{'' if field.nullable else ' not null'}"
            for field in rows.schema
        )
        with self._con.cursor() as cursor:
            cursor.register("_new_rows", rows)
            cursor.execute("begin transaction")
            try:
                cursor.execute(f"create schema if not exists {table.split('.')[0]}")
                cursor.execute(f"create table if not exists {table} ({columns})")
                _deleted(cursor, table, where, values)
                cursor.execute(f"insert into {table} by name select * from _new_rows")
                cursor.execute("commit")
            except BaseException:
                cursor.execute("rollback")
                raise


class SnowflakeWarehouse:
    """The account's database, in an open session whose role reads `ml` and writes the tables that are replaced.

    What Snowflake refuses is the connector's error; what it means is the caller's to say.
    """

    def __init__(self, con: "SnowflakeConnection") -> None:
        self._con = con

    def select(self, sql: str, values: Sequence[Value], schema: pa.Schema) -> pa.Table:
        with self._con.cursor() as cursor:
            cursor.execute(*_for_snowflake(sql, values))
            found = cursor.fetch_arrow_all(force_return_table=True)
        return found.rename_columns([name.lower() for name in found.column_names]).cast(schema)

    def has(self, table: str) -> bool:
        schema, name = table.upper().split(".")
        found = "select 1 as found from information_schema.tables where table_schema = %s and table_name = %s"
        with self._con.cursor() as cursor:
            cursor.execute(found, (schema, name))
            return cursor.fetchone() is not None

    def delete(self, table: str, where: str, values: Sequence[Value]) -> int:
        with self._con.cursor() as cursor:
            cursor.execute(*_for_snowflake(f"delete from {table} where {where}", values))
            [(rows, *_)] = cursor.fetchall()
        return int(rows)

    def replace(self, table: str, where: str, values: Sequence[Value], rows: pa.Table) -> None:
        marks = ", ".join(["%s"] * rows.num_columns)
        insert = f"insert into {table} ({', '.join(rows.column_names)}) values ({marks})"
        with self._con.cursor() as cursor:
            cursor.execute("begin transaction")
            try:
                self.delete(table, where, values)
                for batch in rows.to_batches(ROWS_AT_ONCE):
                    cursor.executemany(insert, [tuple(row.values()) for row in batch.to_pylist()])
                cursor.execute("commit")
            except BaseException:
                cursor.execute("rollback")
                raise


def _for_snowflake(sql: str, values: Sequence[Value]) -> tuple[str, tuple[str | date | datetime, ...]]:
    statement, given = expanded(sql, values, "%s")
    return statement, tuple(given)


def _deleted(cursor: "duckdb.DuckDBPyConnection", table: str, where: str, values: Sequence[Value]) -> int:
    gone = cursor.execute(*expanded(f"delete from {table} where {where}", values, "?")).fetchone()
    return int(gone[0]) if gone else 0


def _duckdb_type(kind: pa.DataType) -> str:
    return {
        pa.string(): "varchar",
        pa.date32(): "date",
        pa.timestamp("us"): "timestamp",
        pa.float64(): "double",
        pa.int32(): "integer",
    }[kind]
