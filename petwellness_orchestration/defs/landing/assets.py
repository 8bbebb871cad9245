"""Assets of the lake: what the sources offer, landed by the protocol. The protocol itself is `lake`."""

from collections.abc import Iterator

import dagster as dg

from contracts.registry import RECORD_FEED_NAMES, TELEMETRY_FEED
from petwellness_orchestration import names
from petwellness_orchestration.resources import PlatformResource, RecordSourceResource

collar_events = dg.AssetSpec(
    names.COLLAR_EVENTS,
    group_name="source",
    kinds={"kafka"},
    owners=[names.DATA_OWNER],
    description="Telemetry topics: collar events (contract JSON) and vendors' formats, keyed by device.",
)

clinic_records = dg.AssetSpec(
    names.CLINIC_RECORDS,
    group_name="source",
    owners=[names.DATA_OWNER],
    description="Clinic system and registries: owners, pets, devices, assignments, visits and their documents, appointments,"
    " contacts with owners.",
)


@dg.multi_asset(
    name="record_extracts",
    specs=[
        dg.AssetSpec(
            names.landing_key(feed),
            deps=[names.CLINIC_RECORDS],
            group_name="landing",
            kinds={"parquet"},
            owners=[names.DATA_OWNER],
            description=f"Extracts of {feed} in the lake: change records, one immutable file per extract.",
        )
        for feed in RECORD_FEED_NAMES
    ],
)
def record_extracts(
    context: dg.AssetExecutionContext, platform: PlatformResource, record_source: RecordSourceResource
) -> Iterator[dg.MaterializeResult]:
    """Land what the record sources offer; an extract landed before is left as it is."""
    from lake.extract import land_extract
    from petwellness_orchestration.sources import write_problems

    settings = platform.settings()
    store = platform.store()
    extracts, problems = record_source.read(settings)
    problems_path = write_problems(settings.state.home, problems)
    rows = dict.fromkeys(RECORD_FEED_NAMES, 0)
    files = dict.fromkeys(RECORD_FEED_NAMES, 0)
    for extract in extracts:
        manifest = land_extract(store, **extract.arguments)
        rows[extract.feed] += manifest.rows
        files[extract.feed] += 1
    if problems:
        context.log.warning(f"{len(problems)} source rows did not fit; see {problems_path}")
    for feed in RECORD_FEED_NAMES:
        yield dg.MaterializeResult(
            names.landing_key(feed),
            metadata={
                "rows": rows[feed],
                "files": files[feed],
                "source_problems": len(problems),
                "problems_file": dg.MetadataValue.path(str(problems_path)),
            },
        )


@dg.asset(
    key=names.CONSENT_SNAPSHOT,
    deps=[names.landing_key(feed) for feed in ("owners", "pets", "device_assignments")],
    group_name="landing",
    kinds={"json"},
    owners=[names.DATA_OWNER],
    description="Devices whose household opted out of analytics, with from and to; named in every claim.",
)
def consent_snapshot(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Build the snapshot of opted-out devices; what landed before a refusal was known enters the ledger."""
    from petwellness_orchestration.erasing import take_consent_snapshot

    return dg.MaterializeResult(
        metadata=take_consent_snapshot(platform.settings(), platform.store(), context.log.info)
    )


@dg.asset(
    key=names.REDACTIONS,
    deps=[names.CONSENT_SNAPSHOT],
    group_name="landing",
    kinds={"parquet"},
    owners=[names.DATA_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="Late opt-outs and erasures: landed objects without the redacted rows, originals deleted, audited.",
)
def redactions(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Delete originals of redacted rows, dead letters past their retention, old published files."""
    from petwellness_orchestration.erasing import purge_everything

    return dg.MaterializeResult(
        metadata=purge_everything(platform.settings(), platform.store(), context.log.info)
    )


@dg.asset(
    key=names.QUARANTINE,
    group_name="landing",
    kinds={"json"},
    owners=[names.DATA_OWNER],
    description="What landed and must not be used, as people entered it: rows and ranges, with reason, person and time.",
)
def quarantine(platform: PlatformResource) -> dg.MaterializeResult:
    """Show the ledger; entries come from `petwellness quarantine` and `petwellness claims`."""
    from petwellness_orchestration.quarantining import ledger_metadata

    return dg.MaterializeResult(metadata=ledger_metadata(platform.store()))


@dg.asset(
    key=names.landing_key(TELEMETRY_FEED),
    deps=[names.COLLAR_EVENTS, names.CONSENT_SNAPSHOT],
    group_name="landing",
    kinds={"kafka", "parquet"},
    owners=[names.DATA_OWNER],
    description="Telemetry ranges in the lake: one immutable Parquet file per claimed range of offsets.",
)
def telemetry_landing(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Drain the topics to the present through the landing protocol."""
    from petwellness_orchestration.collecting import drain_telemetry

    return dg.MaterializeResult(
        metadata=drain_telemetry(platform.settings(), platform.store(), context.log.info)
    )
