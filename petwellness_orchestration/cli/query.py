"""`petwellness query`: SQL over the published copy, which no writer ever locks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from petwellness_orchestration.settings import load_settings

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "csv", "json")


class PublishedCopyMissingError(RuntimeError):
    """Nothing has been published yet; the message says what to run."""


class QueryFailedError(RuntimeError):
    """The SQL could not be run; the message is the engine's first line."""


def run_query(sql: str | None, output: str, limit: int) -> None:
    """Run `sql` on the published copy, read only, and print the result."""
    import duckdb

    from ingestion.loading.publish import DATABASE_NAME

    if output not in FORMATS:
        raise QueryFailedError(f"unknown format '{output}'; choose one of: {', '.join(FORMATS)}")
    path = load_settings().state.published_dir / DATABASE_NAME
    if not path.exists():
        raise PublishedCopyMissingError(f"nothing is published at {path}; run `make demo` first")
    con = duckdb.connect(str(path), read_only=True)
    try:
        result = con.sql(sql or TABLES_SQL)
        if result is None:
            raise QueryFailedError("the statement gives no rows; the published copy can only be read")
        _print(result, output, limit)
    except duckdb.Error as error:
        raise QueryFailedError(str(error).splitlines()[0]) from error
    finally:
        con.close()


TABLES_SQL = """
select table_schema as schema, table_name as name, count(*) as columns
from information_schema.columns
where table_schema not in ('information_schema', 'main')
group by all
order by all
"""


def _print(result: duckdb.DuckDBPyRelation, output: str, limit: int) -> None:
    if output == "table":
        result.show(max_rows=limit, max_width=200)
        return
    if output == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(result.to_arrow_table(), sys.stdout.buffer)
        return
    import json

    for row in result.to_arrow_table().to_pylist():
        print(json.dumps(row, default=str))
