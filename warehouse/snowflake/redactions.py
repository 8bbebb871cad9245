"""The redaction and quarantine ledgers inside a session of Snowflake: which rows they cover, and their removal.

Says by joins what `duckdb.redactions` says by EXISTS: Snowflake takes no correlated subquery
with a range of times. The tables here are temporary, they end with the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from contracts.registry import FEEDS, RECORD_FEED_NAMES, TELEMETRY_FEED
from lake.landing import feed_schema
from lake.quarantine import Span
from lake.redactions import Redactions, from_epoch_us
from warehouse.duckdb.redactions import Removed
from warehouse.snowflake.session import run, run_many
from warehouse.snowflake.sql import RAW

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

_ARRIVALS = f"{RAW}.redacted_arrivals"
_VALUES = f"{RAW}.redacted_values"
_SPANS = f"{RAW}.quarantined_spans"
# Keys of the rows that `cover` found.
COVERED = f"{RAW}.covered_rows"

REDACTION_TABLES = {
    _ARRIVALS: {
        "device_id": "varchar",
        "from_ts": "timestamp_ntz(6)",
        "to_ts": "timestamp_ntz(6)",
    },
    _VALUES: {"feed": "varchar", "column_name": "varchar", "value": "varchar"},
    _SPANS: {
        "stream_id": "varchar",
        "kafka_partition": "number(10, 0)",
        "start_offset": "number(19, 0)",
        "end_offset": "number(19, 0)",
        "source_file": "varchar",
    },
    COVERED: {
        "stream_id": "varchar",
        "kafka_partition": "number(10, 0)",
        "kafka_offset": "number(19, 0)",
        "source_file": "varchar",
        "is_redacted": "boolean",
    },
}

# Condition of a join of `landed` rows with `COVERED as gone`. Two files may hold the same offsets.
IS_GONE = (
    "gone.stream_id = landed.stream_id and gone.kafka_partition = landed.kafka_partition"
    " and gone.kafka_offset = landed.kafka_offset and gone.source_file = landed.source_file"
)

# Condition of a join of `landed` rows with `_SPANS as span`.
_IN_SPAN = (
    "span.stream_id = landed.stream_id and span.kafka_partition = landed.kafka_partition"
    " and landed.kafka_offset >= span.start_offset and landed.kafka_offset < span.end_offset"
    " and (span.source_file is null or span.source_file = landed.source_file)"
)


class Gone(NamedTuple):
    """Rows of a file that are covered: by redactions, and by the quarantine alone."""

    redacted: int = 0
    quarantined: int = 0


def create_redactions(con: SnowflakeConnection, redactions: Redactions, spans: Sequence[Span] = ()) -> None:
    """Put what is redacted and quarantined where `cover` looks. Creates tables: never inside a transaction."""
    for table, columns in REDACTION_TABLES.items():
        named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        run(con, f"create or replace temporary table {table} ({named})")
    run_many(
        con,
        f"insert into {_ARRIVALS} (device_id, from_ts, to_ts) values (%s, %s, %s)",
        [
            (device_id, from_epoch_us(low), from_epoch_us(high))
            for device_id, low, high in redactions.arrivals
        ],
    )
    run_many(
        con,
        f"insert into {_VALUES} (feed, column_name, value) values (%s, %s, %s)",
        [
            (feed, column, value)
            for feed in RECORD_FEED_NAMES
            for column, values in redactions.record_values(feed, feed_schema(feed).names)
            for value in sorted(values)
        ],
    )
    run_many(
        con,
        f"insert into {_SPANS} (stream_id, kafka_partition, start_offset, end_offset, source_file)"
        " values (%s, %s, %s, %s, %s)",
        [(span.stream_id, span.partition, span.start, span.end, span.source_file) for span in spans],
    )


def drop_redactions(con: SnowflakeConnection) -> None:
    """Drop what `create_redactions` made, as the session may go on. Never inside a transaction."""
    for table in REDACTION_TABLES:
        run(con, f"drop table if exists {table}")


def cover(
    con: SnowflakeConnection,
    feed: str,
    redactions: Redactions,
    table: str,
    files: str,
    is_quarantined: bool = False,
) -> dict[str, Gone]:
    """Fill `COVERED` with the rows of `table` that the created redactions cover; how many of each file.

    Only rows whose `source_file` is in the query `files` are looked at; `is_quarantined` says that some of them
    may be in a created span. Part of the caller's transaction.
    """
    is_covered = redactions.covers_feed(feed)
    if not is_covered and not is_quarantined:
        return {}
    run(con, f"delete from {COVERED}")
    if is_covered:
        _cover_redacted(con, feed, redactions, table, files)
    if is_quarantined:
        _cover_quarantined(con, table, files)
    counted = run(
        con,
        "select source_file, count_if(is_redacted) as redacted_count, count_if(not is_redacted) as other_count"
        f" from {COVERED} group by source_file",
    )
    return {source_file: Gone(int(rows), int(others)) for source_file, rows, others in counted}


def _cover_redacted(
    con: SnowflakeConnection, feed: str, redactions: Redactions, table: str, files: str
) -> None:
    keys = "landed.stream_id, landed.kafka_partition, landed.kafka_offset, landed.source_file"
    if feed == TELEMETRY_FEED:
        matches = [
            f"inner join {_ARRIVALS} as gone on gone.device_id = landed.device_id"
            " and landed.arrival_ts >= gone.from_ts and landed.arrival_ts < gone.to_ts"
        ]
    else:
        matches = [
            f"inner join {_VALUES} as gone on gone.feed = '{feed}' and gone.column_name = '{column}'"
            f" and gone.value = landed.{column}"
            for column, _ in redactions.record_values(feed, feed_schema(feed).names)
        ]
    # A row that came twice, or is covered for two reasons, counts once.
    found = " union ".join(
        f"select distinct {keys} from {table} as landed {match} where landed.source_file in ({files})"
        for match in matches
    )
    run(
        con,
        f"insert into {COVERED} (stream_id, kafka_partition, kafka_offset, source_file, is_redacted)"
        " select found.stream_id, found.kafka_partition, found.kafka_offset, found.source_file, true as is_redacted"
        f" from ({found}) as found",
    )


def _cover_quarantined(con: SnowflakeConnection, table: str, files: str) -> None:
    """Add the rows in a span that no redaction covers."""
    run(
        con,
        f"insert into {COVERED} (stream_id, kafka_partition, kafka_offset, source_file, is_redacted)"
        " select distinct landed.stream_id, landed.kafka_partition, landed.kafka_offset, landed.source_file,"
        f" false as is_redacted from {table} as landed inner join {_SPANS} as span on {_IN_SPAN}"
        f" left join {COVERED} as gone on {IS_GONE}"
        f" where gone.stream_id is null and landed.source_file in ({files})",
    )


def count_in_spans(con: SnowflakeConnection, table: str) -> int:
    """How often rows of a table lie in the created spans."""
    [(rows,)] = run(
        con, f"select count(*) as row_count from {table} as landed inner join {_SPANS} as span on {_IN_SPAN}"
    )
    return int(rows)


def delete_covered(con: SnowflakeConnection, feed: str) -> None:
    """Delete from a feed's table what `cover` found last."""
    run(con, f"delete from {RAW}.{feed} as landed using {COVERED} as gone where {IS_GONE}")


def delete_redacted(con: SnowflakeConnection, redactions: Redactions) -> Removed:
    """Delete of all ranges in the ledger what the created `redactions` cover; part of the caller's transaction."""
    removed = Removed({}, {}, ())
    event_dates: set[date] = set()
    for feed in FEEDS:
        loaded = f"select source_file from {RAW}.load_history where feed = '{feed}'"
        if not cover(con, feed, redactions, f"{RAW}.{feed}", loaded):
            continue
        counted = run(
            con,
            "select history.stream_id, history.kafka_partition, history.start_offset, count(*) as row_count"
            f" from {COVERED} as gone inner join {RAW}.load_history as history"
            f" on history.feed = '{feed}' and history.source_file = gone.source_file"
            " group by history.stream_id, history.kafka_partition, history.start_offset",
        )
        for stream_id, partition, start, rows in counted:
            removed.rows_by_range[stream_id, int(partition), int(start)] = int(rows)
            removed.feeds[stream_id, int(partition), int(start)] = feed
        if feed == TELEMETRY_FEED:
            days = run(
                con,
                f"select distinct landed.event_ts::date as event_date from {RAW}.{feed} as landed"
                f" inner join {COVERED} as gone on {IS_GONE}",
            )
            event_dates |= {day for (day,) in days}
        delete_covered(con, feed)
    return Removed(removed.rows_by_range, removed.feeds, tuple(sorted(event_dates)))
