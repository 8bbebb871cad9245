"""SQL over the lake's Parquet files: bounded DuckDB sessions. What is asked lives with whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lake.sql_text import literals
from lake.store import LocalStore, ObjectStore

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

THREADS = 2
DEFAULT_MEMORY_BYTES = 512 * 1024 * 1024


class UnknownColumnsError(Exception):
    """Landing files hold columns that this version's contract does not name."""


@contextmanager
def connect(
    store: ObjectStore | None = None,
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    scratch: Path | None = None,
    scratch_bytes: int | None = None,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A session in memory that reads the lake; what exceeds `memory_bytes` goes to `scratch`.

    Without `scratch` nothing is written and a query that needs more memory fails.
    """
    import duckdb

    con = duckdb.connect(config={"temp_directory": str(scratch) if scratch else ""})
    try:
        con.execute("set timezone = 'UTC'")
        con.execute(f"set threads = {THREADS}")
        con.execute(f"set memory_limit = '{memory_bytes}B'")
        if scratch_bytes is not None:
            con.execute(f"set max_temp_directory_size = '{scratch_bytes}B'")
        if store is not None:
            register_lake(con, store)
        yield con
    finally:
        con.close()


def register_lake(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> None:
    """Let SQL on this connection read the lake's objects where they are not local files."""
    if isinstance(store, LocalStore):
        return
    from fsspec.implementations.arrow import ArrowFSWrapper

    filesystem, _ = store.filesystem()
    con.register_filesystem(ArrowFSWrapper(filesystem))


def telemetry_sql(con: duckdb.DuckDBPyConnection, uris: Sequence[str]) -> str:
    """`select ... from` over telemetry files in the contract's columns; older files' missing ones are null.

    Raises UnknownColumnsError for columns the contract does not name: they would be lost.
    """
    from contracts.columns import TELEMETRY_SCHEMA

    files = f"read_parquet([{literals(uris)}], hive_partitioning = false, union_by_name = true)"
    present = {row[0] for row in con.execute(f"describe select * from {files}").fetchall()}
    unknown = sorted(present - set(TELEMETRY_SCHEMA.names))
    if unknown:
        raise UnknownColumnsError(
            f"telemetry files such as {uris[0]} hold the columns {unknown}, which this version's contract does"
            " not name; a newer version wrote them: use that one"
        )
    columns = ", ".join(
        field.name if field.name in present else f"null::{duckdb_type(field)} as {field.name}"
        for field in TELEMETRY_SCHEMA
    )
    return f"select {columns} from {files}"


@contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All of a block's statements or none."""
    con.execute("begin transaction")
    try:
        yield
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise


def duckdb_type(field: pa.Field) -> str:
    """DuckDB type that holds a column's values exactly. Raises KeyError for a type no table has."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_list(kind):
        return f"{duckdb_type(kind.value_field)}[]"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    names = {
        pa.string(): "varchar",
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.float64(): "double",
        pa.bool_(): "boolean",
        pa.date32(): "date",
        pa.timestamp("us"): "timestamp",
    }
    return names[kind]
