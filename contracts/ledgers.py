"""Arrow schemas of the tables of `raw` that no feed fills: what was loaded, redacted, built and moved.

One list for both warehouses, as `columns` is for the feeds. Who writes a table is
said beside it; what its rows mean, in dbt's description of the source.
"""

import pyarrow as pa

from contracts.columns import TIMESTAMP

_RANGE = [
    pa.field("stream_id", pa.string(), nullable=False),
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("start_offset", pa.int64(), nullable=False),
]
_DATES = pa.list_(pa.date32())

LEDGERS: dict[str, pa.Schema] = {
    # The loader, with the rows it loads.
    "extracts": pa.schema(
        [
            pa.field("extract_id", pa.string(), nullable=False),
            pa.field("feed", pa.string(), nullable=False),
            pa.field("source_system", pa.string(), nullable=False),
            pa.field("stream_id", pa.string(), nullable=False),
            pa.field("complete", pa.bool_(), nullable=False),
            pa.field("row_count", pa.int64(), nullable=False),
            pa.field("extracted_at", TIMESTAMP, nullable=False),
            pa.field("claimed_at", TIMESTAMP, nullable=False),
            pa.field("arrival_ts", TIMESTAMP),
        ]
    ),
    "load_history": pa.schema(
        [
            *_RANGE,
            pa.field("end_offset", pa.int64(), nullable=False),
            pa.field("feed", pa.string(), nullable=False),
            pa.field("source_file", pa.string(), nullable=False),
            pa.field("row_count", pa.int64(), nullable=False),
            pa.field("rejected_count", pa.int64(), nullable=False),
            pa.field("consent_dropped_count", pa.int64(), nullable=False),
            pa.field("offset_gap_count", pa.int64(), nullable=False),
            pa.field("event_dates", _DATES, nullable=False),
            pa.field("load_seq", pa.int64(), nullable=False),
            pa.field("loaded_at", TIMESTAMP, nullable=False),
        ]
    ),
    "redacted_ranges": pa.schema(
        [
            *_RANGE,
            pa.field("feed", pa.string(), nullable=False),
            pa.field("redacted_count", pa.int64(), nullable=False),
            pa.field("max_arrival_ts", TIMESTAMP),
            # Null in entries of before there was a quarantine.
            pa.field("quarantined_count", pa.int64()),
        ]
    ),
    "redactions": pa.schema(
        [
            pa.field("redaction_id", pa.string(), nullable=False),
            pa.field("event_dates", _DATES, nullable=False),
            pa.field("load_seq", pa.int64(), nullable=False),
            pa.field("applied_at", TIMESTAMP, nullable=False),
        ]
    ),
    "partition_progress": pa.schema(
        [
            pa.field("stream_id", pa.string(), nullable=False),
            pa.field("kafka_partition", pa.int32(), nullable=False),
            pa.field("end_offset", pa.int64(), nullable=False),
            pa.field("newest_arrival_ts", TIMESTAMP),
            pa.field("at_end_ts", TIMESTAMP),
            pa.field("first_seen_at", TIMESTAMP, nullable=False),
        ]
    ),
    # At most one row (`warehouse.watermark`).
    "watermark": pa.schema([pa.field("watermark_ts", TIMESTAMP, nullable=False)]),
    # Retention (`governance.archive`).
    "cold_days": pa.schema(
        [
            pa.field("table_name", pa.string(), nullable=False),
            pa.field("event_date", pa.date32(), nullable=False),
            pa.field("row_count", pa.int64(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
        ]
    ),
    "kept_days": pa.schema(
        [
            pa.field("table_name", pa.string(), nullable=False),
            pa.field("event_date", pa.date32(), nullable=False),
            pa.field("kept_until", pa.date32(), nullable=False),
        ]
    ),
    # dbt's models.
    "build_marks": pa.schema(
        [pa.field("mark", pa.string(), nullable=False), pa.field("load_seq", pa.int64(), nullable=False)]
    ),
    "rebuilt_days": pa.schema(
        [
            pa.field("table_name", pa.string(), nullable=False),
            pa.field("event_date", pa.date32()),
            pa.field("build_seq", pa.int64(), nullable=False),
        ]
    ),
    # At most one row (`contracts.salt`).
    "hash_salt": pa.schema([pa.field("salt", pa.string(), nullable=False)]),
}
