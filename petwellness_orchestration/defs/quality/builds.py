"""The history of builds as an asset, where no published copy stands for all tables: on Snowflake."""

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.assets import model_keys
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings


@dg.asset(
    key=names.BUILDS,
    deps=model_keys("stg", "cur", "anl", "ml"),
    group_name=names.OPS_GROUP,
    kinds={"snowflake", "table"},
    owners=[names.DATA_OWNER],
    description="One row per build of the warehouse: when, how long, how many days, what went wrong first.",
)
def builds(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """What is kept of the newest build, which wrote it itself; what is out of the ordinary in it, the checks say."""
    from petwellness_orchestration.observing import open_ops
    from warehouse.builds.history import kept_build

    with open_ops(platform, names.BUILDS.to_user_string(), context.run_id) as session:
        newest = kept_build(session)
    if newest is None:
        return dg.MaterializeResult(metadata={"status": "not applicable", "reason": "nothing was built yet"})
    return dg.MaterializeResult(
        metadata={
            "build": newest.run_id,
            "succeeded": newest.succeeded,
            "started_at": f"{newest.started_at:%Y-%m-%d %H:%M:%S}",
            "duration_s": round(newest.duration_s, 1),
            "days": newest.day_count,
            **({"error": newest.error} if newest.error else {}),
        }
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """Nothing on the embedded warehouse: there the published copy stands for all tables."""
    if load_settings().environment.snowflake is None:
        return dg.Definitions()
    return dg.Definitions(assets=[builds])
