"""The visit risk model as assets: train, gate, promote, score, publish. The model is `ml`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from petwellness_orchestration import learning, names
from petwellness_orchestration.resources import PlatformResource
from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    from ml.settings import MlSettings

_FEATURES = dg.AssetKey(["ml", "computed_features"])
# What was known at a time is in the records, not in the histories.
_RECORDS = [dg.AssetKey(["ml", f"{name}_records"]) for name in ("visit", "pet", "owner")]

# An error that blocks nothing: a candidate that fails is not promoted, and the champion goes on scoring.
GATE = dg.AssetCheckSpec(
    "beats_baseline",
    asset=names.VISIT_RISK_MODEL,
    description="Average precision exceeds that of ranking pets by days since their last visit, by the margin.",
)


def ml_settings(settings: PlatformSettings) -> "MlSettings":
    """The model's settings, with its registry inside the platform's state unless set elsewhere."""
    from ml.settings import MlSettings

    chosen = MlSettings()
    if "registry_folder" in chosen.model_fields_set:
        return chosen
    return chosen.model_copy(update={"registry_folder": settings.state.home / "ml"})


@dg.asset(
    key=names.VISIT_RISK_MODEL,
    deps=[_FEATURES, *_RECORDS, names.EXTRACTS, names.LOAD_HISTORY],
    group_name="ml",
    kinds={"scikitlearn", "mlflow"},
    owners=[names.CLINICAL_OWNER],
    check_specs=[GATE],
    pool=names.WAREHOUSE_POOL,
    description="Candidate model: risk of an unplanned visit in the next 7 days, from what was known each day.",
)
def visit_risk_model(context: dg.AssetExecutionContext, platform: PlatformResource) -> Iterator[Any]:
    """Train on what the warehouse knows at the data's present, register, judge against the baseline."""
    from ml.datasets import NotApplicable, read_training_set
    from ml.registry import ModelRegistry
    from ml.training import train

    settings = ml_settings(platform.settings())
    basis = learning.training_basis(platform, context.run_id)
    if basis is None:
        yield from _not_applicable("raw is empty: nothing has been loaded yet")
        return
    with learning.open_warehouse(platform, names.VISIT_RISK_MODEL, context.run_id) as warehouse:
        dataset = read_training_set(
            warehouse,
            as_of=basis.as_of,
            labels_until=basis.labels_until,
            horizon_days=settings.horizon_days,
            features=settings.features,
        )
    result = train(dataset, settings)
    if isinstance(result, NotApplicable):
        yield from _not_applicable(result.reason)
        return
    registered = ModelRegistry(settings).register(result, basis.snapshot)
    yield dg.MaterializeResult(
        names.VISIT_RISK_MODEL,
        metadata={
            "status": "trained",
            "model": f"{registered.name} v{registered.version}",
            "registered_now": registered.created,
            "as_of": f"{basis.as_of:%Y-%m-%d %H:%M:%S}",
            "training_rows": result.n_rows,
            "positives": result.n_positives,
            "data_snapshot": basis.snapshot.hash,
            "data_ranges": len(basis.snapshot.ranges),
            **{name: round(value, 4) for name, value in result.metrics.items()},
            **{f"baseline_{name}": round(value, 4) for name, value in result.baseline_metrics.items()},
        },
    )
    yield dg.AssetCheckResult(
        check_name=GATE.name,
        asset_key=names.VISIT_RISK_MODEL,
        passed=result.gate.passed,
        metadata={
            "reason": result.gate.reason,
            "metric": result.gate.metric,
            "model": result.gate.model_value,
            "baseline": result.gate.baseline_value,
            "margin": result.gate.margin,
        },
    )


def _not_applicable(reason: str) -> Iterator[Any]:
    """Neither trained nor judged: the gate lets the graph go on and says why."""
    metadata = {"status": "not applicable", "reason": reason}
    yield dg.MaterializeResult(names.VISIT_RISK_MODEL, metadata=metadata)
    yield dg.AssetCheckResult(
        check_name=GATE.name, asset_key=names.VISIT_RISK_MODEL, passed=True, metadata=metadata
    )


@dg.asset(
    key=names.VISIT_RISK_CHAMPION,
    deps=[names.VISIT_RISK_MODEL],
    group_name="ml",
    kinds={"mlflow"},
    owners=[names.CLINICAL_OWNER],
    description="The registry's champion: the newest candidate that passed its gate.",
)
def visit_risk_champion(
    context: dg.AssetExecutionContext, platform: PlatformResource
) -> dg.MaterializeResult:
    """Promote the newest candidate that passed its gate; one that failed leaves the champion as it is."""
    from ml.registry import ModelRegistry

    registry = ModelRegistry(ml_settings(platform.settings()))
    version = registry.promote_newest_passed()
    if version is None:
        reason = "no candidate has passed its gate yet"
        return dg.MaterializeResult(metadata={"status": "not applicable", "reason": reason})
    return dg.MaterializeResult(metadata={"status": "promoted", "version": version})


@dg.asset(
    key=names.VISIT_RISK_SCORES,
    deps=[names.VISIT_RISK_CHAMPION, _FEATURES],
    group_name="anl",
    kinds={"duckdb", "table"},
    owners=[names.CLINICAL_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="One row per pet and day: the champion's risk of an unplanned visit in the next 7 days.",
)
def visit_risk_scores(context: dg.AssetExecutionContext, platform: PlatformResource) -> dg.MaterializeResult:
    """Score every day that has features, so that all scores are the champion's."""
    from ml.datasets import read_feature_ends
    from ml.registry import ModelRegistry
    from ml.scoring import SCORES_SCHEMA, score_days, write_scores

    champion = ModelRegistry(ml_settings(platform.settings())).load_champion()
    with learning.open_warehouse(platform, names.VISIT_RISK_SCORES, context.run_id) as warehouse:
        if champion is None:
            write_scores(warehouse, SCORES_SCHEMA.empty_table(), [])
            reason = "no champion in the registry"
            return dg.MaterializeResult(metadata={"status": "not applicable", "reason": reason})
        days = [(end_ts - timedelta(days=1)).date() for end_ts in read_feature_ends(warehouse)]
        scores = score_days(warehouse, champion, days)
        write_scores(warehouse, scores.table, days)
    return dg.MaterializeResult(
        metadata={
            "status": "scored",
            "dagster/row_count": scores.table.num_rows,
            "days": len(days),
            "unscored_pet_days": scores.unscored,
            "model": f"{champion.name} v{champion.version}",
        }
    )


@dg.asset(
    key=names.PUBLISHED_SCORES,
    deps=[names.VISIT_RISK_SCORES, names.PUBLISHED_TABLES],
    group_name="published",
    kinds={"parquet", "duckdb"},
    owners=[names.CLINICAL_OWNER],
    pool=names.WAREHOUSE_POOL,
    description="The scores in the published copy.",
)
def published_visit_risk_scores(platform: PlatformResource) -> dg.MaterializeResult:
    """Add the scores to what readers see."""
    from ml.scoring import SCORES_SCHEMA
    from warehouse.duckdb.publish import PublishedTable, publish

    table = PublishedTable("anl", "visit_risk_scores", tuple(SCORES_SCHEMA.names), day_column="event_date")
    with platform.warehouse() as con:
        report = publish(con, platform.settings().state.published_dir, [table])
    return dg.MaterializeResult(metadata={"version": report.version, "files_written": report.files_written})
