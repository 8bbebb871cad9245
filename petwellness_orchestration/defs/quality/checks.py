"""Checks beyond dbt tests: value ranges, heartbeat, and counts across layers.

Those on tables kept by day look at the days that the last build rebuilt, in the job
`check_everything` at every day.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.partitions import looks_at_every_day
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DAILY_ACTIVITY = dg.AssetKey(["anl", "daily_activity"])
TELEMETRY_EVENTS = dg.AssetKey(["anl", "telemetry_events"])
HEARTBEAT_BY_DEVICE = dg.AssetKey(["anl", "device_daily_heartbeat"])
HEARTBEAT_BY_CLINIC = dg.AssetKey(["anl", "clinic_daily_heartbeat"])
DOCUMENTS_TO_REVIEW = dg.AssetKey(["anl", "documents_to_review"])
WELLNESS_ALERTS = dg.AssetKey(["anl", "wellness_alerts"])

# Rows named in a check's metadata; the query there finds the rest.
EXAMPLES = 10


@dg.asset_check(
    asset=DAILY_ACTIVITY,
    pool=names.WAREHOUSE_POOL,
    description="Daily measures lie within what a living animal can show (Great Expectations).",
)
def values_in_range(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Every pet-day's measures against their ranges."""
    from petwellness_orchestration.expectations import DAILY_ACTIVITY_RANGES, Range, validate

    columns = ", ".join(f"cast({column} as double) as {column}" for column in DAILY_ACTIVITY_RANGES)
    with platform.warehouse() as con:
        days = _days_judged(context, con, "anl.daily_activity")
        frame = con.execute(f"select {columns} from anl.daily_activity where {days}").df()
    if frame.empty:
        return not_applicable("no pet has activity on the days that are looked at")
    ranges = [Range(column, low, high) for column, (low, high) in DAILY_ACTIVITY_RANGES.items()]
    results = validate(frame, ranges)
    return dg.AssetCheckResult(
        passed=all(result.passed for result in results),
        metadata={
            "reason": f"{sum(r.outside for r in results)} values lie outside",
            "rows": len(frame),
            **{f"{r.column} outside": r.outside for r in results},
            "not judged (no values)": ", ".join(r.column for r in results if r.judged == 0) or "none",
        },
    )


@dg.asset_check(
    asset=HEARTBEAT_BY_DEVICE,
    pool=names.WAREHOUSE_POOL,
    description="Devices sent at least 80 % of a day's expected heartbeats (Great Expectations).",
)
def device_heartbeat(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Device-days below the ratio are named; they warn and do not stop the run."""
    return _heartbeat(context, platform, "anl.device_daily_heartbeat", "device_id")


@dg.asset_check(
    asset=HEARTBEAT_BY_CLINIC,
    pool=names.WAREHOUSE_POOL,
    description="The devices of a clinic sent at least 80 % of a day's expected heartbeats (Great Expectations).",
)
def clinic_heartbeat(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Clinic-days below the ratio are named; they warn and do not stop the run."""
    return _heartbeat(context, platform, "anl.clinic_daily_heartbeat", "clinic_id")


def _days_judged(context: dg.AssetCheckExecutionContext, con: "DuckDBPyConnection", table: str) -> str:
    """SQL: the event dates of a table that a check in this run looks at."""
    from warehouse.duckdb.rebuilt import in_days, rebuilt_last

    every_day = looks_at_every_day(context.run)
    return in_days("event_date", None if every_day else rebuilt_last(con, table))


def _heartbeat(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource, table: str, key: str
) -> dg.AssetCheckResult:
    from petwellness_orchestration.expectations import Range, validate

    min_ratio = platform.settings().operations.heartbeat_min_ratio
    with platform.warehouse() as con:
        days = _days_judged(context, con, table)
        frame = con.execute(
            f"select {key}, event_date, heartbeat_ratio from {table}"
            f" where heartbeat_ratio is not null and {days} order by heartbeat_ratio, event_date, {key}"
        ).df()
    if frame.empty:
        return not_applicable("no device of a regular cadence: nothing says how many heartbeats to expect")
    result = validate(frame, [Range("heartbeat_ratio", min_ratio, None)])[0]
    worst = [
        f"{row[0]} {row[1]:%Y-%m-%d} {row[2]:.0%}" for row in frame.head(EXAMPLES).itertuples(index=False)
    ]
    return dg.AssetCheckResult(
        passed=result.passed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": f"{result.outside} of {result.judged} below {min_ratio:.0%}",
            "judged": result.judged,
            "below": result.outside,
            "min_ratio": min_ratio,
            "worst": dg.MetadataValue.json(worst if result.outside else []),
        },
    )


@dg.asset_check(
    asset=DOCUMENTS_TO_REVIEW,
    pool=names.WAREHOUSE_POOL,
    description="No document that OCR is not sure of has waited too long for a person.",
)
def reviews_keep_up(platform: PlatformResource) -> dg.AssetCheckResult:
    """A queue is ordinary, a backlog is not: what waits longer than allowed warns, by the data's present."""
    from warehouse.duckdb.raw import data_time

    allowed = timedelta(days=platform.settings().operations.document_review_days)
    with platform.warehouse() as con:
        if not con.execute("select 1 from cur.visit_documents limit 1").fetchall():
            return not_applicable("no documents")
        present = data_time(con)
        overdue_before = datetime.min if present is None else present - allowed
        [(waiting, overdue, unreadable, oldest)] = con.execute(
            "select count(*), count(*) filter (waiting_since_ts < ?),"
            " count(*) filter (review_reason = 'unreadable'), min(waiting_since_ts) from anl.documents_to_review",
            [overdue_before],
        ).fetchall()
        by_clinic = dict(
            con.execute(
                "select coalesce(clinic_id, 'unknown'), count(*) from anl.documents_to_review"
                " group by all order by count(*) desc, 1"
            ).fetchall()
        )
    return dg.AssetCheckResult(
        passed=overdue == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": f"{overdue} of {waiting} documents have waited more than {allowed.days} days",
            "waiting": waiting,
            "overdue": overdue,
            "unreadable": unreadable,
            "waiting_by_clinic": dg.MetadataValue.json(by_clinic),
            "oldest": str(oldest) if oldest else "none",
        },
    )


@dg.asset_check(
    asset=WELLNESS_ALERTS,
    pool=names.WAREHOUSE_POOL,
    description="No critical wellness alert is open; the metadata counts the open ones by severity and rule.",
)
def no_critical_alert_is_open(platform: PlatformResource) -> dg.AssetCheckResult:
    """Pets in need are news for the clinics and a warning here; the run goes on."""
    with platform.warehouse() as con:
        by_rule = con.execute(
            "select severity, rule, count(*), min(raised_at) from anl.wellness_alerts where is_open"
            " group by severity, rule order by severity, rule"
        ).fetchall()
        critical = con.execute(
            "select pet_id, rule, raised_at, clinic_id from anl.wellness_alerts"
            " where is_open and severity = 'critical' order by raised_at, pet_id limit ?",
            [EXAMPLES],
        ).fetchall()
    open_by_severity = {
        severity: sum(count for of, _, count, _ in by_rule if of == severity)
        for severity in ("critical", "warning", "info")
    }
    return dg.AssetCheckResult(
        passed=open_by_severity["critical"] == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": f"{open_by_severity['critical']} critical alerts are open",
            **{f"open, {severity}": count for severity, count in open_by_severity.items()},
            "by rule": dg.MetadataValue.md(_alerts_table(by_rule)),
            "first critical": dg.MetadataValue.json(
                [
                    f"{pet} {rule} since {raised:%Y-%m-%d %H:%M}, {clinic}"
                    for pet, rule, raised, clinic in critical
                ]
            ),
        },
    )


def _alerts_table(rows: Sequence[tuple[str, str, int, datetime]]) -> str:
    lines = ["| severity | rule | open | oldest since |", "|---|---|---|---|"]
    return "\n".join(
        [
            *lines,
            *(
                f"| {severity} | {rule} | {count} | {oldest:%Y-%m-%d %H:%M} |"
                for severity, rule, count, oldest in rows
            ),
        ]
    )


@dg.asset_check(
    asset=TELEMETRY_EVENTS,
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="Every message is a row, a reject, a drop by consent or a duplicate, from broker to anl.",
)
def layers_add_up(platform: PlatformResource) -> dg.AssetCheckResult:
    """Nothing appears or vanishes between layers unexplained."""
    from warehouse.counts import layer_steps

    with platform.warehouse() as con:
        steps = layer_steps(con)
    return dg.AssetCheckResult(
        passed=all(step.unexplained == 0 for step in steps),
        metadata={
            step.name: dg.MetadataValue.json(
                {
                    "before": step.before,
                    "after": step.after,
                    **step.set_aside,
                    "unexplained": step.unexplained,
                }
            )
            for step in steps
        },
    )


@dg.asset_check(
    asset=names.PUBLISHED_TABLES,
    name="nothing_redacted_is_left",
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="No opted-out or erased event or record is left past its deadline, in lake, warehouse or published"
    " copy, and nothing that several pets claim is undecided then.",
)
def nothing_redacted_is_left(platform: PlatformResource) -> dg.AssetCheckResult:
    """What the redaction ledger covers, looked for in everything that is physically there."""
    from petwellness_orchestration.erasing import find_leftovers

    found = find_leftovers(platform.settings(), platform.store())
    return dg.AssetCheckResult(
        passed=not found.overdue and not found.overdue_spans,
        metadata={
            "redactions": found.redactions,
            "past_deadline": found.past_deadline,
            "places": len(found.overdue),
            "waiting_spans": found.waiting,
            "kept": dg.MetadataValue.json([str(one) for one in found.kept[:EXAMPLES]]),
            "reason": f"{len(found.overdue)} places hold what should be gone, "
            f"{len(found.overdue_spans)} disputed spans are undecided past their deadline",
            "first_places": dg.MetadataValue.json(
                [str(one) for one in [*found.overdue, *found.overdue_spans][:EXAMPLES]]
            ),
        },
    )


@dg.asset_check(
    asset=names.PUBLISHED_TABLES,
    name="no_personal_data",
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="No name, address, phone number, e-mail address, chip or salt in anl, ml, what is published, logs or"
    " Dagster's metadata.",
)
def no_personal_data(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """Looks at what is new since the last time nothing was found; checks alone look at everything."""
    from petwellness_orchestration.privacy import find_personal_data

    report = find_personal_data(platform.settings(), full=looks_at_every_day(context.run))
    return dg.AssetCheckResult(
        passed=not report.findings,
        metadata={
            "people_known": report.owners_known,
            "log_files": report.files,
            "databases": report.databases,
            "reason": f"{len(report.findings)} places hold personal data",
            "first_places": dg.MetadataValue.json([str(one) for one in report.findings[:EXAMPLES]]),
        },
    )


def not_applicable(reason: str) -> dg.AssetCheckResult:
    """Neither passed nor failed: the metadata says so and why; summaries count it apart."""
    return dg.AssetCheckResult(passed=True, metadata={"status": "not applicable", "reason": reason})
