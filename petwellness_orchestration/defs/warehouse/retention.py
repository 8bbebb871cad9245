"""Days of tables in cold storage, by event day, as assets. The work is `governance.archive`."""

from collections.abc import Iterator

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.manifest import read_manifest
from petwellness_orchestration.defs.warehouse.partitions import EVENT_DAYS, is_about_dirty_days
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.retaining import tiered_tables

TABLES = tiered_tables(read_manifest())
KEYS = {table.full_name: names.cold_key(table.schema, table.name) for table in TABLES}

# Problems named in the check's metadata.
SHOWN = 20


@dg.multi_asset(
    name="cold_days",
    specs=[
        dg.AssetSpec(
            KEYS[table.full_name],
            deps=[dg.AssetKey([table.schema, table.name])],
            group_name="cold",
            kinds={"parquet"},
            owners=[names.DATA_OWNER],
            description=(
                f"Days of {table.full_name} past {table.days} days of the data's present, in Parquet in the lake:"
                " proved there before they are deleted from the warehouse."
            ),
        )
        for table in TABLES
    ],
    partitions_def=EVENT_DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=names.WAREHOUSE_POOL,
)
def cold_days(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> Iterator[dg.MaterializeResult]:
    """Move the days that are due: all of them in a scheduled run, those of its partitions in a backfill."""
    from datetime import date

    from petwellness_orchestration import retaining

    settings, store = platform.settings(), platform.store()
    is_whole = is_about_dirty_days(context.run.tags)
    only = None if is_whole else [date.fromisoformat(key) for key in context.partition_keys]
    with platform.warehouse(store) as con:
        report = retaining.retain(con, settings, store, TABLES, only, context.log.info)
    for table in TABLES:
        key = KEYS[table.full_name]
        for day in report.days.get(table.full_name, []):
            if day.isoformat() not in context.partition_keys:
                context.log_event(dg.AssetMaterialization(key, partition=day.isoformat()))
        yield dg.MaterializeResult(key, metadata=retaining.report_metadata(report, table))


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            "moved_days_are_kept",
            asset=KEYS[table.full_name],
            blocking=True,
            description="Every day that left the warehouse is in the lake, in the files and rows that were proved.",
        )
        for table in TABLES
    ],
    can_subset=True,
    pool=names.WAREHOUSE_POOL,
)
def moved_days_are_kept(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> Iterator[dg.AssetCheckResult]:
    """Statements, names and sizes of everything in cold storage, held against what was moved."""
    from petwellness_orchestration.retaining import cold_problems

    found = cold_problems(platform.settings(), platform.store())
    asked = {key.asset_key for key in context.selected_asset_check_keys}
    for table in (table for table in TABLES if KEYS[table.full_name] in asked):
        problems = found.get(table.full_name, [])
        yield dg.AssetCheckResult(
            passed=not problems,
            check_name="moved_days_are_kept",
            asset_key=KEYS[table.full_name],
            metadata={
                "problems": len(problems),
                "reason": f"{len(problems)} days or files are not as moved; see docs/runbooks/retention.md",
                "first_problems": dg.MetadataValue.json(problems[:SHOWN]),
            },
        )
