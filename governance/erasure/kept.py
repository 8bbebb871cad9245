"""What an erasure has left because a practice must keep it: how many rows, why and until when.

Which records those are is `contracts.keeping`; `purge` puts them aside and deletes them at the end of their
term. Here is the report: what was put aside, what is still to be, and what should have gone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.keeping import KEPT_FEEDS
from governance.erasure.leftovers import Leftover
from lake import layout
from lake.landed import scan
from lake.landing import Manifest, feed_schema
from lake.redactions import Redactions
from lake.replacements import Replacements
from lake.store import ObjectStore

KIND = "_kept"


@dataclass(frozen=True)
class KeptRows:
    """Rows of a feed that an entry keeps until a day (the first on which they need not be kept), and why: by the law
    of which jurisdiction, as what type of record. Names no person or pet."""

    redaction_id: str
    feed: str
    until: date
    rows: int
    why: str

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.feed} stay until {self.until}: {self.why}"


def kept_rows(store: ObjectStore, redactions: Redactions) -> list[KeptRows]:
    """What was put aside for these entries and is there."""
    rows: dict[tuple[str, str, date], int] = {}
    for info in store.list(layout.KEPT):
        feed, until, redaction_id = layout.kept_of(info.key)
        if redaction_id in redactions.ids:
            key = redaction_id, feed, until
            rows[key] = rows.get(key, 0) + _row_count(store, info.key)
    return _described(rows, redactions)


def rows_to_keep(
    store: ObjectStore,
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
    now: datetime,
) -> list[KeptRows]:
    """What the next purge will put aside for these entries."""
    rows: dict[tuple[str, str, date], int] = {}
    by_feed: dict[str, list[str]] = {}
    for manifest in manifests:
        if manifest.feed in KEPT_FEEDS and manifest.rows and redactions.covers_feed(manifest.feed):
            by_feed.setdefault(manifest.feed, []).append(replacements.main_object_of(manifest))
    for feed, keys in by_feed.items():
        names = feed_schema(feed).names
        columns = [*dict.fromkeys([*redactions.columns(feed, names), *({"pet_id", "status"} & {*names})])]
        for _, table in scan(store, keys, columns):
            for (redaction_id, until), stays in redactions.kept(feed, table, now).items():
                key = redaction_id, feed, until
                rows[key] = rows.get(key, 0) + int(stays.sum())
    return _described(rows, redactions)


def kept_leftovers(store: ObjectStore, redactions: Redactions, now: datetime) -> list[Leftover]:
    """Rows that these entries put aside and whose term ended before today: purges have had a night for them."""
    found = []
    for info in store.list(layout.KEPT):
        _, until, redaction_id = layout.kept_of(info.key)
        if redaction_id in redactions.ids and until < now.date():
            found.append(Leftover(KIND, info.key, _row_count(store, info.key), "rows kept past their term"))
    return found


def _described(rows: dict[tuple[str, str, date], int], redactions: Redactions) -> list[KeptRows]:
    why = {
        (entry.redaction_id, one.feed, one.until.date()): f"{one.record_type}, {one.jurisdiction}, {one.why}"
        for entry in redactions
        for one in entry.kept
    }
    return [
        KeptRows(*key, count, why.get(key, "an entry that is not in the ledger"))
        for key, count in sorted(rows.items())
    ]


def _row_count(store: ObjectStore, key: str) -> int:
    return int(pq.read_metadata(pa.BufferReader(store.get(key))).num_rows)
