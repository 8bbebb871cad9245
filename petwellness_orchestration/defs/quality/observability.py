"""Checks of the warehouse's own behaviour, from the kept history: volumes, columns, run times, freshness.

All four in one step, on the asset that stands for all tables: the published copy, and
on Snowflake, where there is none, the history itself. They warn: each says that a
person should look, none that data are wrong.
"""

from collections.abc import Iterator, Sequence

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.partitions import looks_at_every_day
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings

# Rows named in a check's metadata; the tables of schema ops hold the rest.
EXAMPLES = 20


OBSERVED = names.PUBLISHED_TABLES if load_settings().environment.snowflake is None else names.BUILDS


def _spec(name: str, description: str) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(name, asset=OBSERVED, description=description)


VOLUMES = _spec(
    "volumes_are_usual", "The last whole days have about as many rows as the same kind of day before."
)
COLUMNS = _spec("columns_are_unchanged", "No column came, went or changed its type with the last build.")
TIMES = _spec("models_take_their_usual_time", "No model took much longer than in comparable builds.")
FRESHNESS = _spec("tables_are_fresh", "Every daily table reaches the last whole day of the data's own time.")
SPECS = (VOLUMES, COLUMNS, TIMES, FRESHNESS)


@dg.multi_asset_check(specs=SPECS, name="observe_warehouse", can_subset=True, pool=names.WAREHOUSE_POOL)
def observe_warehouse(
    context: dg.AssetCheckExecutionContext, platform: PlatformResource
) -> Iterator[dg.AssetCheckResult]:
    """The build of this run, or the newest one when this run built nothing."""
    asked = {key.name for key in context.selected_asset_check_keys}
    found = results(platform, context.run.run_id, builds=not looks_at_every_day(context.run))
    yield from (result for result in found if result.check_name in asked)


def results(platform: PlatformResource, run_id: str, builds: bool = True) -> Iterator[dg.AssetCheckResult]:
    """All four results on the build of a run, or on the newest where it has none; one of checks alone never has."""
    from petwellness_orchestration.defs.warehouse.dbt_run import output_folder
    from petwellness_orchestration.observing import observe, open_ops

    settings = platform.settings()
    has_built = builds and output_folder(settings.state.home, run_id).exists()
    with open_ops(platform, OBSERVED.to_user_string(), run_id) as session:
        seen = observe(session, run_id if has_built else None)
    if seen is None:
        reason = (
            "this build is not in ops.builds; the run's log says why"
            if has_built
            else "nothing was built yet"
        )
        for spec in SPECS:
            yield dg.AssetCheckResult(
                check_name=spec.name,
                asset_key=spec.asset_key,
                passed=not has_built,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"reason": reason, **({} if has_built else {"status": "not applicable"})},
            )
        return
    judged = [one for one in seen.volumes if one.usual is not None]
    yield _result(
        VOLUMES,
        [str(one) for one in judged if one.is_anomaly],
        len(judged),
        "days of tables with an unusual number of rows",
        {
            f"{one.table_name} {one.event_date}": f"{one.row_count} ({one.usual:g} ± {one.allowed:g})"
            for one in judged
        },
    )
    yield _result(COLUMNS, seen.column_changes, None, "columns changed", {})
    timed = [one for one in seen.times if one.usual_s is not None]
    slowest = sorted(seen.times, key=lambda one: -one.duration_s)[:EXAMPLES]
    yield _result(
        TIMES,
        [str(one) for one in timed if one.is_slow],
        len(timed),
        "models took much longer than usual",
        {
            **{one.table_name: f"{one.duration_s:.2f} s" for one in slowest},
            **{f"test {test}": ", ".join(statuses) for test, statuses in seen.failing_tests.items()},
        },
    )
    fresh = [one for one in seen.freshness if one.is_judged]
    yield _result(
        FRESHNESS,
        [str(one) for one in fresh if one.is_stale],
        len(fresh),
        "tables are behind",
        {one.table_name: f"{one.newest} ({one.days_late} days late)" for one in seen.freshness},
    )


def _result(
    spec: dg.AssetCheckSpec, found: Sequence[str], judged: int | None, what: str, table: dict[str, str]
) -> dg.AssetCheckResult:
    """`judged` None: there is always something to judge; 0: the history is too short, not applicable."""
    return dg.AssetCheckResult(
        check_name=spec.name,
        asset_key=spec.asset_key,
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "reason": "not enough history" if judged == 0 else f"{len(found)} {what}",
            **({"status": "not applicable"} if judged == 0 else {}),
            **({"judged": judged} if judged else {}),
            "found": dg.MetadataValue.json(list(found[:EXAMPLES])),
            **({"seen": dg.MetadataValue.json(table)} if table else {}),
        },
    )
