"""What a load is, whatever the warehouse: which ranges it has to bring, what the ledger says of each, its report.

Values only. The statements are `duckdb.raw`'s and `snowflake.raw`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from lake.landing import Manifest
from lake.layout import RangeKey
from lake.quarantine import Quarantine, Span

WAREHOUSE_MARK = "warehouse"
REWRITTEN_MARK = "rewritten"
# Up to which load the scores that redactions touch are gone.
SCORES_MARK = "scores_forgotten"
# Not a load: the present as of which the warehouse was last built whole, in microseconds since 1970 (UTC).
PRESENT_MARK = "warehouse_present"


class LoadMismatchError(RuntimeError):
    """A landed file is not what its manifest says; nothing of its range was kept."""


@dataclass(frozen=True)
class LoadReport:
    """What one load brought: ranges and rows by feed, and the event dates it touched.

    `redactions` are entries of the redaction and quarantine ledgers applied for the first
    time, `removed_rows` what redactions took out of raw.
    """

    load_seq: int
    ranges: int = 0
    rows_by_feed: dict[str, int] = field(default_factory=dict)
    event_dates: tuple[date, ...] = ()
    redactions: int = 0
    removed_rows: int = 0


def pending_ranges(manifests: Iterable[Manifest], known: Collection[RangeKey]) -> list[Manifest]:
    """The manifests whose range is not in `known`, ordered by feed and range; of several of one range the first."""
    first_by_range: dict[RangeKey, Manifest] = {}
    for manifest in manifests:
        if manifest.range_key not in known:
            first_by_range.setdefault(manifest.range_key, manifest)
    return sorted(first_by_range.values(), key=lambda m: (m.feed, m.range_key))


def spans_to_load_again(quarantine: Quarantine, unapplied: Collection[str]) -> list[Span]:
    """Spans whose loaded ranges have to be loaded again, now that these entries of either ledger are new.

    Also where a redaction is new: of a row that is quarantined raw could not say whether it covers it.
    """
    if not unapplied:
        return []
    return [*dict.fromkeys([*quarantine.spans, *quarantine.changed_by(unapplied)])]


def manifest_event_dates(manifest: Manifest) -> list[date]:
    """Event dates (UTC) a range holds rows of; empty for record feeds."""
    return sorted(date.fromisoformat(day) for day in manifest.rows_by_event_date)


def history_values(manifest: Manifest, load_seq: int, loaded_at: datetime) -> list[Any]:
    """One row of `raw.load_history`, in the order of its columns."""
    return [
        *manifest.range_key,
        manifest.end,
        manifest.feed,
        manifest.source_file,
        manifest.rows,
        manifest.rejected,
        manifest.consent_dropped,
        manifest.offset_gaps,
        manifest_event_dates(manifest),
        load_seq,
        loaded_at,
    ]


def extract_values(manifest: Manifest) -> list[Any]:
    """One row of `raw.extracts`, in the order of its columns, for a range that is an extract."""
    return [
        manifest.extract_id,
        manifest.feed,
        manifest.source_system,
        manifest.stream_id,
        bool(manifest.complete),
        manifest.rows,
        manifest.extracted_at,
        manifest.ingested_at,
        manifest.max_arrival_ts,
    ]
