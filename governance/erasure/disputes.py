"""Disputed spans from being found to being decided: what is listed, what is still open, what a decision does.

A household wants its telemetry gone, and in the span another pet claims the
device, too. A span is open as long as that is so by the newest records and
nobody has decided of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from ingestion.collector.consent import covered_by, newest_snapshot, read_demands
from lake.disputes import (
    VERDICTS,
    Decision,
    Disputed,
    Listing,
    common,
    load_decisions,
    load_listings,
    minus,
    put_decision,
    put_listing,
)
from lake.landed import measured_within, received_within, telemetry_columns
from lake.landing import Manifest
from lake.redactions import Redactions, arrival_us, redaction_id_for, rows_received_in
from lake.replacements import Replacements
from lake.store import ObjectStore


class UnknownSpanError(ValueError):
    """No open span has this listing and number."""


@dataclass(frozen=True)
class OpenSpan:
    """What is left to decide of a listed span: `parts` of it, under the listing's id and the span's number."""

    listing: Listing
    number: int
    parts: tuple[Disputed, ...]

    @property
    def span(self) -> Disputed:
        """The span as it was listed."""
        return self.listing.spans[self.number - 1]


def list_disputed(
    store: ObjectStore, disputed: Iterable[Disputed], now: datetime, deadline_days: int
) -> Listing | None:
    """List the parts that are not listed yet; None where there are none."""
    new: list[Disputed] = []
    listed = [span for listing in load_listings(store) for span in listing.spans]
    for span in disputed:
        new += minus([span], [*listed, *new])
    if not new:
        return None
    listing = Listing(
        listing_id=redaction_id_for(now, "disputed", new),
        listed_at=now,
        deadline=now + timedelta(days=deadline_days),
        spans=new,
    )
    put_listing(store, listing)
    return listing


def open_spans(store: ObjectStore, redactions: Redactions) -> list[OpenSpan]:
    """Listed spans that are still to be decided, by the newest records."""
    listings = load_listings(store)
    if not listings:
        return []
    demands, assignments = read_demands(store, redactions, newest_snapshot(store).silence)
    _, waiting = covered_by(demands, assignments, load_decisions(store))
    found = []
    for listing in listings:
        for number, span in enumerate(listing.spans, start=1):
            if parts := common(waiting, [span]):
                found.append(OpenSpan(listing, number, tuple(parts)))
    return found


def count_rows(
    store: ObjectStore,
    spans: Sequence[OpenSpan],
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
) -> list[int]:
    """For each span the landed rows that were measured or received in it and that nothing redacts."""
    limits = [[(part.device_id, *part.limits) for part in span.parts] for span in spans]
    stretches = [(low, high) for found in limits for _, low, high in found]
    devices = sorted({device_id for found in limits for device_id, _, _ in found})
    touched = [m for m in manifests if received_within(m, stretches) or measured_within(m, stretches)]
    counts = [0] * len(spans)
    for _, table in telemetry_columns(store, touched, replacements, devices, ["event_ts"]):
        worn, arrived = table["device_id"], arrival_us(table)
        measured = table["event_ts"].cast(pa.int64()).to_numpy()
        kept = ~rows_received_in(redactions.arrivals, worn, arrived)
        for position, found in enumerate(limits):
            hit = rows_received_in(found, worn, arrived) | rows_received_in(found, worn, measured)
            counts[position] += int(np.count_nonzero(hit & kept))
    return counts


def find_open(spans: Sequence[OpenSpan], listing_id: str, number: int) -> OpenSpan:
    """The open span of that listing and number. Raises UnknownSpanError."""
    for span in spans:
        if (span.listing.listing_id, span.number) == (listing_id, number):
            return span
    raise UnknownSpanError(
        f"there is no open span {number} of '{listing_id}': it was decided, its claims have changed, or it was "
        "never listed; see `petwellness erasures`"
    )


def decide(
    store: ObjectStore, span: OpenSpan, verdict: str, decided_by: str, reason: str, now: datetime
) -> Decision:
    """Enter a person's decision of what is open of a span. It cannot be taken back. Raises ValueError."""
    if verdict not in VERDICTS:
        raise ValueError(f"'{verdict}' is no verdict; choose one of {', '.join(VERDICTS)}")
    decision = Decision(
        decision_id=redaction_id_for(now, verdict, span.parts),
        decided_at=now,
        decided_by=decided_by,
        reason=reason,
        verdict=verdict,
        spans=[*span.parts],
    )
    put_decision(store, decision)
    return decision
