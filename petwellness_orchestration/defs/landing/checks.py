"""Checks of the lake: what the brokers' logs lost before it was collected."""

from datetime import timedelta

import dagster as dg

from contracts.registry import TELEMETRY_FEED
from petwellness_orchestration import names
from petwellness_orchestration.resources import PlatformResource

# A loss cannot be undone; the check names it so long that somebody acts on it.
NAMED_FOR = timedelta(days=7)
EXAMPLES = 20


@dg.asset_check(
    asset=names.landing_key(TELEMETRY_FEED),
    description="No messages left the brokers' logs before they were collected, in the last 7 days.",
)
def no_message_lost(platform: PlatformResource) -> dg.AssetCheckResult:
    """Ranges with offsets that the log had lost are named; they warn and do not stop the run."""
    from lake.landing import list_manifests, utc_now
    from warehouse.gaps import lost_ranges

    lost = lost_ranges(list_manifests(platform.store()))
    since = utc_now() - NAMED_FOR
    recent = sorted((m for m in lost if m.ingested_at >= since), key=lambda m: m.ingested_at, reverse=True)
    offsets = sum(m.offset_gaps for m in recent)
    return dg.AssetCheckResult(
        passed=not recent,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": f"{offsets} messages of {len(recent)} ranges were gone before they were collected; "
            "lengthen the topic's retention, see docs/runbooks/telemetry-dropouts.md",
            "lost_offsets": offsets,
            "lost_offsets_ever": sum(m.offset_gaps for m in lost),
            "ranges": dg.MetadataValue.json(
                [
                    f"{m.stream_id} partition {m.partition} [{m.start}, {m.end}) {m.gap_reason or ''}".rstrip()
                    for m in recent[:EXAMPLES]
                ]
            ),
        },
    )
