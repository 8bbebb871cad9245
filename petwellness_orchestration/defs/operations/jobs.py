"""Jobs and when they start: the nightly run, the refresh after a landing, alerts on failure."""

from itertools import takewhile

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.automation import SCHEDULE_STATUS, SENSOR_STATUS
from petwellness_orchestration.defs.landing.partitions import ARRIVAL_DAYS
from petwellness_orchestration.defs.warehouse.partitions import ALL_TAGS, DIRTY_TAGS, EVENT_DAYS
from petwellness_orchestration.embedded_only import present
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import load_settings

_SETTINGS = load_settings()
# The default fleet's whole history takes under two minutes; five hours leave room
# for a day of 50,000 collars, a retry and a person before 8 AM.
NIGHTLY_CRON = "0 3 * * *"
LANDING_INTERVAL_S = 30
# A refresh that failed is asked for again, later and later, until one succeeds.
FIRST_RETRY_S = 60
LAST_RETRY_S = 3600
# Tag of a refresh: the state of the lake that it was asked for.
LANDED_TAG = "petwellness/landed"
# A quarter past, when claims of the hour before are closed; days when the nightly run is through the lake.
ROLL_UP_CRON = "15 * * * *"
COMPACTION_CRON = "30 4 * * *"
RETENTION_CRON = "30 5 * * *"
WEEKLY_CHECKS_CRON = "0 7 * * 0"

# A run starts up for seconds before it counts as started. One that was never
# launched holds up nothing; run monitoring fails it in the end.
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

_FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_ENDED = [dg.DagsterRunStatus.SUCCESS, *_FAILED]
# From so many failures on the wait does not grow.
_MOST_FAILURES = 10

# Its partitions are arrival days, which a run for event days cannot carry.
_COMPACTION = dg.AssetSelection.assets(names.TELEMETRY_COMPACTED)
_COMPACTION_AND_CHECKS = _COMPACTION | dg.AssetSelection.checks_for_assets(names.TELEMETRY_COMPACTED)

# Days leave the warehouse by their own job only.
_RETENTION = dg.AssetSelection.groups("cold")

# About the account, not about the data; on schedules of their own.
_ACCOUNT = dg.AssetSelection.groups(names.ACCOUNT_GROUP)

everything = dg.define_asset_job(
    "everything",
    selection=dg.AssetSelection.all(include_sources=False) - _COMPACTION_AND_CHECKS - _RETENTION - _ACCOUNT,
    partitions_def=EVENT_DAYS,
    tags=DIRTY_TAGS,
    description="The whole graph once: land, load, build, check, train, score, publish. All dirty days in one run.",
)

refresh = dg.define_asset_job(
    "refresh",
    selection=dg.AssetSelection.groups("raw", "stg", "cur", "anl", "ml", "published", names.OPS_GROUP)
    - dg.AssetSelection.assets(
        *present(
            _SETTINGS,
            names.VISIT_RISK_MODEL,
            names.VISIT_RISK_CHAMPION,
            names.VISIT_RISK_SCORES,
            names.PUBLISHED_SCORES,
        )
    ),
    partitions_def=EVENT_DAYS,
    tags=DIRTY_TAGS,
    description="What landed since the last run, into raw and on to the published tables; no training.",
)


roll_up = dg.define_asset_job(
    "roll_up",
    selection=dg.AssetSelection.assets(names.CATALOGUE),
    description="Finished ranges of closed hours into the catalogue.",
)

compact = dg.define_asset_job(
    "compact",
    selection=_COMPACTION_AND_CHECKS,
    partitions_def=ARRIVAL_DAYS,
    description="One arrival day into few ordered files, then the proof that they hold what landed.",
)


retain = dg.define_asset_job(
    "retain",
    selection=_RETENTION,
    partitions_def=EVENT_DAYS,
    tags=DIRTY_TAGS,
    description="Days past their table's limit to cold storage, proved before they are deleted. All due days in one run.",
)


check_everything = dg.define_asset_job(
    "check_everything",
    # The gate is a part of training; compaction proves a day when it is written.
    selection=dg.AssetSelection.all_asset_checks()
    - dg.AssetSelection.checks_for_assets(
        *present(_SETTINGS, names.VISIT_RISK_MODEL, names.TELEMETRY_COMPACTED)
    ),
    tags=ALL_TAGS,
    description="Every check over every day; nothing is built. Nightly checks look at the days that a build rebuilt.",
)


@dg.schedule(
    job=roll_up,
    cron_schedule=ROLL_UP_CRON,
    default_status=SCHEDULE_STATUS,
    description="Every hour, once the last one is closed.",
)
def hourly_roll_up(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run for the hours that are closed."""
    return dg.RunRequest(run_key=f"roll_up-{context.scheduled_execution_time:%Y-%m-%dT%H}")


@dg.schedule(
    job=compact,
    cron_schedule=COMPACTION_CRON,
    execution_timezone=_SETTINGS.operations.timezone,
    default_status=SCHEDULE_STATUS,
    description="Every night: closed arrival days that wait, because of late ranges or redactions, too.",
)
def nightly_compaction(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
    """One run for each closed day whose snapshot lacks something."""
    from datetime import UTC

    from petwellness_orchestration.compacting import waiting

    now = context.scheduled_execution_time.astimezone(UTC).replace(tzinfo=None)
    found = waiting(load_settings(), now)
    if not found:
        return dg.SkipReason("no closed arrival day waits")
    return [
        dg.RunRequest(run_key=f"compact-{w.day}-{now:%Y-%m-%d}", partition_key=w.day.isoformat())
        for w in found
    ]


@dg.schedule(
    job=retain,
    cron_schedule=RETENTION_CRON,
    execution_timezone=_SETTINGS.operations.timezone,
    default_status=SCHEDULE_STATUS,
    description="Every night after the nightly run: days past their table's limit.",
)
def nightly_retention(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run for every day that is due by then."""
    day = latest_ended_day(context.scheduled_execution_time.timestamp())
    return dg.RunRequest(run_key=f"retain-{day}", partition_key=day)


weekly_checks = dg.ScheduleDefinition(
    name="weekly_checks",
    job=check_everything,
    cron_schedule=WEEKLY_CHECKS_CRON,
    execution_timezone=_SETTINGS.operations.timezone,
    default_status=SCHEDULE_STATUS,
    description="Every Sunday after the nightly runs: what a change by hand or a failing disk did to older days.",
)


@dg.schedule(
    job=everything,
    cron_schedule=NIGHTLY_CRON,
    execution_timezone=_SETTINGS.operations.timezone,
    default_status=SCHEDULE_STATUS,
    description="Every night, so that data is ready by 8 AM local time.",
)
def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """One run for the day that has ended, and every day that became dirty."""
    day = latest_ended_day(context.scheduled_execution_time.timestamp())
    return dg.RunRequest(run_key=f"nightly-{day}", partition_key=day)


@dg.sensor(
    job=refresh,
    minimum_interval_seconds=LANDING_INTERVAL_S,
    default_status=SENSOR_STATUS,
    description="Requests a refresh until what has landed is refreshed; one at a time.",
)
def landing_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Compare what has landed, redactions and quarantined rows with what a refresh has last succeeded for.

    The cursor is that state. It moves when the refresh has succeeded: a run that was asked for may fail, or be killed.
    """
    from datetime import UTC, datetime, timedelta

    from lake.catalogue import landed_fingerprint
    from lake.quarantine import count_quarantine
    from lake.redactions import count_redactions

    settings = load_settings()
    store = open_lake(settings)
    landed = landed_fingerprint(store)
    if landed is None:
        return dg.SkipReason("nothing has landed yet")
    state = f"{landed}-{count_redactions(store)}-{count_quarantine(store)}"
    if state == context.cursor:
        return dg.SkipReason("nothing new has landed")
    asked = context.instance.get_run_records(
        dg.RunsFilter(job_name=refresh.name, tags={LANDED_TAG: state}), ascending=False
    )
    if any(record.dagster_run.status is dg.DagsterRunStatus.SUCCESS for record in asked):
        context.update_cursor(state)
        return dg.SkipReason("what has landed is refreshed")
    now = datetime.now(UTC)
    # No run takes longer, so an older one holds up nothing, whatever its status says.
    since = now - timedelta(hours=settings.operations.max_run_hours)
    if context.instance.get_run_records(dg.RunsFilter(statuses=_UNDER_WAY, created_after=since), limit=1):
        return dg.SkipReason("a run is under way; what landed waits for the next tick")
    ended = context.instance.get_run_records(
        dg.RunsFilter(job_name=refresh.name, statuses=_ENDED), limit=_MOST_FAILURES, ascending=False
    )
    failed = [*takewhile(lambda record: record.dagster_run.status in _FAILED, ended)]
    if failed:
        wait_s = retry_wait_s(len(failed))
        again_at = datetime.fromtimestamp(failed[0].end_time or 0.0, UTC) + timedelta(seconds=wait_s)
        if now < again_at:
            return dg.SkipReason(
                f"{len(failed)} refreshes in a row failed; the next is at {again_at:%H:%M:%S} UTC"
            )
    return dg.RunRequest(
        run_key=f"{state}-{len(asked)}",
        partition_key=EVENT_DAYS.get_last_partition_key(),
        tags={LANDED_TAG: state},
    )


def retry_wait_s(failures: int) -> int:
    """How long after the last of so many failures in a row the next attempt is."""
    return min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** (failures - 1))


def latest_ended_day(timestamp_s: float) -> str:
    """The last UTC day that has ended at a Unix time, as a partition key."""
    from datetime import UTC, datetime, timedelta

    return (datetime.fromtimestamp(timestamp_s, UTC) - timedelta(days=1)).date().isoformat()


@dg.run_failure_sensor(
    name="failure_alert",
    default_status=SENSOR_STATUS,
    monitor_all_code_locations=True,
    description="Says which run failed and why: to the log, and to a webhook where one is set.",
)
def failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Alert on a failed run; a webhook that does not answer raises, so that the tick shows it."""
    from petwellness_orchestration.alerts import failure_message, post_webhook

    message = failure_message(
        context.dagster_run.job_name, context.dagster_run.run_id, context.failure_event.message or ""
    )
    context.log.error(message)
    url = load_settings().operations.alert_webhook_url
    if url:
        post_webhook(url, message)
