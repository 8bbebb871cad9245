"""Settings of training, gate and registry. What a model is made of lives in `training`.

Environment prefix PETWELLNESS_ML_, for example PETWELLNESS_ML_MARGIN=0.1.
"""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

VISIT_RISK_FEATURES = (
    "steps_24h",
    "steps_delta_24h",
    "steps_mean_7d",
    "steps_delta_7d",
    "licks_24h",
    "lick_rate_24h",
    "licks_delta_7d",
    "pulse_mean_24h",
    "pulse_delta_7d",
    "body_temp_mean_24h",
    "rest_minutes_24h",
    "night_steps",
    "battery_min_24h",
    "worn_minutes_24h",
    "coverage_24h",
    "days_since_last_visit",
    "unplanned_visits_365d",
    "weight_trend_30d",
    "age_years",
)


class MlSettings(BaseSettings):
    """How the visit risk model is trained, judged and stored."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_ML_", frozen=True)

    registry_folder: Path = Path(".petwellness/ml")
    """Holds `mlflow.db` and `artifacts/` of the local registry; unused when `registry_uri` is set."""

    registry_uri: str = ""
    """An MLflow tracking server or database; empty means the local registry in `registry_folder`."""

    model_name: str = Field(default="visit-risk-7d", min_length=1)

    features: tuple[str, ...] = Field(default=VISIT_RISK_FEATURES, min_length=1)
    """What the model is trained on, at the newest version of each. A list and not whatever the warehouse
    holds: a new feature is a choice of the model's, and hundreds of rows do not carry fifty columns."""

    horizon_days: int = Field(default=7, ge=1)
    """The label looks at visits in (end_ts, end_ts + horizon_days]."""

    min_positives: int = Field(default=20, ge=2)
    """Fewest labelled pet-days followed by an unplanned visit; below it the model is not applicable."""

    min_positive_households: int = Field(default=8, ge=2)
    """Fewest households among them: days of one pet repeat each other, households do not."""

    margin: float = Field(default=0.05, ge=0, lt=1)
    """By how much the model's average precision must exceed the baseline's to be promoted."""

    folds: int = Field(default=5, ge=2)

    bootstrap_rounds: int = Field(default=200, ge=20)
    """Household resamples behind the lower bound of the model's advantage."""

    seed: int = Field(default=20260601, ge=0)
