"""The environments there are, and what each one stands for: warehouse, dbt target, names in the Snowflake account.

Plain values: nothing is read or connected to here. Which one a process is in says `petwellness_orchestration.settings`;
what an account of theirs holds, `infrastructure.snowflake`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

# The database, before the environment's prefix; SnowDDL ends names of roles like this.
DATABASE = "PETWELLNESS"
BUSINESS_ROLE_SUFFIX = "B_ROLE"
# Schemas that dbt fills; the first is the profile's own.
LAYERS = ("stg", "cur", "anl", "ml")


class EnvironmentSettingError(ValueError):
    """A setting contradicts the chosen environment; the message names it and what to do."""


class UnknownEnvironmentError(EnvironmentSettingError):
    """No environment has this name; the message lists those there are."""


class ProductionRefusedError(EnvironmentSettingError):
    """Production was asked for without saying so, or with parts that stand in for real ones."""


class NotOnThisWarehouseError(RuntimeError):
    """A step that works on one kind of warehouse only was asked for on the other."""


class EnvironmentName(StrEnum):
    """What PETWELLNESS_ENVIRONMENT can be."""

    EMBEDDED = "embedded"
    DEV = "dev"
    CI = "ci"
    PROD = "prod"


class WarehouseKind(StrEnum):
    """Engine of the warehouse: a DuckDB file in the state folder, or a Snowflake account."""

    DUCKDB = "duckdb"
    SNOWFLAKE = "snowflake"


class OwnSchema(StrEnum):
    """What a schema beside the shared layers belongs to. Its builds read the shared ones and change none."""

    DEVELOPER = "dev"
    PULL_REQUEST = "pr"


@dataclass(frozen=True)
class SnowflakeNames:
    """Names of an environment's objects in the account, as Snowflake stores them (upper case)."""

    prefix: str

    @property
    def database(self) -> str:
        return self._own(DATABASE)

    def warehouse(self, name: str) -> str:
        """Full name of a warehouse of `infrastructure/snowflake/config/warehouse.yaml`, such as `loading_wh`."""
        return self._own(name.upper())

    def role(self, name: str) -> str:
        """Full name of a role of `config/business_role.yaml`, such as `ingestion`, or `developer_<name>`."""
        return f"{self._own(name.upper())}__{BUSINESS_ROLE_SUFFIX}"

    def _own(self, name: str) -> str:
        return f"{self.prefix}__{name}"


@dataclass(frozen=True)
class Environment:
    """What differs between environments.

    `snowflake` is None where the warehouse is no Snowflake; `has_automation` says whether schedules and sensors
    start switched on unless PETWELLNESS_AUTOMATION says otherwise; `own_schema`, whose schemas it has beside the
    layers.
    """

    name: EnvironmentName
    warehouse: WarehouseKind
    dbt_target: str
    snowflake: SnowflakeNames | None
    has_automation: bool
    is_production: bool
    own_schema: OwnSchema | None


def _environment(name: EnvironmentName) -> Environment:
    """A name without an entry is an error of mypy's and, at import, of `assert_never`."""
    match name:
        case EnvironmentName.EMBEDDED:
            return Environment(
                name,
                WarehouseKind.DUCKDB,
                dbt_target="embedded",
                snowflake=None,
                has_automation=False,
                is_production=False,
                own_schema=None,
            )
        case EnvironmentName.DEV:
            return _on_snowflake(name, own_schema=OwnSchema.DEVELOPER)
        case EnvironmentName.CI:
            return _on_snowflake(name, own_schema=OwnSchema.PULL_REQUEST)
        case EnvironmentName.PROD:
            return _on_snowflake(name, is_production=True)
        case _:
            assert_never(name)


def _on_snowflake(
    name: EnvironmentName, own_schema: OwnSchema | None = None, is_production: bool = False
) -> Environment:
    return Environment(
        name,
        WarehouseKind.SNOWFLAKE,
        dbt_target="snowflake",
        snowflake=SnowflakeNames(name.upper()),
        has_automation=is_production,
        is_production=is_production,
        own_schema=own_schema,
    )


ENVIRONMENTS: Mapping[EnvironmentName, Environment] = MappingProxyType(
    {name: _environment(name) for name in EnvironmentName}
)


def environment_named(name: str) -> Environment:
    """Raises UnknownEnvironmentError."""
    if name not in ENVIRONMENTS:
        raise UnknownEnvironmentError(
            f"PETWELLNESS_ENVIRONMENT='{name}' is not known; choose one of: {', '.join(ENVIRONMENTS)}"
        )
    return ENVIRONMENTS[EnvironmentName(name)]


@dataclass(frozen=True)
class DbtSession:
    """As whom and where dbt builds on Snowflake. `schema` is the first layer, or a schema of one's own, which then
    takes all of them; on `telemetry_warehouse` run the models that read every event of their days."""

    database: str
    role: str
    warehouse: str
    telemetry_warehouse: str
    schema: str

    @property
    def is_own(self) -> bool:
        """Whether its builds go to a schema of one's own, and say nothing of the shared layers."""
        return self.schema not in LAYERS


def dbt_session(
    environment: Environment, developer: str | None = None, pull_request: int | None = None
) -> DbtSession | None:
    """None where dbt builds on no Snowflake.

    Raises EnvironmentSettingError for a developer or a pull request that the environment has no schema for.
    """
    owner = _schema_owner(environment, developer, pull_request)
    names = environment.snowflake
    if names is None:
        return None
    if developer is not None:
        role, warehouse = names.role(f"developer_{developer}"), names.warehouse("dev_wh")
        telemetry_warehouse = warehouse
    else:
        role, warehouse = names.role("transformer"), names.warehouse("transforming_wh")
        telemetry_warehouse = names.warehouse("telemetry_wh")
    return DbtSession(names.database, role, warehouse, telemetry_warehouse, owner or LAYERS[0])


def own_schema(kind: OwnSchema, owner: str | int) -> str:
    """Name of a developer's or a pull request's schema: `dev_anna`, `pr_17`."""
    return f"{kind}_{owner}"


def _schema_owner(environment: Environment, developer: str | None, pull_request: int | None) -> str | None:
    asked = {OwnSchema.DEVELOPER: developer, OwnSchema.PULL_REQUEST: pull_request}
    for kind, owner in asked.items():
        if owner is None:
            continue
        if environment.own_schema is not kind:
            [place] = [one.name for one in ENVIRONMENTS.values() if one.own_schema is kind]
            raise EnvironmentSettingError(
                f"PETWELLNESS_{kind.name} is for the environment '{place}', and this is '{environment.name}':"
                f" unset it or set PETWELLNESS_ENVIRONMENT={place}"
            )
        return own_schema(kind, owner)
    return None
