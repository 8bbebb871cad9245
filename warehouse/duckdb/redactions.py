"""The redaction and quarantine ledgers inside the embedded warehouse: which rows of `raw` they cover, and their removal.

Statements here say in SQL what `Redactions.rows` and `Quarantine.rows` say of Arrow
tables. When they run, and in whose transaction, is decided in `duckdb.raw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from contracts.registry import FEEDS, RECORD_FEED_NAMES, TELEMETRY_FEED
from lake.landing import feed_schema
from lake.layout import RangeKey
from lake.quarantine import Span
from lake.redactions import Redactions, from_epoch_us

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


@dataclass(frozen=True)
class Removed:
    """Rows taken out of raw: how many of each range, the feed of each, event dates that lost some."""

    rows_by_range: dict[RangeKey, int]
    feeds: dict[RangeKey, str]
    event_dates: tuple[date, ...]


def register_redactions(con: duckdb.DuckDBPyConnection, redactions: Redactions) -> None:
    """Put what is redacted where `redacted` looks: temporary tables of this connection."""
    import pyarrow as pa

    arrivals = pa.Table.from_pylist(
        [
            {"device_id": device_id, "from_ts": from_epoch_us(low), "to_ts": from_epoch_us(high)}
            for device_id, low, high in redactions.arrivals
        ],
        schema=pa.schema(
            [("device_id", pa.string()), ("from_ts", pa.timestamp("us")), ("to_ts", pa.timestamp("us"))]
        ),
    )
    values = pa.Table.from_pylist(
        [
            {"feed": feed, "column_name": column, "value": value}
            for feed in RECORD_FEED_NAMES
            for column, values in redactions.record_values(feed, feed_schema(feed).names)
            for value in sorted(values)
        ],
        schema=pa.schema([(name, pa.string()) for name in ("feed", "column_name", "value")]),
    )
    _create_temporary(con, "redacted_arrivals", arrivals)
    _create_temporary(con, "redacted_values", values)


def register_spans(con: duckdb.DuckDBPyConnection, spans: Sequence[Span]) -> None:
    """Put what is quarantined where `quarantined` looks: a temporary table of this connection."""
    import pyarrow as pa

    columns = {
        "stream_id": pa.array([span.stream_id for span in spans], pa.string()),
        "kafka_partition": pa.array([span.partition for span in spans], pa.int32()),
        "start_offset": pa.array([span.start for span in spans], pa.int64()),
        "end_offset": pa.array([span.end for span in spans], pa.int64()),
        "source_file": pa.array([span.source_file for span in spans], pa.string()),
    }
    _create_temporary(con, "quarantined_spans", pa.table(columns))


def quarantined(alias: str) -> str:
    """SQL that is true for the rows of `alias` that the registered spans name, false for all others."""
    return (
        "exists (select 1 from temp.quarantined_spans as span"
        f" where span.stream_id = {alias}.stream_id and span.kafka_partition = {alias}.kafka_partition"
        f" and {alias}.kafka_offset >= span.start_offset and {alias}.kafka_offset < span.end_offset"
        f" and coalesce(span.source_file = {alias}.source_file, true))"
    )


def _create_temporary(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    con.register(f"_{name}", table)
    con.execute(f"create or replace temp table {name} as from _{name}")
    con.unregister(f"_{name}")


def redacted(feed: str, redactions: Redactions, alias: str) -> str:
    """SQL that is true for the rows of `alias` that the registered redactions cover, false for all others."""
    if not redactions.covers_feed(feed):
        return "false"
    if feed == TELEMETRY_FEED:
        return (
            "exists (select 1 from temp.redacted_arrivals as gone"
            f" where gone.device_id = {alias}.device_id"
            f" and {alias}.arrival_ts >= gone.from_ts and {alias}.arrival_ts < gone.to_ts)"
        )
    tests = [
        f"coalesce({alias}.{column} in (select value from temp.redacted_values"
        f" where feed = '{feed}' and column_name = '{column}'), false)"
        for column, _ in redactions.record_values(feed, feed_schema(feed).names)
    ]
    return f"({' or '.join(tests)})"


def delete_redacted(con: duckdb.DuckDBPyConnection, redactions: Redactions) -> Removed:
    """Delete every row of raw that the registered `redactions` cover; part of the caller's transaction."""
    rows_by_range: dict[RangeKey, int] = {}
    feeds: dict[RangeKey, str] = {}
    event_dates: set[date] = set()
    for feed in FEEDS:
        covered = redacted(feed, redactions, "landed")
        if covered == "false":
            continue
        counted = con.execute(
            "select history.stream_id, history.kafka_partition, history.start_offset, count(*)"
            f" from raw.{feed} as landed inner join raw.load_history as history"
            f" on history.feed = '{feed}' and history.stream_id = landed.stream_id"
            " and history.kafka_partition = landed.kafka_partition"
            " and landed.kafka_offset >= history.start_offset and landed.kafka_offset < history.end_offset"
            f" where {covered} group by all"
        ).fetchall()
        if not counted:
            continue
        for stream_id, partition, start, rows in counted:
            rows_by_range[stream_id, partition, start] = rows
            feeds[stream_id, partition, start] = feed
        if feed == TELEMETRY_FEED:
            days = con.execute(
                f"select distinct cast(event_ts as date) from raw.{feed} as landed where {covered}"
            ).fetchall()
            event_dates |= {day for (day,) in days}
        con.execute(f"delete from raw.{feed} as landed where {covered}")
    return Removed(rows_by_range, feeds, tuple(sorted(event_dates)))
