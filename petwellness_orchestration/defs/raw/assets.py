"""Raw tables by ledger and their reconciliation with the lake. Loading itself is `warehouse`."""

from collections.abc import Iterator

import dagster as dg

from contracts.registry import FEEDS, RECORD_FEED_NAMES
from petwellness_orchestration import names
from petwellness_orchestration.resources import PlatformResource


def _spec(key: dg.AssetKey, deps: list[dg.AssetKey], description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        deps=deps,
        group_name="raw",
        kinds={"duckdb", "table"},
        owners=[names.DATA_OWNER],
        description=description,
    )


@dg.multi_asset(
    name="raw_loads",
    specs=[
        *(
            _spec(
                names.raw_key(feed),
                [names.landing_key(feed), names.REDACTIONS, names.QUARANTINE],
                f"One row per landed record of {feed}, as it arrived, with its envelope.",
            )
            for feed in FEEDS
        ),
        _spec(
            names.EXTRACTS,
            [names.landing_key(feed) for feed in RECORD_FEED_NAMES],
            "One row per loaded extract; only a complete one states what is absent.",
        ),
        _spec(
            names.LOAD_HISTORY,
            [*(names.landing_key(feed) for feed in FEEDS), names.REDACTIONS, names.QUARANTINE],
            "One row per loaded range (stream, partition, start, end): the load ledger.",
        ),
    ],
    pool=names.WAREHOUSE_POOL,
)
def raw_loads(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> Iterator[dg.MaterializeResult]:
    """Load every landed range that the ledger does not hold; take out what is redacted or quarantined since."""
    from petwellness_orchestration.loading import load

    loaded = load(platform, context.run_id, context.log.info)
    report, totals = loaded.report, loaded.totals
    for feed in FEEDS:
        yield dg.MaterializeResult(
            names.raw_key(feed),
            metadata={"rows_loaded": report.rows_by_feed.get(feed, 0), "dagster/row_count": totals[feed]},
        )
    yield dg.MaterializeResult(names.EXTRACTS, metadata={"dagster/row_count": totals["extracts"]})
    yield dg.MaterializeResult(
        names.LOAD_HISTORY,
        metadata={
            "dagster/row_count": totals["load_history"],
            "ranges_loaded": report.ranges,
            "event_days_touched": len(report.event_dates),
            "load_seq": report.load_seq,
            "redactions_applied": report.redactions,
            "redacted_rows_removed": report.removed_rows,
            **loaded.more,
        },
    )


@dg.asset(
    key=names.LAKE_FILES,
    deps=[names.CATALOGUE, names.TELEMETRY_COMPACTED],
    group_name="raw",
    kinds={"duckdb", "table"},
    owners=[names.DATA_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="One row per Parquet file of the lake, landed or compacted: range, times, rows, bytes, compression.",
)
def lake_files(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Bring the table of files up to the lake."""
    from warehouse.duckdb.lake_files import refresh_lake_files

    store = platform.store()
    with platform.warehouse() as con:
        report = refresh_lake_files(con, store, context.log.info)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": report.landing_files + report.compacted_files,
            "landing_files": report.landing_files,
            "compacted_files": report.compacted_files,
            "files_added": report.added,
        }
    )


@dg.asset_check(
    asset=names.LOAD_HISTORY,
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="Claims, manifests, ledger and raw tables tell the same of every range; each offset once.",
)
def lake_and_raw_reconcile(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """The law of the landing protocol over every range that no build has taken up yet, and every claim's place."""
    from petwellness_orchestration.loading import reconcile_raw

    reconciled = reconcile_raw(platform, context.run.run_id)
    result = reconciled.result
    return dg.AssetCheckResult(
        passed=result.passed,
        metadata={
            "claims": result.claims,
            "vouched_for_before": reconciled.vouched,
            "manifests": result.manifests,
            "ledger_ranges": result.ledger_ranges,
            "raw_rows": result.raw_rows,
            "redacted_rows": result.redacted_rows,
            "pending_ranges": result.pending,
            "findings": len(result.findings),
            "first_findings": dg.MetadataValue.json([str(f) for f in result.findings[:20]]),
        },
    )


@dg.asset_check(
    asset=names.LOAD_HISTORY,
    blocking=True,
    pool=names.WAREHOUSE_POOL,
    description="No row that the quarantine covers is in raw.",
)
def nothing_quarantined_is_used(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> dg.AssetCheckResult:
    """The ledger's rows, looked for in raw; an entry that came after the load waits for the next one."""
    from petwellness_orchestration.quarantining import find_quarantined

    found = find_quarantined(platform, context.run.run_id)
    return dg.AssetCheckResult(
        passed=not found.rows,
        metadata={
            "entries_in_force": found.in_force,
            "entries_to_apply": found.to_apply,
            "rows": found.rows,
            "reason": f"{found.rows:,} quarantined rows are in raw; `petwellness rebuild --yes` takes them out",
        },
    )


@dg.asset_check(
    asset=names.LOAD_HISTORY,
    blocking=True,
    description="No source has more rejects than are allowed, by source and decoder. One without history stops the"
    " build.",
)
def rejects_are_few(platform: PlatformResource) -> dg.AssetCheckResult:
    """Everything has landed and stays; nothing is built on what may be a misread half of a vendor."""
    from lake.landing import list_manifests
    from petwellness_orchestration.arrivals import look_at_sources

    store = platform.store()
    sources = look_at_sources(store, list_manifests(store), platform.settings())
    if not sources:
        return dg.AssetCheckResult(
            passed=True, metadata={"status": "not applicable", "reason": "nothing has arrived"}
        )
    bad = sorted(
        (source for source in sources if source.verdict.is_too_much), key=lambda one: not one.verdict.blocks
    )
    blocks = any(source.verdict.blocks for source in bad)
    return dg.AssetCheckResult(
        passed=not bad,
        severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": ", ".join(f"{one.verdict.share:.1%} of {one.verdict.name}" for one in bad),
            "sources": dg.MetadataValue.json([source.text for source in sources]),
            "examples": dg.MetadataValue.json(
                {one.verdict.name: [str(example) for example in one.examples] for one in bad}
            ),
        },
    )


@dg.asset_check(
    asset=names.LOAD_HISTORY,
    description="No events of devices that nobody registered, among what was claimed last.",
)
def devices_are_registered(platform: PlatformResource) -> dg.AssetCheckResult:
    """Such events have no pet and no household; their devices are named, and the run goes on."""
    from lake.landing import list_manifests
    from petwellness_orchestration.arrivals import device_text, look_at_devices

    store = platform.store()
    found = look_at_devices(store, list_manifests(store))
    return dg.AssetCheckResult(
        passed=not found.events,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"reason": device_text(found), "events": found.events, "devices": found.devices},
    )
