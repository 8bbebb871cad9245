"""Pipes and the whole reconciliation, where raw is on Snowflake, and nowhere else. What they find is `warehouse`."""

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.automation import SCHEDULE_STATUS, SENSOR_STATUS
from petwellness_orchestration.defs.operations.jobs import refresh
from petwellness_orchestration.defs.warehouse.partitions import EVENT_DAYS
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings

_SETTINGS = load_settings()

# Before the nightly run, which loads what this finds missing.
RECONCILE_CRON = "15 2 * * *"
WAITING_INTERVAL_S = 300
FINDINGS_SHOWN = 20


@dg.asset_check(
    asset=names.LOAD_HISTORY,
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="Every feed's pipe answers and runs. One that cannot be seen cannot be held still: that blocks.",
)
def pipes_run(context: dg.AssetCheckExecutionContext, platform: PlatformResource) -> dg.AssetCheckResult:
    """A pipe that is stopped or paused is a warning, as loads copy what it does not bring."""
    from lake.landing import utc_now
    from petwellness_orchestration.loading import loading_session
    from warehouse.snowflake.pipes import PIPE_MISSING, pipe_gaps
    from warehouse.snowflake.reconcile import pipe_statuses

    with loading_session(platform, context.run.run_id) as con:
        statuses = pipe_statuses(platform.pipes(con))
    gaps = [gap for status in statuses for gap in pipe_gaps(status, utc_now())]
    unseen = any(gap.kind is PIPE_MISSING for gap in gaps)
    return dg.AssetCheckResult(
        passed=not gaps,
        severity=dg.AssetCheckSeverity.ERROR if unseen else dg.AssetCheckSeverity.WARN,
        metadata={
            "files_queued": sum(status.pending_files for status in statuses),
            "findings": dg.MetadataValue.json([str(gap) for gap in gaps]),
        },
    )


@dg.asset(
    key=names.RECONCILIATION,
    group_name=names.ACCOUNT_GROUP,
    kinds={"snowflake"},
    owners=[names.DATA_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="Lake, ledger, raw tables, pipes and copy history of every range held against each other.",
)
def reconciliation(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Log every finding with its fix; fails while one is open."""
    from petwellness_orchestration.loading import reconcile_account

    found = reconcile_account(platform, context.run_id)
    for gap in found.gaps:
        context.log.warning(f"{gap.kind.name}: {gap.where}: {gap.detail}; {gap.kind.fix}")
    if not found.passed:
        open_gaps = [gap for gap in found.gaps if gap.kind.is_open]
        raise dg.Failure(
            f"{len(open_gaps)} open findings; the first: {open_gaps[0].kind.name}, {open_gaps[0].where}."
            " docs/runbooks/snowflake-loads.md has the fix of each",
            metadata={"findings": dg.MetadataValue.json([str(gap) for gap in found.gaps[:FINDINGS_SHOWN]])},
        )
    return dg.MaterializeResult(metadata={"ranges": found.ranges, "pending_ranges": found.pending})


reconcile_raw_job = dg.define_asset_job(
    "reconcile_raw",
    selection=dg.AssetSelection.assets(names.RECONCILIATION),
    description="Every range of lake and raw, every pipe, and what pipes could not load.",
)

nightly_reconciliation = dg.ScheduleDefinition(
    name="nightly_reconciliation",
    job=reconcile_raw_job,
    cron_schedule=RECONCILE_CRON,
    execution_timezone=_SETTINGS.operations.timezone,
    default_status=SCHEDULE_STATUS,
    description="Every night before the nightly run, which mends what a load can.",
)


@dg.sensor(
    job=refresh,
    minimum_interval_seconds=WAITING_INTERVAL_S,
    default_status=SENSOR_STATUS,
    description="Requests a refresh once ranges that a load left to their pipes have had their time.",
)
def waiting_ranges_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask the last load what it left; Snowflake is not asked, so that no warehouse resumes for it."""
    from datetime import UTC, datetime

    from warehouse.snowflake.settings import SnowflakeSettings

    event = context.instance.get_latest_materialization_event(names.LOAD_HISTORY)
    materialization = event.asset_materialization if event else None
    waiting = materialization.metadata.get(names.RANGES_WAITING) if materialization else None
    if event is None or waiting is None or not waiting.value:
        return dg.SkipReason("no range was left to its pipe")
    age_s = datetime.now(UTC).timestamp() - event.timestamp
    if age_s < SnowflakeSettings().pipe_grace_s:
        return dg.SkipReason(f"{waiting.value} ranges were left to their pipes {age_s:.0f} s ago")
    return dg.RunRequest(run_key=f"waiting-{event.run_id}", partition_key=EVENT_DAYS.get_last_partition_key())


@dg.definitions
def raw_on_snowflake() -> dg.Definitions:
    """Nothing without an account."""
    if _SETTINGS.environment.snowflake is None:
        return dg.Definitions()
    return dg.Definitions(
        assets=[reconciliation],
        asset_checks=[pipes_run],
        jobs=[reconcile_raw_job],
        schedules=[nightly_reconciliation],
        sensors=[waiting_ranges_sensor],
    )
