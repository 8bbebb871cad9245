"""Settings of the lake: where landed files are, and the room and ages of compaction.

Read from environment variables with the prefixes named on each class.
"""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class LakeSettings(BaseSettings):
    """Where landed files live (`PETWELLNESS_LAKE_*`).

    `url` is a folder (`/path` or `file:///path`) or `s3://bucket/prefix`; empty
    means `lake` in the state folder. Without keys, S3 uses the usual chain of
    credentials (environment, profile, instance role).
    """

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_LAKE_", frozen=True)

    url: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None

    def resolved_url(self, home: Path) -> str:
        return self.url or str(home / "lake")


class CompactionSettings(BaseSettings):
    """Room and ages of compaction (`PETWELLNESS_COMPACTION_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_COMPACTION_", frozen=True)

    memory_bytes: int = Field(
        default=2 * 1024**3, ge=1024**3, description="Resident memory of one compaction."
    )
    scratch_bytes: int = Field(
        default=40 * 1024**3,
        gt=0,
        description="Scratch space in the state folder, beside copies of remote files.",
    )
    file_bytes: int = Field(
        default=75 * 1024**2, gt=0, le=90 * 1024**2, description="Size at which a compacted file is closed."
    )
    grace_s: float = Field(
        default=3600.0, ge=0, description="After its end a day may still get claims so long."
    )
    clean_after_s: float = Field(
        default=24 * 3600.0, gt=0, description="Age at which files that no snapshot names are removed."
    )
