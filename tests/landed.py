"""Claims and manifests of the landing protocol for tests on plain values: what a test does not look at is filled in."""

from datetime import datetime
from typing import Any

from lake.landing import Claim, Manifest

STREAM = "cluster.telemetry.topic1"
CLAIMED_AT = datetime(2026, 6, 5)

_TELEMETRY = {
    "stream_id": STREAM,
    "partition": 0,
    "feed": "telemetry_events",
    "source_system": "petwellness-collar",
    "decoder": "collar-v1@1",
    "claimed_at": CLAIMED_AT,
    "claimed_by": "test",
}
_WHOLE = {
    "rejected_by_reason": {},
    "consent_dropped": 0,
    "offset_gaps": 0,
    "rows_by_event_date": {},
    "min_event_ts": None,
    "max_event_ts": None,
    "min_arrival_ts": None,
    "max_arrival_ts": None,
    "bytes": 1,
    "sha256": "",
    "schema_version": 1,
    "reject_object": None,
}
_TAKEN = (
    *("stream_id", "partition", "start", "end", "feed", "source_system", "decoder", "gap_reason"),
    *("consent_snapshot_id", "extract_id", "complete", "extracted_at"),
)


def claim(start: int, end: int, **changes: Any) -> Claim:
    """A claim of a collars' stream."""
    return Claim(**{**_TELEMETRY, "start": start, "end": end, **changes})


def manifest(of: Claim, **changes: Any) -> Manifest:
    """The manifest of a claim of which every offset is a row."""
    return Manifest(
        source_file=of.landing_key,
        ingested_at=of.claimed_at,
        **{name: getattr(of, name) for name in _TAKEN},
        **{**_WHOLE, "rows": of.end - of.start, **changes},
    )
