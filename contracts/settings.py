"""Settings of the state folder: where the local files of one platform instance are, and the salt of hashes.

Read from environment variables with the prefixes named on each class.
"""

from pathlib import Path

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StateSettings(BaseSettings):
    """The state folder of one platform instance (`PETWELLNESS_HOME`, `PETWELLNESS_SALT`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_", frozen=True)

    home: Path = Field(default=Path(".petwellness"), description="Folder of all local state.")
    salt: SecretStr | None = Field(
        default=None, description="Salt of hashed identifiers; without it one is made and kept in `home`."
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def warehouse_path(self) -> Path:
        return self.home / "warehouse.duckdb"

    @property
    def published_dir(self) -> Path:
        return self.home / "published"

    @property
    def broker_card_path(self) -> Path:
        """Where a running embedded broker says how to reach it."""
        return self.home / "broker.json"

    @property
    def scratch_dir(self) -> Path:
        """Work space of what does not fit in memory; empty between commands."""
        return self.home / "scratch"

    @property
    def truth_dir(self) -> Path:
        return self.home / "truth"
