"""The tables of a Snowflake account that hold rows of what the redaction ledger covers: counted, never removed.

Says of an account what `leftovers.warehouse_leftovers` says of the embedded file. Needs nothing but the right to
read: ids and times of receipt stand in the statements, so no table is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from governance.erasure.leftovers import SCHEMAS, Leftover, covered_values
from lake.redactions import Redactions, from_epoch_us
from warehouse.snowflake.session import run

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

# Snowflake takes 16,384 expressions in a list.
VALUES_AT_ONCE = 5_000

Value = TypeVar("Value")
Count = Callable[[str, Sequence[Any]], int]


def account_leftovers(con: SnowflakeConnection, redactions: Redactions) -> list[Leftover]:
    """Tables that hold rows of these entries, and daily sums that count events which are gone.

    Raises SnowflakeError, also where the session's role sees no table at all: what cannot be seen is not gone.
    """
    if not redactions:
        return []

    def count(sql: str, values: Sequence[Any]) -> int:
        [(rows,)] = run(con, sql, values)
        return int(rows)

    columns_of = _columns(con)
    found = []
    for name, columns in columns_of.items():
        rows = _covered_rows(count, name, columns, redactions)
        if rows:
            found.append(Leftover(name.split(".")[0], name, rows))
    for name, columns in columns_of.items():
        rows = _stale_rows(count, name, columns, columns_of)
        if rows:
            found.append(Leftover(name.split(".")[0], name, rows, "rows that count events which are gone"))
    return found


def _columns(con: SnowflakeConnection) -> dict[str, list[str]]:
    from warehouse.snowflake.session import PrivilegeMissingError

    marks = ", ".join(["%s"] * len(SCHEMAS))
    rows = run(
        con,
        "select c.table_schema, c.table_name, c.column_name from information_schema.columns as c"
        " inner join information_schema.tables as t"
        " on c.table_schema = t.table_schema and c.table_name = t.table_name"
        f" where t.table_type <> 'VIEW' and lower(c.table_schema) in ({marks})"
        " order by c.table_schema, c.table_name, c.column_name",
        SCHEMAS,
    )
    if not rows:
        raise PrivilegeMissingError(
            f"the session's role sees no table in {', '.join(SCHEMAS)}: nobody can say that nothing is left there;"
            " `python -m infrastructure.snowflake plan` shows what the account lacks"
        )
    found: dict[str, list[str]] = {}
    for schema, table, column in rows:
        found.setdefault(f"{schema}.{table}".lower(), []).append(column.lower())
    return found


def _covered_rows(count: Count, name: str, columns: Sequence[str], redactions: Redactions) -> int:
    tests: list[str] = []
    values: list[Any] = []
    for column, (feed, ids) in covered_values(redactions).items():
        for some in _batches(sorted(ids), VALUES_AT_ONCE):
            marks = ", ".join(["%s"] * len(some))
            if column in columns:
                tests.append(f"coalesce(kept.{column} in ({marks}), false)")
                values += some
            if name.endswith(".record_duplicates"):
                tests.append(f"(kept.feed = '{feed}' and kept.entity_id in ({marks}))")
                values += some
    is_covered = " or ".join(tests)
    rows = (
        count(f"select count(*) as row_count from {name} as kept where {is_covered}", values) if tests else 0
    )
    if not {"device_id", "arrival_ts", "event_id"} <= {*columns}:
        return rows
    for stretches in _batches(redactions.arrivals, VALUES_AT_ONCE // 3):
        marks = ", ".join(["(%s, %s::timestamp_ntz, %s::timestamp_ntz)"] * len(stretches))
        rows += count(
            f"select count(*) as row_count from {name} as kept"
            f" inner join (select * from values {marks}) as gone (device_id, from_ts, to_ts)"
            " on gone.device_id = kept.device_id and kept.arrival_ts >= gone.from_ts and kept.arrival_ts < gone.to_ts"
            + (f" where not ({is_covered})" if tests else ""),
            [
                *(
                    one
                    for device_id, low, high in stretches
                    for one in (device_id, _text(from_epoch_us(low)), _text(from_epoch_us(high)))
                ),
                *values,
            ],
        )
    return rows


def _stale_rows(count: Count, name: str, columns: Sequence[str], columns_of: dict[str, list[str]]) -> int:
    """Devices' or pets' days with more events than there are."""
    if not {"event_date", "event_count"} <= {*columns}:
        return 0
    rows = 0
    for key, events in (("device_id", "stg.telemetry_events"), ("pet_id", "anl.telemetry_events")):
        if key not in columns or events not in columns_of:
            continue
        rows += count(
            f"with sums as (select {key}, event_date, sum(event_count) as event_count from {name}"
            f" where {key} is not null group by {key}, event_date),"
            f" counts as (select {key}, event_date, count(*) as event_count from {events}"
            f" group by {key}, event_date)"
            " select count(*) as row_count from sums left join counts"
            f" on sums.{key} = counts.{key} and sums.event_date = counts.event_date"
            " where sums.event_count > coalesce(counts.event_count, 0)",
            (),
        )
    return rows


def _text(moment: datetime) -> str:
    return moment.isoformat(sep=" ")


def _batches(items: Sequence[Value], size: int) -> Iterator[list[Value]]:
    left = iter(items)
    while batch := [*islice(left, size)]:
        yield batch
