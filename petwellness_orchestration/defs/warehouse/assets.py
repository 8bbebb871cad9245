"""dbt models as assets and the copy that readers see. SQL lives in `dbt_project`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from dagster_dbt import dbt_assets
from dagster_dbt.core.dbt_cli_event import DbtCoreCliEventMessage

from petwellness_orchestration import names
from petwellness_orchestration.building import begin_build, built, data_time
from petwellness_orchestration.defs.warehouse.dbt_run import (
    DbtFailedError,
    DbtRun,
    dbt_variables,
    output_folder,
    run_dbt,
)
from petwellness_orchestration.defs.warehouse.manifest import parsed_project, read_manifest
from petwellness_orchestration.defs.warehouse.partitions import days_to_build
from petwellness_orchestration.defs.warehouse.translator import WarehouseTranslator, is_daily
from petwellness_orchestration.named_days import partition_keys
from petwellness_orchestration.observing import TableCount, build_of, count_tables, days_to_judge
from petwellness_orchestration.published import layer
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import PlatformSettings

TRANSLATOR = WarehouseTranslator()

# The first failures say what is wrong; the run's log has all of them.
FAILURES_SHOWN = 5


def model_keys(*layers: str) -> list[dg.AssetKey]:
    """What dbt builds in these layers."""
    return [
        TRANSLATOR.get_asset_key(props)
        for props in read_manifest()["nodes"].values()
        if props["resource_type"] in ("model", "seed") and layer(props) in layers
    ]


@dbt_assets(
    manifest=read_manifest(),
    name="warehouse",
    dagster_dbt_translator=TRANSLATOR,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=names.WAREHOUSE_POOL,
)
def warehouse(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[Any]:
    """Build the selected models for the days this run is about, then run their selected tests; tests alone, and
    those of a run without partitions, look at every day."""
    yield from _build(context, platform) if context.selected_asset_keys else _test(context, platform)


def _build(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[Any]:
    from lake.landing import utc_now

    settings = platform.settings()
    selected = _selected(context)
    by_day = [_shown(props) for props in selected if is_daily(props)]
    start = begin_build(platform, context.run_id)
    # A run may name days for other steps: Dagster gives none to one that selects nothing by day.
    own_keys = partition_keys(context) if by_day else ()
    days = days_to_build(context.run.tags, own_keys, start.dirty, by_day)
    # What is built of some tables or for some days leaves the rest as dirty as it was.
    is_whole = days == start.dirty and not context.is_subset
    as_of_ts = start.present(is_whole)
    started_at = utc_now()
    context.log.info(f"building {len(selected)} tables, {len(days)} event days: {_span(days)}")
    command = ["build", "--exclude-resource-type", "unit_test", *_selection(context, selected)]
    variables = dbt_variables(days, as_of_ts, context.run_id, start.build_seq, tests_every_day=not by_day)
    run = _run(context, settings, command, variables)
    with built(platform, context.run_id) as after:
        counts = count_tables(after.query, run, read_manifest(), {*days, *days_to_judge(as_of_ts)})
        build = build_of(
            run,
            read_manifest(),
            counts,
            context.run_id,
            started_at,
            days,
            is_full=start.mark == 0 and is_whole,
            as_of_ts=as_of_ts,
        )
        after.keep(build, context.log.error)
        yield from _asset_events(
            context, run.events, counts, [day for day in days if f"{day}" not in own_keys]
        )
        if not run.succeeded:
            raise _failed(run)
        if is_whole:
            after.vouch(start)


def _test(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[Any]:
    """The selected tests on tables as they stand: no build vouches for any day, so they look at every one."""
    settings = platform.settings()
    as_of_ts = data_time(platform, context.run_id)
    tests = sorted(key.name for key in context.selected_asset_check_keys)
    context.log.info(f"testing every day: {len(tests)} tests")
    run = _run(context, settings, ["test", "--select", *tests], dbt_variables(None, as_of_ts, context.run_id))
    yield from _asset_events(context, run.events, {}, ())
    if not run.succeeded:
        raise _failed(run)


def _run(
    context: dg.AssetExecutionContext,
    settings: PlatformSettings,
    command: list[str],
    variables: Mapping[str, Any],
) -> DbtRun:
    # A run's manifest is the parsed one: to write it again takes as long as building ten tables.
    run = run_dbt(
        settings,
        [*command, "--no-write-json"],
        variables,
        output_folder(settings.state.home, context.run_id),
        progress=context.log.info,
        project=parsed_project(),
    )
    for failure in run.failures:
        context.log.error(failure)
    return run


def _failed(run: DbtRun) -> DbtFailedError:
    shown = "; ".join(run.failures[:FAILURES_SHOWN])
    return DbtFailedError(f"dbt failed: {run.error or ''} {shown}".strip())


def _selected(context: dg.AssetExecutionContext) -> list[Mapping[str, Any]]:
    """The models and seeds that this run selected."""
    return [
        props
        for props in read_manifest()["nodes"].values()
        if props["resource_type"] in ("model", "seed")
        and TRANSLATOR.get_asset_key(props) in context.selected_asset_keys
    ]


def _shown(props: Mapping[str, Any]) -> str:
    return TRANSLATOR.get_asset_key(props).to_user_string()


def _selection(context: dg.AssetExecutionContext, selected: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arguments that restrict dbt to the assets and checks this run selected; none for all of them. Tests of other
    assets that read a selected one are not run: those assets may be older than it."""
    if not context.is_subset:
        return []
    tests = {key.name for key in context.selected_asset_check_keys}
    chosen = sorted({props["name"] for props in selected} | tests)
    return ["--indirect-selection", "empty", "--select", *chosen]


def _asset_events(
    context: dg.AssetExecutionContext,
    events: Sequence[Mapping[str, Any]],
    counts: Mapping[str, TableCount],
    extra_days: Sequence[date],
) -> Iterator[Any]:
    """dbt's result events as Dagster's, with row counts, and one materialization for each day that is not a partition
    of the run: those get theirs with the output."""
    manifest = read_manifest()
    for event in events:
        message = DbtCoreCliEventMessage(raw_event=dict(event), event_history_metadata={})
        unique_id = event["data"]["node_info"]["unique_id"]
        count = counts.get(unique_id)
        for asset_event in message.to_default_asset_events(manifest, TRANSLATOR, context):
            if count is not None and isinstance(asset_event, dg.Output):
                yield asset_event.with_metadata({**asset_event.metadata, "dagster/row_count": count.rows})
            else:
                yield asset_event
        if count is not None and count.by_day is not None:
            rows_by_day = {day: count.by_day[day] for day in extra_days if count.by_day.get(day)}
            _log_days(context, TRANSLATOR.get_asset_key(manifest["nodes"][unique_id]), rows_by_day)


def _log_days(context: dg.AssetExecutionContext, key: dg.AssetKey, rows_by_day: Mapping[date, int]) -> None:
    for day, rows in rows_by_day.items():
        context.log_event(dg.AssetMaterialization(key, partition=day.isoformat(), metadata={"rows": rows}))


def _span(days: tuple[date, ...]) -> str:
    return f"{days[0]} to {days[-1]}" if days else "none"


@dg.asset(
    key=names.PUBLISHED_TABLES,
    deps=model_keys("cur", "anl", "ml"),
    group_name="published",
    kinds={"parquet", "duckdb"},
    owners=[names.DATA_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="Immutable Parquet of cur, anl and ml without personal data, and a database of views over it.",
)
def published_warehouse_tables(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> dg.MaterializeResult:
    """Write the days whose content changed since the last publication and switch readers to them."""
    from petwellness_orchestration.erasing import scores_to_republish
    from petwellness_orchestration.published import published_tables
    from warehouse.duckdb.publish import publish
    from warehouse.duckdb.raw import set_build_mark
    from warehouse.duckdb.rebuilt import PUBLISHED_MARK, latest_build_seq, rebuilt_since_publication

    folder = platform.settings().state.published_dir
    with platform.warehouse() as con:
        scores = scores_to_republish(con, folder)
        build_seq = latest_build_seq(con)
        rebuilt = {**rebuilt_since_publication(con), **{table.full_name: None for table in scores}}
        tables = [*published_tables(read_manifest()), *scores]
        report = publish(con, folder, tables, context.log.info, rebuilt)
        set_build_mark(con, PUBLISHED_MARK, build_seq)
    return dg.MaterializeResult(
        metadata={
            "version": report.version,
            "tables": report.tables,
            "files": report.files,
            "files_written": report.files_written,
            "days_changed": report.days_changed,
        }
    )
