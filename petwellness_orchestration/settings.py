"""One settings object for the whole platform, composed of what the rooms own.

The environment a process is in is checked here, against the map in
`warehouse.environments` and against the other settings. Nothing here reads
anything but environment variables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.consent import AnalyticsDefault
from contracts.settings import StateSettings
from governance.settings import CostSettings, RetentionSettings
from ingestion.settings import BrokerSettings, CollectorSettings, ConsentSettings, RejectSettings
from lake.settings import CompactionSettings, LakeSettings
from warehouse.environments import (
    ENVIRONMENTS,
    DbtSession,
    Environment,
    EnvironmentSettingError,
    NotOnThisWarehouseError,
    ProductionRefusedError,
    WarehouseKind,
    dbt_session,
    environment_named,
)

if TYPE_CHECKING:
    from contracts.keeping import Jurisdictions

# Where the simulated practices and the open data of the demo are.
DEMO_JURISDICTION = "CH-ZH"

TOPICS_SETTING = "PETWELLNESS_COLLECTOR_TOPICS"
PROJECT_ROOT = Path(__file__).resolve().parent.parent
_WEBHOOK_FORM = "give https://host/path, or http://, without user, blanks and other than ASCII characters"
DBT_PROJECT_DIR = PROJECT_ROOT / "dbt_project"


@cache
def _timezones() -> frozenset[str]:
    """Every IANA name: read from the disk once a process, and settings are read for each run and resource."""
    return frozenset(available_timezones())


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

    environment: str = Field(default="embedded", description="A name of `warehouse.environments`.")
    production: bool = Field(default=False, description="Says that the environment `prod` is meant.")
    developer: str | None = Field(
        default=None,
        pattern="^[a-z][a-z0-9_]*$",
        description="Environment `dev`: whose schema dbt builds into, and whose role it takes.",
    )
    pull_request: int | None = Field(
        default=None, ge=1, description="Environment `ci`: whose schema dbt builds into."
    )
    automation: bool | None = Field(
        default=None,
        description="Schedules and sensors start switched on (None: as the environment says).",
    )
    timezone: str = Field(
        default="Europe/Zurich",
        description="IANA name. Local time of schedules, and of days where no clinic says another.",
    )
    first_event_date: date = Field(default=date(2017, 1, 1), description="First daily partition (UTC).")
    first_arrival_date: date = Field(default=date(2026, 1, 1), description="First day anything landed (UTC).")
    alert_webhook_url: SecretStr | None = Field(
        default=None, description="Failures are posted here as JSON. Its path is a secret."
    )
    dagster_postgres_url: SecretStr | None = Field(
        default=None,
        description="Where Dagster keeps its runs, postgresql+psycopg2://...; without it SQLite.",
    )
    max_run_hours: float = Field(
        default=6.0,
        gt=0,
        description="A run that schedules, sensors or people at the UI started is ended after so long.",
    )
    heartbeat_min_ratio: float = Field(default=0.8, gt=0, le=1)
    document_review_days: int = Field(
        default=3, ge=0, description="How long a document that OCR is not sure of may wait for a person."
    )

    @field_validator("timezone")
    @classmethod
    def _is_a_timezone(cls, value: str) -> str:
        if value not in _timezones():
            raise ValueError(
                f"'{value}' is no IANA time zone: set PETWELLNESS_TIMEZONE to one, as Europe/Zurich"
            )
        return value

    @field_validator("alert_webhook_url")
    @classmethod
    def _can_be_posted_to(cls, value: SecretStr | None) -> SecretStr | None:
        url = value.get_secret_value() if value else ""
        if not url:
            return None
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises for one that is no number
        except ValueError:
            # Its text holds the address.
            raise ValueError(_WEBHOOK_FORM) from None
        printable = url.isascii() and url.isprintable() and " " not in url
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or "@" in parts.netloc
            or not printable
        ):
            raise ValueError(_WEBHOOK_FORM)
        return value

    @field_validator("dagster_postgres_url")
    @classmethod
    def _names_its_driver(cls, value: SecretStr | None) -> SecretStr | None:
        # SQLAlchemy would otherwise take one that Dagster's storage does not install.
        if value and not value.get_secret_value().startswith("postgresql+psycopg2://"):
            raise ValueError("give postgresql+psycopg2://user:password@host:port/database")
        return value


@dataclass(frozen=True)
class PlatformSettings:
    """Everything a command or a run needs to know."""

    environment: Environment
    state: StateSettings
    lake: LakeSettings
    broker: BrokerSettings
    collector: CollectorSettings
    rejects: RejectSettings
    consent: ConsentSettings
    compaction: CompactionSettings
    retention: RetentionSettings
    costs: CostSettings
    source: SourceSettings
    operations: OperationsSettings

    @property
    def is_broker_embedded(self) -> bool:
        return not self.broker.bootstrap_servers

    @property
    def warehouse_path(self) -> Path:
        """The embedded warehouse's file.

        Raises NotOnThisWarehouseError in an environment on Snowflake: a DuckDB file beside it would be filled, and
        read, by nobody else.
        """
        if self.environment.warehouse is not WarehouseKind.DUCKDB:
            raise NotOnThisWarehouseError(
                f"this works on the embedded warehouse only, and the warehouse of '{self.environment.name}' is"
                f" {self.environment.warehouse}: docs/snowflake.md says what there is on it"
            )
        return self.state.warehouse_path

    @property
    def topics(self) -> tuple[str, ...]:
        """What the collector subscribes to: the setting, or its default.

        The default of an embedded broker that real files are replayed into has their topics as well: nobody else
        publishes there.
        """
        asked = self.collector.topics
        if (
            "topics" in self.collector.model_fields_set
            or self.source.data is None
            or not self.is_broker_embedded
        ):
            return asked
        return tuple(dict.fromkeys((*asked, *replayed_topics())))

    @property
    def has_automation(self) -> bool:
        """Whether schedules and sensors start switched on."""
        asked = self.operations.automation
        return self.environment.has_automation if asked is None else asked

    @property
    def analytics_default(self) -> AnalyticsDefault:
        """What holds for analytics while an owner has not said it.

        Raises ProductionRefusedError in production, where somebody has to have decided it.
        """
        asked = self.consent.analytics_default
        if asked is None and self.environment.is_production:
            raise ProductionRefusedError(
                "nobody has decided whether production analyses what collars of a household send that has not said"
                " yes or no to it: set PETWELLNESS_CONSENT_ANALYTICS_DEFAULT=allow or =refuse"
            )
        return asked or AnalyticsDefault.ALLOW

    @property
    def jurisdictions(self) -> Jurisdictions:
        """Whose terms hold for records that a practice must keep.

        Raises ProductionRefusedError in production, where somebody has to have decided it, and
        EnvironmentSettingError for a jurisdiction without terms.
        """
        from contracts.keeping import Jurisdictions, UnknownJurisdictionError

        asked = self.retention.jurisdiction
        if asked is None and self.environment.is_production:
            raise ProductionRefusedError(
                "nobody has decided how long production keeps records that a practice must keep when a household is"
                " erased: set PETWELLNESS_RETENTION_JURISDICTION (and PETWELLNESS_RETENTION_CLINIC_JURISDICTIONS for"
                " clinics elsewhere) to names of contracts/keeping.py"
            )
        try:
            return Jurisdictions(asked or DEMO_JURISDICTION, self.retention.clinic_jurisdictions)
        except UnknownJurisdictionError as error:
            raise EnvironmentSettingError(
                f"PETWELLNESS_RETENTION_JURISDICTION or ..._CLINIC_JURISDICTIONS: {error}"
            ) from error

    @property
    def dbt_session(self) -> DbtSession | None:
        """As whom and where dbt builds on Snowflake; None on the embedded warehouse."""
        return dbt_session(self.environment, self.operations.developer, self.operations.pull_request)


def replayed_topics() -> tuple[str, ...]:
    """Topics that `petwellness replay` publishes real files to."""
    from contracts.decoders import campusiot, movebank

    return campusiot.TOPIC, movebank.TOPIC


def load_settings() -> PlatformSettings:
    """Settings from the environment variables of this process.

    Raises UnknownEnvironmentError, ProductionRefusedError and EnvironmentSettingError
    for an environment that cannot be meant, and pydantic's ValidationError naming
    the variable for a value out of range.
    """
    operations = OperationsSettings()
    settings = PlatformSettings(
        environment=environment_named(operations.environment),
        state=StateSettings(),
        lake=LakeSettings(),
        broker=BrokerSettings(),
        collector=CollectorSettings(),
        rejects=RejectSettings(),
        consent=ConsentSettings(),
        compaction=CompactionSettings(),
        retention=RetentionSettings(),
        costs=CostSettings(),
        source=SourceSettings(),
        operations=operations,
    )
    _check_environment(settings)
    return settings


def _check_environment(settings: PlatformSettings) -> None:
    """Settings that contradict the environment, before anything acts on them."""
    chosen = settings.environment
    _ = settings.dbt_session  # a developer's or a pull request's schema exists in one environment only
    if settings.operations.production and not chosen.is_production:
        # Left set, the switch would be on before anybody decides anything.
        raise EnvironmentSettingError(
            f"PETWELLNESS_PRODUCTION is set and the environment is '{chosen.name}':"
            " unset it, or set PETWELLNESS_ENVIRONMENT=prod"
        )
    if not chosen.is_production:
        return
    if not settings.operations.production:
        others = ", ".join(one.name for one in ENVIRONMENTS.values() if not one.is_production)
        raise ProductionRefusedError(
            f"PETWELLNESS_ENVIRONMENT='{chosen.name}' is production: set PETWELLNESS_PRODUCTION=yes if it is"
            f" meant, or choose one of: {others}"
        )
    stand_ins = _stand_ins(settings)
    if stand_ins:
        raise ProductionRefusedError(f"production stands on real parts only: {'; '.join(stand_ins)}")
    _ = settings.analytics_default, settings.jurisdictions  # decided, or nothing starts


def _stand_ins(settings: PlatformSettings) -> list[str]:
    """What here stands in for a real part, each with the setting that replaces it."""
    return [
        problem
        for stands_in, problem in (
            (
                not settings.lake.url.startswith("s3://"),
                "the lake is a folder, which Snowflake's pipes cannot read: set PETWELLNESS_LAKE_URL=s3://...",
            ),
            (
                settings.is_broker_embedded,
                "the broker is the embedded one, which keeps nothing: set PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS",
            ),
            (
                settings.source.data is None,
                "records would be the simulated fleet's: set PETWELLNESS_DATA to the folder of the real files",
            ),
        )
        if stands_in
    ]
