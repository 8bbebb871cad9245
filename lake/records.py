"""Landed change records of a feed, read straight from the lake and without what is redacted.

For consent and erasure, which have to know before the warehouse does. What records
and extracts mean together is in `changes`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import record_schema
from contracts.records import RECORD_KEYS
from lake.changes import CHANGE_ORDER, Change, Extract, Row, change_log
from lake.landing import claim_in, read_manifest
from lake.reading import LandedFile, landed_files, landed_schema
from lake.redactions import Redactions
from lake.replacements import load_replacements, main_keys
from lake.store import ObjectStore


@dataclass(frozen=True)
class LandedRecords:
    """What has landed of a record feed: its records in order of change, and its complete extracts."""

    feed: str
    table: pa.Table
    extracts: list[Extract]

    def of(self, entity_ids: Iterable[str]) -> "LandedRecords":
        """The same of these entities only."""
        is_of = pc.is_in(self.table[RECORD_KEYS[self.feed]], pa.array([*entity_ids], pa.string()))
        return LandedRecords(self.feed, self.table.filter(is_of), self.extracts)

    def rows(self) -> list[Row]:
        """The records as plain values."""
        return self.table.to_pylist()

    def changes(self) -> list[Change]:
        """The change log (`changes.change_log`)."""
        return change_log(self.rows(), self.extracts, RECORD_KEYS[self.feed])


def read_records(
    store: ObjectStore,
    feed: str,
    columns: Sequence[str],
    redactions: Redactions,
    as_of: datetime | None = None,
) -> LandedRecords:
    """Records received up to `as_of` (naive UTC; none: all) that nothing redacts, in order of change, and the
    complete extracts received by then.

    Besides `columns` there are the id of the feed, `op`, those of the order of changes, and those that
    redactions go by.
    """
    schema = record_schema(feed)
    needed = [RECORD_KEYS[feed], "op", *CHANGE_ORDER, *redactions.columns(feed, schema.names)]
    wanted = landed_schema(feed, [*dict.fromkeys([*columns, *needed])])
    tables, extracts = [wanted.empty_table()], []
    for file in landed_files(store, main_keys(store, feed, load_replacements(store)), wanted):
        tables.append(file.rows)
        extracts += _complete_extract(store, file)
    table = pa.concat_tables(tables)
    if as_of is not None:
        table = table.filter(pc.less_equal(table["arrival_ts"], pa.scalar(as_of, pa.timestamp("us"))))
        extracts = [one for one in extracts if one.arrival_ts <= as_of]
    if redactions.covers_feed(feed):
        table = table.filter(pa.array(~redactions.rows(feed, table)))
    return LandedRecords(feed, table.sort_by([(name, "ascending") for name in CHANGE_ORDER]), extracts)


def _complete_extract(store: ObjectStore, file: LandedFile) -> list[Extract]:
    """The complete extract that a file holds, if it does, as it landed."""
    claim = claim_in(file.key, file.footer)
    if not claim.complete or claim.extracted_at is None:
        return []
    landed_rows = claim.end - claim.start
    received = pc.max(file.rows["arrival_ts"]).as_py()
    if file.rows.num_rows < landed_rows:  # Rows were purged since; the manifest knows when the last had come.
        received = read_manifest(store, claim.range_key).max_arrival_ts
    at = claim.extracted_at
    return [Extract(claim.source_system, claim.stream_id, at, received or at, landed_rows)]
