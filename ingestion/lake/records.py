"""Landed change records of a feed, read straight from the lake and without what is redacted.

For consent and erasure, which have to know before the warehouse does. What the
records mean together is not decided here.
"""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.contracts.columns import record_schema
from ingestion.lake.reading import read_landed
from ingestion.lake.redactions import Redactions
from ingestion.lake.replacements import load_replacements, main_keys
from ingestion.lake.store import ObjectStore

CHANGE_ORDER = ["changed_at", "arrival_ts", "stream_id", "kafka_partition", "kafka_offset"]


def read_records(
    store: ObjectStore,
    feed: str,
    columns: Sequence[str],
    redactions: Redactions,
    as_of: datetime | None = None,
) -> pa.Table:
    """Records received up to `as_of` (naive UTC; none: all) that nothing redacts, in order of change.

    Besides `columns` there are those of the order of changes, and those that redactions go by.
    """
    wanted = [*dict.fromkeys([*columns, *CHANGE_ORDER, *redactions.columns(feed, record_schema(feed).names)])]
    whole = read_landed(store, main_keys(store, feed, load_replacements(store)), feed, wanted)
    if as_of is not None:
        whole = whole.filter(pc.less_equal(whole["arrival_ts"], pa.scalar(as_of, pa.timestamp("us"))))
    if redactions.covers_feed(feed):
        whole = whole.filter(pa.array(~redactions.rows(feed, whole)))
    return whole.sort_by([(name, "ascending") for name in CHANGE_ORDER])
