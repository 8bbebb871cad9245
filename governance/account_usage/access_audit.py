"""Who read which column with personal data: rows of `ops.access_audit`, a day at a time.

Snowflake keeps who read what for a year and shows it to few; the table keeps what
concerns personal data for as long as its owner wants, for those who answer for it. A day
that is written again replaces what was there, so the table says the same however often
that happens. Every statement that touched a column counts, whether its reader saw the
value or a mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta

from governance.account_usage.questions import between_days
from warehouse.environments import SnowflakeNames

TABLE = "ops.access_audit"
COLUMNS = (
    "access_date",
    "accessed_at",
    "query_id",
    "user_name",
    "role_name",
    "object_name",
    "column_name",
    "query_tag",
    "client_type",
    "client_ip",
    "authentication",
)
# The view of accesses is three hours late at most, those of statements and sign-ins two.
LATEST = timedelta(hours=3)

# By `schema.table`: its columns with personal data.
PersonalColumns = Mapping[str, Iterable[str]]


class DayNotOverError(ValueError):
    """The day cannot be whole in account usage yet; the message says from when on it is."""


def last_whole_day(now: datetime) -> date:
    """The last UTC day that account usage has whole at `now` (naive UTC)."""
    return (now - LATEST).date() - timedelta(days=1)


def audit_statements(
    names: SnowflakeNames, personal: PersonalColumns, day: date, now: datetime
) -> tuple[str, str]:
    """What empties a UTC day of the audit and what fills it, to be run as one transaction.

    Raises DayNotOverError for a day that is not whole at `now` (naive UTC), since nobody would fill it again.
    """
    if day > last_whole_day(now):
        whole_at = datetime.combine(day + timedelta(days=1), datetime.min.time()) + LATEST
        raise DayNotOverError(f"accesses of {day} are whole from {whole_at:%Y-%m-%d %H:%M} UTC on")
    table = f"{names.database}.{TABLE}"
    return f"delete from {table} where access_date = date '{day}'", _filling(names, personal, day, table)


def _filling(names: SnowflakeNames, personal: PersonalColumns, day: date, table: str) -> str:
    return f"""
insert into {table} ({", ".join(COLUMNS)})
with personal as (
    select column1 as object_name, column2 as column_name
    from values
        {_pairs(names, personal)}
),

-- Base objects: a read through a view is one of the table below it.
reads as (
    select
        accesses.query_id,
        accesses.query_start_time,
        accesses.user_name,
        cast(objects.value:"objectName" as varchar) as object_name,
        cast(object_columns.value:"columnName" as varchar) as column_name
    from snowflake.account_usage.access_history as accesses,
        lateral flatten(input => accesses.base_objects_accessed) as objects,
        lateral flatten(input => objects.value:"columns") as object_columns
    where {between_days("accesses.query_start_time", day, day)}
),

-- A statement of the day may have begun to be compiled on the day before.
statements as (
    select query_id, session_id, role_name, query_tag
    from snowflake.account_usage.query_history
    where {between_days("start_time", day - timedelta(days=1), day)}
),

sign_ins as (
    select
        sessions.session_id,
        logins.reported_client_type as client_type,
        logins.client_ip,
        logins.first_authentication_factor as authentication
    from snowflake.account_usage.sessions as sessions
    inner join snowflake.account_usage.login_history as logins on sessions.login_event_id = logins.event_id
)

select distinct
    date '{day}' as access_date,
    cast(convert_timezone('UTC', reads.query_start_time) as timestamp_ntz(6)) as accessed_at,
    reads.query_id,
    reads.user_name,
    statements.role_name,
    reads.object_name,
    reads.column_name,
    statements.query_tag,
    sign_ins.client_type,
    sign_ins.client_ip,
    sign_ins.authentication
from reads
inner join personal on reads.object_name = personal.object_name and reads.column_name = personal.column_name
left join statements on reads.query_id = statements.query_id
left join sign_ins on statements.session_id = sign_ins.session_id
"""


def _pairs(names: SnowflakeNames, personal: PersonalColumns) -> str:
    """Table and column as account usage writes them: whole names in upper case."""
    return ",\n        ".join(
        f"('{names.database}.{table.upper()}', '{column.upper()}')"
        for table, columns in sorted(personal.items())
        for column in sorted(columns)
    )
