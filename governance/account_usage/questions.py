"""What is asked of SNOWFLAKE.ACCOUNT_USAGE for the cost report, and the rows that answer.

Days are UTC. The views lag: credits of warehouses up to three hours (six for those of
single statements), storage and history of statements up to two; a day is whole on the
next. One account serves several environments, so every question is about the warehouses
and databases under one prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from warehouse.environments import SnowflakeNames

# Runs one statement and gives its rows.
Ask = Callable[[str], Sequence[Sequence[Any]]]

# Statements of people are one: a cost report is not about who works how much.
PEOPLE = "people"


@dataclass(frozen=True)
class MeteredDay:
    """Credits that a warehouse used on a day, as Snowflake meters them; `cloud_services` before the part of it that
    Snowflake does not bill."""

    day: date
    warehouse: str
    compute: Decimal
    cloud_services: Decimal


@dataclass(frozen=True)
class StatementCosts:
    """Credits of the statements with one tag, by warehouse, day and who ran them (a service, or PEOPLE).

    Snowflake attributes no credits to statements shorter than a tenth of a second, nor the time in which a warehouse
    waits for the next.
    """

    day: date
    warehouse: str
    user: str
    tag: str
    compute: Decimal


@dataclass(frozen=True)
class StatementRuns:
    """How many statements had a tag, by the same, how long they ran and how much they read."""

    day: date
    warehouse: str
    user: str
    tag: str
    statements: int
    seconds: Decimal
    bytes_scanned: int


@dataclass(frozen=True)
class ServiceDay:
    """Credits that Snowflake's own machines used for an asset on a day: `snowpipe` or `automatic clustering`."""

    day: date
    service: str
    asset: str
    credits: Decimal


@dataclass(frozen=True)
class TableStorage:
    """Bytes that a table occupies now, those kept for time travel, fail-safe and clones apart."""

    schema: str
    table: str
    active_bytes: int
    kept_bytes: int


@dataclass(frozen=True)
class Usage:
    """Everything that a cost report is made of."""

    first_day: date
    last_day: date
    metered: tuple[MeteredDay, ...]
    costs: tuple[StatementCosts, ...]
    runs: tuple[StatementRuns, ...]
    services: tuple[ServiceDay, ...]
    storage: tuple[TableStorage, ...]


def read_usage(ask: Ask, names: SnowflakeNames, first_day: date, last_day: date) -> Usage:
    """What the environment's warehouses and tables used on the days from first to last, both included."""
    return Usage(
        first_day,
        last_day,
        metered=tuple(
            MeteredDay(day, warehouse, _exact(compute), _exact(services))
            for day, warehouse, compute, services in ask(metered_sql(names, first_day, last_day))
        ),
        costs=tuple(
            StatementCosts(day, warehouse, user, tag, _exact(compute))
            for day, warehouse, user, tag, compute in ask(statement_costs_sql(names, first_day, last_day))
        ),
        runs=tuple(
            StatementRuns(day, warehouse, user, tag, int(statements), _exact(seconds), int(scanned))
            for day, warehouse, user, tag, statements, seconds, scanned in ask(
                statement_runs_sql(names, first_day, last_day)
            )
        ),
        services=tuple(
            ServiceDay(day, service, asset, _exact(credits))
            for day, service, asset, credits in ask(services_sql(names, first_day, last_day))
        ),
        storage=tuple(
            TableStorage(schema, table, int(active), int(kept))
            for schema, table, active, kept in ask(storage_sql(names))
        ),
    )


def _exact(value: Any) -> Decimal:
    """A number as a decimal; through its text, so that a float is the number it shows."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


def metered_sql(names: SnowflakeNames, first_day: date, last_day: date) -> str:
    """Rows of `MeteredDay`."""
    return f"""
select
    {_day("start_time")} as usage_date,
    warehouse_name,
    sum(credits_used_compute) as compute,
    sum(credits_used_cloud_services) as cloud_services
from snowflake.account_usage.warehouse_metering_history
where
    startswith(warehouse_name, '{names.prefix}__')
    and {between_days("start_time", first_day, last_day)}
group by usage_date, warehouse_name
order by usage_date, warehouse_name
"""


def statement_costs_sql(names: SnowflakeNames, first_day: date, last_day: date) -> str:
    """Rows of `StatementCosts`. Credits become a decimal, so that their sums are the same in any order."""
    return f"""
select
    {_day("start_time")} as usage_date,
    warehouse_name,
    {_user()} as user_kind,
    coalesce(query_tag, '') as tag,
    sum(cast(credits_attributed_compute as number(38, 12))) as compute
from snowflake.account_usage.query_attribution_history
where
    startswith(warehouse_name, '{names.prefix}__')
    and {between_days("start_time", first_day, last_day)}
group by usage_date, warehouse_name, user_kind, tag
order by usage_date, warehouse_name, user_kind, tag
"""


def statement_runs_sql(names: SnowflakeNames, first_day: date, last_day: date) -> str:
    """Rows of `StatementRuns`."""
    return f"""
select
    {_day("start_time")} as usage_date,
    warehouse_name,
    {_user()} as user_kind,
    coalesce(query_tag, '') as tag,
    count(*) as statements,
    cast(sum(total_elapsed_time) / 1000 as number(38, 3)) as seconds,
    coalesce(sum(bytes_scanned), 0) as bytes_scanned
from snowflake.account_usage.query_history
where
    startswith(warehouse_name, '{names.prefix}__')
    and {between_days("start_time", first_day, last_day)}
group by usage_date, warehouse_name, user_kind, tag
order by usage_date, warehouse_name, user_kind, tag
"""


def services_sql(names: SnowflakeNames, first_day: date, last_day: date) -> str:
    """Rows of `ServiceDay`. A pipe has the name of the table that it fills."""
    return f"""
select
    {_day("start_time")} as usage_date,
    'automatic clustering' as service,
    lower(schema_name) || '/' || lower(table_name) as asset,
    sum(credits_used) as credits
from snowflake.account_usage.automatic_clustering_history
where
    database_name = '{names.database}'
    and {between_days("start_time", first_day, last_day)}
group by usage_date, asset
union all
select
    {_day("usage.start_time")} as usage_date,
    'snowpipe' as service,
    lower(pipes.pipe_schema) || '/' || lower(pipes.pipe_name) as asset,
    sum(usage.credits_used) as credits
from snowflake.account_usage.pipe_usage_history as usage
inner join snowflake.account_usage.pipes as pipes on usage.pipe_id = pipes.pipe_id
where
    pipes.pipe_catalog = '{names.database}'
    and {between_days("usage.start_time", first_day, last_day)}
group by usage_date, asset
order by usage_date, service, asset
"""


def storage_sql(names: SnowflakeNames) -> str:
    """Rows of `TableStorage`, of dropped tables, too, while anything is kept of them."""
    return f"""
select
    lower(table_schema) as schema_name,
    lower(table_name) as table_name,
    sum(active_bytes) as active_bytes,
    sum(time_travel_bytes + failsafe_bytes + retained_for_clone_bytes) as kept_bytes
from snowflake.account_usage.table_storage_metrics
where table_catalog = '{names.database}'
group by lower(table_schema), lower(table_name)
having sum(active_bytes + time_travel_bytes + failsafe_bytes + retained_for_clone_bytes) > 0
order by schema_name, table_name
"""


def between_days(column: str, first_day: date, last_day: date) -> str:
    """Condition: a time of account usage, which has a zone, is on one of the UTC days from first to last."""
    after = last_day + timedelta(days=1)
    return (
        f"{column} >= to_timestamp_tz('{first_day} 00:00:00 +0000')"
        f" and {column} < to_timestamp_tz('{after} 00:00:00 +0000')"
    )


def _day(column: str) -> str:
    return f"to_date(convert_timezone('UTC', {column}))"


def _user() -> str:
    # config/user.yaml: services end like this.
    return f"iff(endswith(user_name, '_SERVICE'), user_name, '{PEOPLE}')"
