"""Settings of governance: what the account may cost, and how long what must go may stay.

Read from environment variables with the prefixes named on each class.
"""

from decimal import Decimal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CostSettings(BaseSettings):
    """What Snowflake charges, and what a day may cost (`PETWELLNESS_COST_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_COST_", frozen=True)

    credit_dollars: Decimal = Field(default=Decimal(2), gt=0, description="Price of a credit, by contract.")
    terabyte_month_dollars: Decimal = Field(
        default=Decimal(23), ge=0, description="Price of storing 10^12 bytes for a month."
    )
    daily_budget_dollars: Decimal | None = Field(
        default=None, gt=0, description="Budget of a day (None: the environment's)."
    )


class RetentionSettings(BaseSettings):
    """How long what must go may stay (`PETWELLNESS_RETENTION_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_RETENTION_", frozen=True)

    erasure_days: int = Field(
        default=30, gt=0, le=3650, description="From a redaction to nothing being left of what it covers."
    )
    rejects_days: int = Field(default=30, gt=0, le=3650, description="From the claim of a range.")
    jurisdiction: str | None = Field(
        default=None,
        description="Whose terms hold for records that a practice must keep although their household is erased, a name"
        " of `contracts.keeping` (None: the environment's; production has none).",
    )
    clinic_jurisdictions: dict[str, str] = Field(
        default_factory=dict, description="Clinics that lie in another jurisdiction, by clinic_id (JSON)."
    )
