"""Which account, and what of it no file may say: settings from the environment, the environments that have one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from lake import layout
from warehouse import environments
from warehouse.environments import UnknownEnvironmentError

FOLDER = Path(__file__).resolve().parent

# Not the prefix of dbt's profile, which signs in as another user.
PREFIX = "PETWELLNESS_SNOWDDL_"
SIGN_IN = {"account", "user", "private_key_path", "private_key_passphrase", "role", "warehouse"}


@dataclass(frozen=True)
class Environment:
    """Where objects go: every name that the account shares begins with `prefix` and two underscores."""

    name: str
    prefix: str
    is_production: bool

    @property
    def values_file(self) -> Path:
        return FOLDER / "environments" / f"{self.name}.yaml"

    @property
    def plan_file(self) -> Path:
        """What is kept of a plan for an empty account (`planning.reviewed_text`)."""
        return FOLDER / "plans" / f"{self.name}.sql"


ENVIRONMENTS = {
    str(one.name): Environment(str(one.name), one.snowflake.prefix, one.is_production)
    for one in environments.ENVIRONMENTS.values()
    if one.snowflake is not None
}


def environment_named(name: str) -> Environment:
    """Raises UnknownEnvironmentError, for an environment without an account, too."""
    if name not in ENVIRONMENTS:
        raise UnknownEnvironmentError(
            f"'{name}' has no Snowflake account; choose one of: {', '.join(ENVIRONMENTS)}"
        )
    return ENVIRONMENTS[name]


class AccountSettings(BaseSettings):
    """`PETWELLNESS_SNOWDDL_*`: how to reach the account, and names and keys that belong to it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    account: str = Field(description="Account identifier, organisation-account.")
    user: str = Field(description="User of the role that owns these objects (docs/snowflake.md).")
    private_key_path: Path = Field(description="Private key of that user, PEM.")
    private_key_passphrase: SecretStr | None = None
    role: str = "SNOWDDL_ADMIN"
    warehouse: str | None = None
    landing_url: str = Field(
        description="Landing prefix of the lake, s3://<bucket>/landing/.", pattern="^s3://.+/landing/$"
    )
    storage_integration: str = Field(description="Storage integration that may read it.")
    platform_public_key: str = Field(description="Public key of the user platform_service, one line.")
    ingestion_public_key: str
    dbt_public_key: str
    ml_public_key: str
    operations_public_key: str
    power_bi_public_key: str

    def placeholders(self) -> dict[str, str]:
        """What the configuration leaves open: every setting but those that sign in, and what follows from them."""
        return self.model_dump(exclude=SIGN_IN) | {"redacted_url": self.redacted_url}

    @property
    def redacted_url(self) -> str:
        """Where the lake keeps what is left of landed files after redactions, beside the landing prefix."""
        return f"{self.landing_url.removesuffix(layout.LANDING)}{layout.REDACTED}"


def load_account() -> AccountSettings:
    """From the environment variables of this process; raises pydantic's ValidationError naming what is missing."""
    # Validating nothing reads the environment, which a checker of types does not know of a call.
    return AccountSettings.model_validate({})


def example_account() -> AccountSettings:
    """Stands for an account where none is at hand."""
    values: dict[str, Any] = {
        "account": "EXAMPLE-ACCOUNT",
        "user": "SNOWDDL",
        "private_key_path": Path("unused"),
        "landing_url": "s3://example-bucket/landing/",
        "storage_integration": "PETWELLNESS_LAKE",
    }
    for user in ("platform", "ingestion", "dbt", "ml", "operations", "power_bi"):
        values[f"{user}_public_key"] = f"EXAMPLE{user.replace('_', '').upper()}KEY"
    return AccountSettings.model_construct(**values)
