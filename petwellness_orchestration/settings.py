"""One settings object for the whole platform, composed of what `ingestion` and `ml` own.

Environments are an exhaustive map: an unknown name is an error. Nothing here
reads anything but environment variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestion.settings import (
    BrokerSettings,
    CollectorSettings,
    CompactionSettings,
    LakeSettings,
    RetentionSettings,
    StateSettings,
)

PROJECT_ROOT = Path(__file__).resolve().parent.parent
DBT_PROJECT_DIR = PROJECT_ROOT / "dbt_project"


class UnknownEnvironmentError(ValueError):
    """PETWELLNESS_ENVIRONMENT names no environment; the message lists those there are."""


class SourceSettings(BaseSettings):
    """Where records and telemetry come from (`PETWELLNESS_DATA`, `PETWELLNESS_FLEET_SEED`, ...).

    With `data` the real files of that folder are the source and nothing stands
    in for them; without it the simulated fleet is.
    """

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_", frozen=True)

    data: Path | None = Field(default=None, description="Folder of real source files.")
    fleet_seed: int = 7
    fleet_collars: int = Field(default=122, ge=1)
    fleet_households: int = Field(default=100, ge=1)
    fleet_clinics: int = Field(default=6, ge=1)
    fleet_days: int = Field(default=14, ge=1)
    fleet_start: date = date(2026, 6, 1)


class OperationsSettings(BaseSettings):
    """When runs start, where they are kept and who hears of failures (`PETWELLNESS_*`)."""

    # An address that is refused may hold a password: errors do not repeat it.
    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_", frozen=True, hide_input_in_errors=True)

    environment: str = "embedded"
    automation: bool = Field(default=False, description="Schedules and sensors start switched on.")
    timezone: str = Field(default="Europe/Zurich", description="Local time of schedules.")
    first_event_date: date = Field(default=date(2017, 1, 1), description="First daily partition (UTC).")
    first_arrival_date: date = Field(default=date(2026, 1, 1), description="First day anything landed (UTC).")
    alert_webhook_url: str | None = Field(default=None, description="Failures are posted here as JSON.")
    dagster_postgres_url: SecretStr | None = Field(
        default=None,
        description="Where Dagster keeps its runs, postgresql+psycopg2://...; without it SQLite.",
    )
    heartbeat_min_ratio: float = Field(default=0.8, gt=0, le=1)
    document_review_days: int = Field(
        default=3, ge=0, description="How long a document that OCR is not sure of may wait for a person."
    )

    @field_validator("dagster_postgres_url")
    @classmethod
    def _names_its_driver(cls, value: SecretStr | None) -> SecretStr | None:
        # SQLAlchemy would otherwise take one that Dagster's storage does not install.
        if value and not value.get_secret_value().startswith("postgresql+psycopg2://"):
            raise ValueError("give postgresql+psycopg2://user:password@host:port/database")
        return value


@dataclass(frozen=True)
class Environment:
    """What differs between environments besides settings: the dbt target."""

    name: str
    dbt_target: str


ENVIRONMENTS = {"embedded": Environment("embedded", dbt_target="embedded")}


@dataclass(frozen=True)
class PlatformSettings:
    """Everything a command or a run needs to know."""

    environment: Environment
    state: StateSettings
    lake: LakeSettings
    broker: BrokerSettings
    collector: CollectorSettings
    compaction: CompactionSettings
    retention: RetentionSettings
    source: SourceSettings
    operations: OperationsSettings

    @property
    def is_broker_embedded(self) -> bool:
        return not self.broker.bootstrap_servers


def load_settings() -> PlatformSettings:
    """Settings from the environment variables of this process.

    Raises UnknownEnvironmentError, and pydantic's ValidationError naming the
    variable for a value out of range.
    """
    operations = OperationsSettings()
    if operations.environment not in ENVIRONMENTS:
        raise UnknownEnvironmentError(
            f"PETWELLNESS_ENVIRONMENT='{operations.environment}' is not known;"
            f" choose one of: {', '.join(sorted(ENVIRONMENTS))}"
        )
    return PlatformSettings(
        environment=ENVIRONMENTS[operations.environment],
        state=StateSettings(),
        lake=LakeSettings(),
        broker=BrokerSettings(),
        collector=CollectorSettings(),
        compaction=CompactionSettings(),
        retention=RetentionSettings(),
        source=SourceSettings(),
        operations=operations,
    )
