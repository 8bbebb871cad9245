"""What Snowflake cost and who read personal data, as assets: where the environment has an account, and nowhere else.

What they read and write is `governance.account_usage`.
"""

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.automation import SCHEDULE_STATUS
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings

_SETTINGS = load_settings()

# Yesterday's last hours and today: account usage lags by hours, and a day that runs away is told on the same day.
DAYS_REPORTED = 2
COSTS_CRON = "20 * * * *"
# An hour after the day before is whole in account usage (governance.account_usage.access_audit.LATEST).
AUDIT_CRON = "0 4 * * *"

ACCESS_DAYS = dg.DailyPartitionsDefinition(start_date=_SETTINGS.operations.first_arrival_date.isoformat())


@dg.asset(
    key=names.COSTS,
    group_name=names.ACCOUNT_GROUP,
    kinds={"snowflake"},
    owners=[names.DATA_OWNER],
    description="Credits of today and yesterday by warehouse, asset and node, against the budget of a day.",
)
def costs(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Report, and tell of a day that comes near its budget or exceeds it, each level once."""
    from governance.account_usage.budgets import untold
    from governance.account_usage.costs import asset_name, totals
    from lake.landing import utc_now
    from petwellness_orchestration.account_usage import (
        budget_verdicts,
        operations_session,
        read_costs,
        told_levels,
    )
    from petwellness_orchestration.alerts import post_webhook

    settings = platform.settings()
    with operations_session(settings, names.COSTS.to_user_string(), context.run_id) as con:
        report = read_costs(settings, con, utc_now().date(), DAYS_REPORTED)
    verdicts = budget_verdicts(settings, report)
    told = told_levels(_last_metadata(context), [verdict.day for verdict in verdicts])
    for verdict in untold(verdicts, told):
        context.log.warning(str(verdict))
        if settings.operations.alert_webhook_url:
            # One that is not delivered fails the run, which is told by other means, and is tried again by the next.
            post_webhook(settings.operations.alert_webhook_url, str(verdict))
        told[verdict.day] = verdict.level
    price = settings.costs.credit_dollars
    return dg.MaterializeResult(
        metadata={
            "told": {day.isoformat(): int(level) for day, level in told.items()},
            "dollars_by_day": {day.isoformat(): float(dollars) for day, dollars in report.by_day().items()},
            "dollars_by_asset": {
                total.name: float(total.credits * price) for total in totals(report.lines, asset_name)
            },
        }
    )


def _last_metadata(context: dg.AssetExecutionContext) -> dict[str, object]:
    event = context.instance.get_latest_materialization_event(names.COSTS)
    materialization = event.asset_materialization if event else None
    return {key: value.value for key, value in materialization.metadata.items()} if materialization else {}


@dg.asset(
    key=names.ACCESS_AUDIT,
    group_name=names.ACCOUNT_GROUP,
    kinds={"snowflake"},
    owners=[names.DATA_OWNER],
    partitions_def=ACCESS_DAYS,
    description="One row per statement and column with personal data that it read, by UTC day.",
)
def access_audit(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Write one day of the audit anew."""
    from datetime import date

    from lake.landing import utc_now
    from petwellness_orchestration.account_usage import operations_session, write_audit
    from petwellness_orchestration.defs.warehouse.manifest import read_manifest

    settings = platform.settings()
    with operations_session(settings, names.ACCESS_AUDIT.to_user_string(), context.run_id) as con:
        rows = write_audit(
            settings, con, read_manifest(), date.fromisoformat(context.partition_key), utc_now()
        )
    return dg.MaterializeResult(metadata={"dagster/partition_row_count": rows})


report_costs = dg.define_asset_job(
    "report_costs",
    selection=dg.AssetSelection.assets(names.COSTS),
    description="Credits of today and yesterday against the budget; tells of a day that nears or exceeds it.",
)

audit_access = dg.define_asset_job(
    "audit_access",
    selection=dg.AssetSelection.assets(names.ACCESS_AUDIT),
    partitions_def=ACCESS_DAYS,
    description="Who read personal data on one UTC day.",
)

hourly_costs = dg.ScheduleDefinition(
    name="hourly_costs",
    job=report_costs,
    cron_schedule=COSTS_CRON,
    default_status=SCHEDULE_STATUS,
    description="Every hour: a day that runs away is told as soon as account usage has it.",
)


@dg.schedule(
    job=audit_access,
    cron_schedule=AUDIT_CRON,
    execution_timezone="UTC",
    default_status=SCHEDULE_STATUS,
    description="Every morning (UTC): the day that is whole in account usage by then.",
)
def nightly_access_audit(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run for the last whole day."""
    from datetime import UTC

    from governance.account_usage.access_audit import last_whole_day

    now = context.scheduled_execution_time.astimezone(UTC).replace(tzinfo=None)
    day = last_whole_day(now).isoformat()
    return dg.RunRequest(run_key=f"access-{day}", partition_key=day)


@dg.definitions
def account_usage() -> dg.Definitions:
    """Nothing without an account: DuckDB has neither credits nor a history of access."""
    if _SETTINGS.environment.snowflake is None:
        return dg.Definitions()
    return dg.Definitions(
        assets=[costs, access_audit],
        jobs=[report_costs, audit_access],
        schedules=[hourly_costs, nightly_access_audit],
    )
