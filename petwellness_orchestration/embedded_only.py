"""What of the graph is there on the embedded warehouse only, and the graph without it.

Everything that opens the DuckDB file is in its pool (`names.WAREHOUSE_POOL`, held by a test), so the pool says what an
environment on Snowflake cannot have: the published copy (readers read Snowflake itself), cold storage (Snowflake keeps
history cheaply and finds it by time travel), the catalogue of files that DuckDB scans, and the checks that query
DuckDB. What follows is the exception: definitions that ask the environment which warehouse it is.
"""

from __future__ import annotations

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.settings import PlatformSettings

# By name of the definition. Their pool stays: on Snowflake, too, loads and builds never run at once.
ON_BOTH = frozenset(
    {
        "landing__redactions",
        "raw_loads",
        "raw__load_history_lake_and_raw_reconcile",
        "raw__load_history_nothing_quarantined_is_used",
        "raw__load_history_pipes_run",
        "operations__reconciliation",
        "warehouse",
        "ml__visit_risk_model",
        "anl__visit_risk_scores",
        "observe_warehouse",
    }
)

JOBS = frozenset({"retain"})
SCHEDULES = frozenset({"nightly_retention"})

# Keys that selections of jobs name; the others are selected by group.
KEYS = frozenset({names.LAKE_FILES, names.PUBLISHED_SCORES, names.PUBLISHED_TABLES})


def present(settings: PlatformSettings, *keys: dg.AssetKey) -> list[dg.AssetKey]:
    """Those keys that the graph of this environment has."""
    return [key for key in keys if settings.environment.snowflake is None or key not in KEYS]


def for_environment(defs: dg.Definitions, settings: PlatformSettings) -> dg.Definitions:
    """The graph as it is in this environment."""
    if settings.environment.snowflake is None:
        return defs
    kept = dg.Definitions(
        assets=[one for one in defs.assets or () if not _is_embedded_only(one)],
        asset_checks=[one for one in defs.asset_checks or () if not _is_embedded_only(one)],
        jobs=[one for one in defs.jobs or () if one.name not in JOBS],
        schedules=[one for one in defs.schedules or () if one.name not in SCHEDULES],
        sensors=defs.sensors,
        resources=defs.resources,
        executor=defs.executor,
        loggers=defs.loggers,
    )
    return kept.map_asset_specs(func=_of_snowflake)


def _is_embedded_only(definition: object) -> bool:
    if not isinstance(definition, dg.AssetsDefinition) or not definition.is_executable:
        return False
    node = definition.node_def
    return (
        isinstance(node, dg.OpDefinition) and node.pool == names.WAREHOUSE_POOL and node.name not in ON_BOTH
    )


def _of_snowflake(spec: dg.AssetSpec) -> dg.AssetSpec:
    if "duckdb" not in spec.kinds:
        return spec
    return spec.replace_attributes(kinds=spec.kinds - {"duckdb"} | {"snowflake"})
