"""Landing of record extracts: one extract is one range of a stream of its own.

What the tables hold is the business of the extracts' sources; the steps of the
protocol are in `landing`.
"""

import contextlib
from datetime import datetime

import numpy as np
import pyarrow as pa

from lake.landing import (
    Claim,
    LandingError,
    LandingSchemaError,
    Manifest,
    claim_range,
    land_range,
    read_manifest,
    recover_range,
    utc_now,
    with_envelope,
)
from lake.store import ObjectMissingError, ObjectStore

EXTRACT_DECODER = "records@1"


class ExtractChangedError(LandingError):
    """An extract id was claimed with another number of rows than it has now."""


def land_extract(
    store: ObjectStore,
    *,
    source: str,
    feed: str,
    extract_id: str,
    table: pa.Table,
    complete: bool,
    extracted_at: datetime,
    claimed_at: datetime | None = None,
) -> Manifest:
    """Land one extract as the stream `source.feed.extract_id`, partition 0, offset = row number.

    `table` has the feed's typed columns, `business_key`, `op`, `changed_at`,
    `payload` and optionally `arrival_ts` (default: `extracted_at`). `complete`
    says that the extract states everything that exists at `extracted_at` (naive
    UTC). Landing an extract id again adopts what is stored, unread.

    Raises KeyError for an unknown feed, LandingSchemaError naming the column that is
    missing or does not fit (before anything is claimed), ExtractChangedError when a
    claim of this id waits for another number of rows.
    """
    rows = _complete_table(table, extracted_at)
    claim = Claim(
        stream_id=f"{source}.{feed}.{extract_id}",
        partition=0,
        start=0,
        end=rows.num_rows,
        feed=feed,
        source_system=source,
        decoder=EXTRACT_DECODER,
        claimed_at=claimed_at or utc_now(),
        claimed_by="extract",
        extract_id=extract_id,
        complete=complete,
        extracted_at=extracted_at,
    )
    with contextlib.suppress(ObjectMissingError):
        return read_manifest(store, claim.range_key)
    with_envelope(rows, claim)
    stored = claim_range(store, claim)
    landed = recover_range(store, stored)
    if landed is not None:
        return landed
    if stored.end != rows.num_rows:
        raise ExtractChangedError(
            f"extract '{stored.stream_id}' was claimed with {stored.end} rows and has {rows.num_rows} now; "
            "give the changed extract an id of its own"
        )
    return land_range(store, stored, rows)


def _complete_table(table: pa.Table, extracted_at: datetime) -> pa.Table:
    for name in ("kafka_offset", "extracted_at"):
        if name in table.column_names:
            raise LandingSchemaError(f"an extract's table must not bring the column '{name}'")
    moment = pa.repeat(pa.scalar(extracted_at, pa.timestamp("us")), table.num_rows)
    table = table.append_column("extracted_at", moment)
    if "arrival_ts" not in table.column_names:
        table = table.append_column("arrival_ts", moment)
    return table.append_column("kafka_offset", pa.array(np.arange(table.num_rows, dtype=np.int64)))
