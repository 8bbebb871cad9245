"""Settings of Snowflake: how a session signs in, and how patient a load is.

Read from environment variables with the prefixes named on each class.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SnowflakeSettings(BaseSettings):
    """How the loader signs in to Snowflake (`PETWELLNESS_SNOWFLAKE_*`); dbt's profile reads the same variables.

    A key pair signs in. `host`, `port`, `protocol` and `password` are for an emulator;
    an account of Snowflake needs none of them. The rest says how patient a load is.
    """

    # A value that is refused may be a secret: errors do not repeat it.
    model_config = SettingsConfigDict(
        env_prefix="PETWELLNESS_SNOWFLAKE_", frozen=True, hide_input_in_errors=True
    )

    account: str = Field(default="", description="Account identifier, organisation-account.")
    user: str = ""
    private_key_path: Path | None = Field(default=None, description="Private key of the user, PEM (PKCS 8).")
    private_key_passphrase: SecretStr | None = None
    role: str = ""
    warehouse: str = ""
    database: str = ""
    host: str | None = Field(default=None, description="Address of an emulator.")
    port: int = Field(default=443, gt=0, le=65535)
    protocol: Literal["https", "http"] = "https"
    password: SecretStr | None = Field(default=None, description="For an emulator, which checks no keys.")
    login_timeout_s: int = Field(default=30, gt=0, le=600)
    statement_timeout_s: int = Field(
        default=1800, gt=0, description="No statement of a load runs longer; the warehouse has a limit, too."
    )
    pipe_grace_s: float = Field(
        default=900.0,
        ge=0,
        description="How long after its claim a range is left to its pipe before COPY INTO loads it.",
    )
    pipe_drain_s: float = Field(
        default=600.0, ge=0, description="How long a paused pipe may take to load what it has queued."
    )

    @field_validator("private_key_path", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _plain_http_is_local(self) -> Self:
        if self.protocol == "http" and self.host not in ("127.0.0.1", "localhost"):
            raise ValueError(
                "http is for an emulator on this machine: set PETWELLNESS_SNOWFLAKE_HOST=127.0.0.1"
            )
        return self

    @property
    def missing(self) -> tuple[str, ...]:
        """Variables without which nothing can sign in; what an emulator does without is not among them."""
        needed = ["account", "user", "database"]
        needed += [] if self.host else ["role", "warehouse", "private_key_path"]
        return tuple(f"PETWELLNESS_SNOWFLAKE_{name.upper()}" for name in needed if not getattr(self, name))
