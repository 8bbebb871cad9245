"""What a simulated fleet is made of: sizes, period, fault and illness rates.

No behaviour lives here beyond validation and the fingerprint that names the
fleet's waves and extracts.
"""

import hashlib
import json
from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Of a fleet without anything out of the ordinary: no entities are added for `anomalies`.
ORDINARY = dict.fromkeys(
    (
        "ambiguous_collars",
        "irregular_collars",
        "partial_collars",
        "silent_consents",
        "listed_pets",
        "odd_records",
        "superseded_features",
    ),
    0.0,
)

# Raise it with every change of the bytes that a configuration produces.
SIMULATOR_VERSION = 3

# Of what stays rare, and of what may be all there is.
Rate = Annotated[float, Field(ge=0.0, le=0.2)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class FleetConfig(BaseModel):
    """Sizes, period and rates of a fleet; the same values give the same bytes.

    Message fault rates are shares of the messages due and exclude one another
    (a message carries at most one planted fault). Episode rates are expected
    episodes per device-day.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=20260601, ge=0, lt=2**63)
    collars: int = Field(default=120, ge=1, le=200_000)
    households: int = Field(default=100, ge=1)
    clinics: int = Field(default=6, ge=1, le=999)
    days: int = Field(default=14, ge=1, le=366)
    start: date = date(2026, 6, 1)
    events_per_minute: int = Field(default=1, ge=1, le=10)

    duplicates: Rate = Field(default=0.003, description="Sent again unchanged, up to 6 h later.")
    conflicts: Rate = Field(default=0.0001, description="Same event_id again, other content.")
    late: Rate = Field(default=0.005, description="Arrives 1 to 48 h after the event.")
    out_of_order: Rate = Field(default=0.005, description="Overtaken by 2 to 10 later events.")
    malformed: Rate = Field(default=0.0005, description="Breaks the contract in one known way.")
    gaps_per_device_day: Share = Field(default=0.03, description="Silent for 0.5 to 10 h.")
    clock_jumps_per_device_day: Share = Field(
        default=0.02, description="Clock off by 1 to 20 minutes for 1 to 6 h; accepted."
    )
    clock_breaks_per_device_day: Share = Field(
        default=0.01, description="Clock off by years or days ahead for 5 to 40 min; rejected."
    )

    illness: Share = Field(default=0.42, description="Share of pets with an unplanned visit.")
    silent_illness: Share = Field(default=0.10, description="Share of pets ill without a visit.")
    lazy_days: Share = Field(default=0.05, description="Share of pet-days of low activity, healthy.")
    no_show: Share = Field(default=0.12, description="Share of planned visits that are missed.")
    documents: Share = Field(
        default=0.5, description="Share of completed visits of which a document is scanned."
    )
    doubtful_documents: Share = Field(
        default=0.15, description="Share of documents that OCR is not sure of or cannot read."
    )
    consent_changes: Share = Field(
        default=0.10, description="Share of households that change a flag in the period."
    )
    analytics_opt_out: Share = Field(
        default=0.04, description="Share of households that withdraw `analytics` in the period."
    )

    # What follows is played by households, pets and collars of its own, beside those above: as many as the share of
    # them says, rounded up, so that the smallest fleet has one of each kind. A share of 0 leaves the kind out.
    ambiguous_collars: Rate = Field(
        default=0.015, description="Claimed by two pets for a while (share of collars)."
    )
    irregular_collars: Rate = Field(default=0.02, description="Send when they like (share of collars).")
    partial_collars: Rate = Field(
        default=0.015, description="Have no sensor for something (share of collars)."
    )
    silent_consents: Rate = Field(
        default=0.01,
        description="Records do not mention every flag (share of households, of each of three kinds).",
    )
    listed_pets: Rate = Field(
        default=0.02,
        description="In a register that sends all it has every day (share of collars, of each of: always listed, "
        "missing once, missing for good).",
    )
    odd_records: Rate = Field(
        default=0.015,
        description="Pets of which a record comes twice, or another contradicts it or is of a wrong clock (share of "
        "collars, of each of four kinds).",
    )
    superseded_features: Rate = Field(
        default=0.02,
        description="Pets of which an earlier release left features by a definition that is superseded (share of "
        "collars).",
    )

    @property
    def start_ts(self) -> datetime:
        return datetime(self.start.year, self.start.month, self.start.day)

    @property
    def end_ts(self) -> datetime:
        return self.start_ts + timedelta(days=self.days)

    @property
    def slots_per_day(self) -> int:
        """Messages a device owes in a day."""
        return 1440 * self.events_per_minute

    @property
    def period_ms(self) -> int:
        return 60_000 // self.events_per_minute

    def fingerprint(self) -> str:
        """16 hex digits that stand for this configuration and simulator version; names waves and extracts."""
        body = json.dumps(
            {"simulator_version": SIMULATOR_VERSION, **self.model_dump(mode="json")},
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(body.encode()).hexdigest()[:16]
