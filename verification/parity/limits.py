"""What the emulator cannot do, each entry executed: one that starts to work fails the run.

An entry says what is asked, how the emulator fails (an error, or an answer that is not Snowflake's), and what
follows for what this repository claims of Snowflake. Nothing else may be left out of a parity run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.layout import LANDING

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection


@dataclass(frozen=True)
class Limit:
    """Something that Snowflake does and the emulator does not.

    `statement` fails with `error` (a pattern); or it succeeds with the rows `answer`, which are not what Snowflake
    would say. `before` prepares it. `means` says what is therefore unverified.
    """

    feature: str
    statement: str
    means: str
    error: str = ""
    answer: tuple[tuple[Any, ...], ...] | None = None
    before: tuple[str, ...] = ()


# Where a statement names a file that landed, relative to stage raw.landing.
LANDED_FILE = "<landed file>"

# A table that the entries may do anything to.
PREPARED = (
    "create schema if not exists limits",
    "create or replace table limits.things (id number(10, 0), name varchar(2))",
    "insert into limits.things values (1, 'a')",
)

_COPY = "copy into limits.things from @raw.landing/ files = ('<landed file>')"

LIMITS: tuple[Limit, ...] = (
    Limit(
        "COPY metadata columns",
        "copy into limits.things (id, name) from (select $1:kafka_offset::number(10, 0), metadata$filename"
        f" from @raw.landing/) files = ('{LANDED_FILE}') file_format = (type = parquet)",
        "nothing: landed files name themselves (source_file)",
        error='Referenced column "METADATA\\$FILENAME" not found',
    ),
    Limit(
        "COPY by pattern",
        "copy into limits.things from @raw.landing/ pattern = '.*parquet' file_format = (type = parquet)",
        "nothing: files are named",
        error="Unknown copy parameter: pattern",
    ),
    Limit(
        "COPY that goes on after errors",
        f"{_COPY} file_format = (type = parquet) on_error = continue",
        "nothing: a load is all or nothing (abort_statement)",
        error="on_error = continue not implemented|on_error continue not implemented",
    ),
    Limit(
        "COPY that only validates",
        f"{_COPY} file_format = (type = parquet) validation_mode = return_errors",
        "nothing: not used",
        error="Unknown copy parameter: validation_mode",
    ),
    Limit(
        "COPY with a file format by its name alone",
        f'{_COPY} file_format = "RAW"."LANDED_PARQUET"',
        "pipes' own statements, as SnowDDL writes them, are executed in another spelling",
        error="Required keyword: 'this' missing",
    ),
    Limit(
        "state of a pipe",
        "select system$pipe_status('raw.owners')",
        "pipes: their queue, their memory and their errors are a stand-in's in tests",
        error="system\\$pipe_status does not exist",
    ),
    Limit("list of pipes", "show pipes in schema raw", "as above", error="syntax error"),
    Limit(
        "copy history",
        "select * from table(information_schema.copy_history(table_name => 'RAW.OWNERS',"
        " start_time => '2026-01-01 00:00:00 +0000'::timestamp_tz))",
        "what pipes are asked for skipped files is parsed only",
        error="syntax error",
    ),
    Limit(
        "account usage",
        "select count(*) from snowflake.account_usage.query_history",
        "costs and access audit run on recorded rows",
        error='schema "SNOWFLAKE.ACCOUNT_USAGE" does not exist',
    ),
    Limit(
        "time travel",
        "select * from limits.things at (offset => -60)",
        "recovery by time travel is a runbook that was not rehearsed",
        error="syntax error",
    ),
    Limit("undrop", "undrop table limits.things", "as above", error="Undrop"),
    Limit(
        "streams",
        "create stream limits.changes on table limits.things",
        "nothing: not used",
        error="syntax error",
    ),
    Limit(
        "effect of a masking policy",
        "select name from limits.things where id = 1",
        "masks are attached and parsed; what they hide is unverified",
        answer=(("a",),),
        before=(
            "create or replace masking policy limits.hide as (given varchar) returns varchar -> '***'",
            "alter table limits.things modify column name set masking policy limits.hide",
        ),
    ),
    Limit(
        "effect of a row access policy",
        "select count(*) from limits.things where id = 1",
        "row filters are attached and parsed; what they hide is unverified",
        answer=((1,),),
        before=(
            "create or replace row access policy limits.nobody as (given varchar) returns boolean -> false",
            "alter table limits.things add row access policy limits.nobody on (name)",
        ),
    ),
    Limit(
        "effect of a role",
        "select count(*) from limits.things where id = 1",
        "rights are worked out from the plan",
        answer=((1,),),
        before=("create role nobody_at_all", "use role nobody_at_all"),
    ),
    Limit(
        "warehouses",
        "select current_warehouse()",
        "sizes, suspension and statement timeouts are unverified",
        answer=(("EMULATOR_WH",),),
        before=("use warehouse another",),
    ),
    Limit(
        "clustering",
        "select system$clustering_information('limits.things')",
        "clustering keys are accepted and do nothing",
        error="system\\$clustering_information does not exist",
    ),
    Limit(
        "DDL commits the transaction around it",
        "select count(*) from limits.things where id = 2",
        "the loader keeps DDL out of transactions; that it has to is not shown",
        answer=((0,),),
        before=(
            "begin",
            "insert into limits.things values (2, 'b')",
            "create or replace table limits.others (id number(10, 0))",
            "rollback",
        ),
    ),
    Limit(
        "length of a text",
        "insert into limits.things values (3, 'too long')",
        "nothing: no column has one",
        answer=((1,),),
    ),
    Limit(
        "division by zero",
        "select 1 / 0",
        "ratios divide by nullif(..., 0) (macros/numbers.sql); a division elsewhere would not be seen to fail",
        answer=((float("inf"),),),
    ),
    Limit(
        "scale of a quotient",
        "select 1::number(10, 0) / 3::number(10, 0)",
        "ratios are of doubles (macros/numbers.sql); a quotient of decimals elsewhere would be rounded on Snowflake",
        answer=((1 / 3,),),
    ),
)


def ended_limits(con: SnowflakeConnection, limits: Sequence[Limit] = LIMITS) -> list[Limit]:
    """The limits that are none any more: the statement works, or fails otherwise than stated.

    `con` is at a database of the emulator into which something was loaded.
    """
    with con.cursor() as cursor:
        cursor.execute("select min(source_file) from raw.load_history")
        [(source_file,)] = cursor.fetchall()
        for statement in PREPARED:
            cursor.execute(statement)
    landed = source_file.removeprefix(LANDING)
    return [limit for limit in limits if not _holds(con, limit, landed)]


def _holds(con: SnowflakeConnection, limit: Limit, landed: str) -> bool:
    from snowflake.connector.errors import Error

    with con.cursor() as cursor:
        for statement in limit.before:
            cursor.execute(statement)
        try:
            cursor.execute(limit.statement.replace(LANDED_FILE, landed))
            rows = [tuple(row) for row in cursor.fetchall()]
        except Error as error:
            return bool(limit.error) and re.search(limit.error, str(error)) is not None
        return limit.answer is not None and tuple(rows) == limit.answer
