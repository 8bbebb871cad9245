"""The history of builds as an asset, where no published copy stands for all tables: on Snowflake."""

import dagster as dg

from petwellness_orchestration import names
from petwellness_orchestration.defs.warehouse.assets import model_keys
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import load_settings


@dg.asset(
    key=names.BUILDS,
    deps=model_keys("stg", "cur", "anl", "ml"),
    group_name=names.ACCOUNT_GROUP,
    kinds={"snowflake", "table"},
    owners=[names.DATA_OWNER],
    description="One row per build of the warehouse: when, how long, how many days, what went wrong first.",
)
def builds(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """What the newest build is known for; the build itself wrote it."""
    from petwellness_orchestration.observing import observe, open_ops

    with open_ops(platform, names.BUILDS.to_user_string(), context.run_id) as session:
        newest = observe(session)
    if newest is None:
        return dg.MaterializeResult(metadata={"status": "not applicable", "reason": "nothing was built yet"})
    return dg.MaterializeResult(
        metadata={
            "build": newest.run_id,
            "succeeded": newest.succeeded,
            "models": len(newest.times),
            "seconds_by_model": {one.table_name: round(one.duration_s, 2) for one in newest.times},
            "failing_tests": {test: ", ".join(statuses) for test, statuses in newest.failing_tests.items()},
        }
    )


@dg.definitions
def definitions() -> dg.Definitions:
    """Nothing on the embedded warehouse: there the published copy stands for all tables."""
    if load_settings().environment.snowflake is None:
        return dg.Definitions()
    return dg.Definitions(assets=[builds])
