"""`petwellness query`: SQL, or a saved analysis, over the published copy, which no writer ever locks."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING

from petwellness_orchestration.settings import DBT_PROJECT_DIR, load_settings

if TYPE_CHECKING:
    import duckdb

FORMATS = ("table", "csv", "json")


class PublishedCopyMissingError(RuntimeError):
    """Nothing has been published yet; the message says what to run."""


class QueryFailedError(RuntimeError):
    """The SQL could not be run; the message is the engine's first line."""


def run_query(
    sql: str | None, output: str, limit: int, saved: str | None = None, as_of: datetime | None = None
) -> None:
    """Run `sql`, or the analysis `saved` as of a moment, on the published copy, read only; print the result."""
    import duckdb

    from warehouse.duckdb.publish import DATABASE_NAME

    if output not in FORMATS:
        raise QueryFailedError(f"unknown format '{output}'; choose one of: {', '.join(FORMATS)}")
    if saved is not None and sql is not None:
        raise QueryFailedError("give either SQL or --saved")
    if saved is not None and saved not in saved_names():
        raise QueryFailedError(f"no saved analysis '{saved}'; there are: {', '.join(saved_names())}")
    path = load_settings().state.published_dir / DATABASE_NAME
    if not path.exists():
        raise PublishedCopyMissingError(f"nothing is published at {path}; run `make demo` first")
    con = duckdb.connect(str(path), read_only=True)
    try:
        if saved is not None:
            sql = saved_sql(saved, as_of or _newest_arrival(con))
        result = con.sql(sql or TABLES_SQL)
        if result is None:
            raise QueryFailedError("the statement gives no rows; the published copy can only be read")
        _print(result, output, limit)
    except duckdb.Error as error:
        raise QueryFailedError(str(error).splitlines()[0]) from error
    finally:
        con.close()


def saved_names() -> list[str]:
    """The saved analyses (`dbt_project/analyses`)."""
    return sorted(path.stem for path in (DBT_PROJECT_DIR / "analyses").glob("*.sql"))


def saved_sql(name: str, as_of: datetime) -> str:
    """SQL of a saved analysis for the published copy, by dbt without a connection to any warehouse.

    Raises DbtFailedError when it does not compile.
    """
    import io
    import tempfile
    from contextlib import redirect_stdout
    from pathlib import Path

    from petwellness_orchestration.defs.warehouse.dbt_run import DbtFailedError, run_dbt
    from petwellness_orchestration.defs.warehouse.manifest import parsed_project

    project = parsed_project()
    [database] = {node.database for node in project.nodes.values() if node.name == name}
    # dbt prints what it compiles, where the answer is to be alone.
    with tempfile.TemporaryDirectory(prefix="petwellness-query-") as folder, redirect_stdout(io.StringIO()):
        run = run_dbt(
            load_settings(),
            ["compile", "--select", name],
            {"as_of_ts": f"{as_of:%Y-%m-%d %H:%M:%S}"},
            Path(folder),
            target="lint",
            project=project,
        )
        if not run.succeeded:
            raise DbtFailedError(f"saved analysis '{name}' does not compile: {run.error or run.failures}")
        [compiled] = Path(folder).glob(f"compiled/*/analyses/{name}.sql")
        # Of the warehouse's database, whose name the copy does not have.
        return compiled.read_text().replace(f'"{database}".', "")


def _newest_arrival(con: duckdb.DuckDBPyConnection) -> datetime:
    """The present of the published data (naive UTC)."""
    [(newest,)] = con.execute("select max(arrival_ts) from anl.telemetry_events").fetchall()
    if newest is None:
        raise QueryFailedError("no telemetry is published, so the data has no present; give --as-of")
    return newest


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
