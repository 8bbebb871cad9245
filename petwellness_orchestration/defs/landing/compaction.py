"""The lake's catalogue and the compacted copy of telemetry, by arrival day. The work is `lake`."""

import dagster as dg

from contracts.registry import FEEDS, TELEMETRY_FEED
from petwellness_orchestration import names
from petwellness_orchestration.defs.landing.partitions import ARRIVAL_DAYS
from petwellness_orchestration.named_days import named_day
from petwellness_orchestration.resources import PlatformResource

# Findings named in the check's metadata.
SHOWN = 20

_COMPACTED = names.TELEMETRY_COMPACTED.to_user_string()
_INSTEAD = "run `petwellness compact`, which takes every closed arrival day that waits"


@dg.asset(
    key=names.CATALOGUE,
    deps=[names.landing_key(feed) for feed in FEEDS],
    group_name="landing",
    kinds={"parquet"},
    owners=[names.DATA_OWNER],
    description="Finished ranges of closed hours in Parquet, so that readers list only what is newer.",
)
def catalogue(platform: PlatformResource) -> dg.MaterializeResult:
    """Roll up what can be."""
    from lake.catalogue import roll_up
    from lake.landing import utc_now

    generation = roll_up(platform.store(), utc_now())
    if generation is None:
        return dg.MaterializeResult(metadata={"generation": 0, "ranges": 0, "segments": 0})
    return dg.MaterializeResult(
        metadata={
            "generation": generation.n,
            "ranges": generation.ranges,
            "segments": len(generation.segments),
            "segment_bytes": sum(segment.bytes for segment in generation.segments),
            "closed_until": generation.cut_off.isoformat(),
        }
    )


@dg.asset(
    key=names.TELEMETRY_COMPACTED,
    deps=[names.landing_key(TELEMETRY_FEED), names.CATALOGUE, names.QUARANTINE],
    group_name="landing",
    kinds={"parquet"},
    owners=[names.DATA_OWNER],
    partitions_def=ARRIVAL_DAYS,
    pool=names.COMPACTION_POOL,
    description="Telemetry of an arrival day in few files ordered by clinic, device and time; a snapshot names them.",
)
def telemetry_compacted(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> dg.MaterializeResult:
    """Write the day's next snapshot where something is new, and remove what nothing names any more."""
    from petwellness_orchestration import compacting

    settings, store = platform.settings(), platform.store()
    day = named_day(context, _COMPACTED, _INSTEAD)
    report = compacting.compact(
        settings,
        store,
        day,
        context.log.info,
        even_if_open=context.run.tags.get(compacting.OPEN_TAG) == "true",
    )
    removed = compacting.clean(settings, store, context.log.info)
    return dg.MaterializeResult(
        metadata={**compacting.report_metadata(report), "removed_files": len(removed)}
    )


@dg.asset_check(
    asset=names.TELEMETRY_COMPACTED,
    blocking=True,
    partitions_def=ARRIVAL_DAYS,
    pool=names.COMPACTION_POOL,
    description="The day's snapshot holds the rows that landed, each once: by content of every column and by key.",
)
def same_rows_as_landed(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Compare the snapshot with the landing files of the ranges it covers."""
    from petwellness_orchestration import compacting

    day = named_day(context, _COMPACTED, _INSTEAD)
    proof = compacting.prove(platform.settings(), platform.store(), day, context.log.info)
    return dg.AssetCheckResult(
        passed=proof.passed,
        metadata={
            "rows_before": proof.proof.rows_before,
            "rows_after": proof.proof.rows_after,
            "redacted_rows": proof.proof.redacted_rows,
            "late_ranges": proof.late_ranges,
            "findings": len(proof.findings),
            "first_findings": dg.MetadataValue.json([*proof.findings[:SHOWN]]),
        },
    )
