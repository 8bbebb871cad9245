"""Contracts of change records: what a row of each record feed may hold before it lands.

One strict model per feed, a validator that separates good rows from problems,
canonical JSON, and the Arrow table that `lake.extract` lands. Column
order and types live in `columns`; the telemetry event in `telemetry`; how a
source's own rows become records in `ingestion.extracts`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pyarrow as pa
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from contracts.columns import RECORD_FEEDS, record_schema

Row = Mapping[str, Any]

# The column that holds a feed's business key.
RECORD_KEYS: dict[str, str] = {
    "owners": "owner_id",
    "pets": "pet_id",
    "devices": "device_id",
    "clinics": "clinic_id",
    "device_assignments": "assignment_id",
    "clinic_visits": "visit_id",
    "appointments": "appointment_id",
    "breeds": "breed_id",
    "visit_documents": "document_id",
    "engagement": "engagement_id",
}

# Which actions a channel can have: a message is sent, only some are seen being opened.
ENGAGEMENT_ACTIONS: dict[str, frozenset[str]] = {
    "app": frozenset({"session", "booked"}),
    "email": frozenset({"sent", "opened", "clicked", "booked"}),
    "push": frozenset({"sent", "opened", "clicked", "booked"}),
    "sms": frozenset({"sent", "clicked", "booked"}),
    "phone": frozenset({"called", "booked"}),
}
_TIMED_ACTIONS = frozenset({"session", "called"})

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and plain UTF-8: equal values give equal text.

    Raises ValueError for NaN and infinities, TypeError for what JSON cannot hold.
    """
    return _ENCODER.encode(value)


def _without_zone(value: datetime) -> datetime:
    if value.tzinfo is not None:
        raise ValueError("carries a zone; records hold UTC without one")
    return value


def _canonical(value: str) -> str:
    if canonical_json(json.loads(value)) != value:
        raise ValueError("is not canonical JSON (sorted keys, no spaces)")
    return value


# Every record has a payload, so it is parsed by the fast decoder; its form is the source's own.
_OBJECT = msgspec.json.Decoder(dict)


def _payload(value: str) -> str:
    try:
        _OBJECT.decode(value)
    except msgspec.MsgspecError:
        raise ValueError("is not a JSON object") from None
    return value


def _json_text_list(value: str) -> str:
    items = json.loads(_canonical(value))
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("is not a JSON list of strings")
    return value


def _json_object(value: str) -> str:
    if not isinstance(json.loads(_canonical(value)), dict):
        raise ValueError("is not a JSON object")
    return value


class _ConsentFlag(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    at: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$")]
    value: bool


_CONSENT_FLAGS = TypeAdapter(dict[str, _ConsentFlag])


def _consent_flags(value: str) -> str:
    _CONSENT_FLAGS.validate_python(json.loads(_canonical(value)))
    return value


# An empty string is not a value: sources that leave a cell empty say nothing, which is null.
Text = Annotated[str, StringConstraints(min_length=1)]
Timestamp = Annotated[datetime, AfterValidator(_without_zone)]
WeightKg = Annotated[Decimal, Field(gt=0, max_digits=6, decimal_places=3)]
HeightCm = Annotated[Decimal, Field(gt=0, max_digits=5, decimal_places=1)]
Years = Annotated[Decimal, Field(gt=0, max_digits=4, decimal_places=1)]
Sex = Literal["female", "male"]
VisitStatus = Literal["scheduled", "completed", "no_show", "cancelled"]
# `cancelled` is by the owner, or the source does not say by whom.
AppointmentStatus = Literal[
    "scheduled", "completed", "no_show", "cancelled", "cancelled_by_clinic", "rescheduled"
]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    business_key: Text
    op: Literal["upsert", "delete", "snapshot"]
    changed_at: Timestamp
    arrival_ts: Timestamp | None = None
    payload: Annotated[str, AfterValidator(_payload)]


class OwnerRecord(_Record):
    """A household's owner as a source states it."""

    owner_id: Text
    name: Text | None = None
    contact_phone: Text | None = None
    contact_email: Text | None = None
    address: Text | None = None
    district: Text | None = None
    quarter: Text | None = None
    age_band: Text | None = None
    sex: Sex | None = None
    consent_flags: Annotated[str, AfterValidator(_consent_flags)] | None = None


class PetRecord(_Record):
    """An animal; `birth_year` where the source knows the year only."""

    pet_id: Text
    owner_id: Text | None = None
    name: Text | None = None
    species: Text | None = None
    breed: Text | None = None
    breed_type: Text | None = None
    is_crossbreed: bool | None = None
    dob: date | None = None
    birth_year: Annotated[int, Field(ge=1900, le=2100)] | None = None
    sex: Sex | None = None
    neutered: bool | None = None
    microchip_id: Text | None = None
    color: Text | None = None
    weight_kg: WeightKg | None = None


class DeviceRecord(_Record):
    """A collar or tracker."""

    device_id: Text
    hardware_serial: Text | None = None
    vendor: Text | None = None
    model: Text | None = None
    firmware_version: Text | None = None
    status: Literal["active", "retired", "damaged"] | None = None
    expected_events_per_day: Annotated[int, Field(gt=0)] | None = None


class ClinicRecord(_Record):
    """A clinic or shelter where animals are seen."""

    clinic_id: Text
    name: Text | None = None
    district: Text | None = None
    timezone: Text | None = None


class DeviceAssignmentRecord(_Record):
    """A device on a pet over `[assigned_from, assigned_to)`; an open end is null."""

    assignment_id: Text
    device_id: Text
    pet_id: Text
    assigned_from: Timestamp
    assigned_to: Timestamp | None = None

    @model_validator(mode="after")
    def _ends_after_start(self) -> "DeviceAssignmentRecord":
        if self.assigned_to is not None and self.assigned_to <= self.assigned_from:
            raise ValueError("assigned_to is not after assigned_from")
        return self


class ClinicVisitRecord(_Record):
    """A visit or stay of a pet; `is_unplanned` is null where the source does not say."""

    visit_id: Text
    pet_id: Text
    clinic_id: Text | None = None
    visit_ts: Timestamp
    visit_end_ts: Timestamp | None = None
    status: VisitStatus | None = None
    visit_type: Text | None = None
    is_unplanned: bool | None = None
    reason: Text | None = None
    outcome: Text | None = None
    diagnosis_codes: Annotated[str, AfterValidator(_json_text_list)] | None = None
    weight_kg: WeightKg | None = None
    next_vaccine_due: date | None = None

    @model_validator(mode="after")
    def _ends_no_earlier_than_start(self) -> "ClinicVisitRecord":
        if self.visit_end_ts is not None and self.visit_end_ts < self.visit_ts:
            raise ValueError("visit_end_ts is before visit_ts")
        return self


class AppointmentRecord(_Record):
    """An appointment and, once kept, the visit it led to."""

    appointment_id: Text
    pet_id: Text
    clinic_id: Text | None = None
    scheduled_ts: Timestamp
    status: AppointmentStatus | None = None
    visit_id: Text | None = None


class BreedRecord(_Record):
    """Reference figures of a breed."""

    breed_id: Text
    species: Text | None = None
    breed: Text
    breed_group: Text | None = None
    min_weight_kg: WeightKg | None = None
    max_weight_kg: WeightKg | None = None
    min_height_cm: HeightCm | None = None
    max_height_cm: HeightCm | None = None
    min_life_expectancy_years: Years | None = None
    max_life_expectancy_years: Years | None = None

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "BreedRecord":
        for name in ("weight_kg", "height_cm", "life_expectancy_years"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} is above max_{name}")
        return self


class VisitDocumentRecord(_Record):
    """A scan or file of a visit: where the original is, what OCR read of it and who checked that.

    What OCR found comes with the engine that found it. `pending` and `auto_accepted`
    are the machine's, `validated` and `rejected` a person's decision, who is named.
    """

    document_id: Text
    visit_id: Text
    pet_id: Text
    document_uri: Text
    media_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[a-z0-9][a-z0-9.+-]*$")] | None = None
    page_count: Annotated[int, Field(gt=0, le=100_000)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    ocr_engine: Text | None = None
    ocr_fields: Annotated[str, AfterValidator(_json_object)] | None = None
    ocr_confidence: Annotated[Decimal, Field(ge=0, le=1, max_digits=4, decimal_places=3)] | None = None
    review_status: Literal["pending", "auto_accepted", "validated", "rejected"] | None = None
    validator_id: Text | None = None
    validated_at: Timestamp | None = None

    @model_validator(mode="after")
    def _says_who_read_it(self) -> "VisitDocumentRecord":
        if self.ocr_engine is None and (self.ocr_fields, self.ocr_confidence) != (None, None):
            raise ValueError("ocr_fields or ocr_confidence without ocr_engine")
        if self.review_status == "auto_accepted" and self.ocr_confidence is None:
            raise ValueError("auto_accepted without ocr_confidence")
        return self

    @model_validator(mode="after")
    def _says_who_checked_it(self) -> "VisitDocumentRecord":
        decided = self.review_status in ("validated", "rejected")
        named = (self.validator_id is not None, self.validated_at is not None)
        if named != (decided, decided):
            raise ValueError("validator_id and validated_at belong to validated and rejected, and only there")
        return self


class EngagementRecord(_Record):
    """One contact with an owner or one thing an owner did, on one channel."""

    engagement_id: Text
    owner_id: Text
    channel: Literal["app", "email", "sms", "push", "phone"]
    action: Literal["session", "sent", "opened", "clicked", "called", "booked"]
    occurred_at: Timestamp
    duration_s: Annotated[int, Field(ge=0, le=86_400)] | None = None
    appointment_id: Text | None = None

    @model_validator(mode="after")
    def _action_fits_channel(self) -> "EngagementRecord":
        if self.action not in ENGAGEMENT_ACTIONS[self.channel]:
            raise ValueError("channel has no such action")
        if self.duration_s is not None and self.action not in _TIMED_ACTIONS:
            raise ValueError("duration_s belongs to sessions and calls")
        return self


RECORD_MODELS: dict[str, type[_Record]] = {
    "owners": OwnerRecord,
    "pets": PetRecord,
    "devices": DeviceRecord,
    "clinics": ClinicRecord,
    "device_assignments": DeviceAssignmentRecord,
    "clinic_visits": ClinicVisitRecord,
    "appointments": AppointmentRecord,
    "breeds": BreedRecord,
    "visit_documents": VisitDocumentRecord,
    "engagement": EngagementRecord,
}


@dataclass(frozen=True, slots=True)
class RecordProblem:
    """A row that breaks its feed's contract.

    `row` is the position in the rows given, from 0; `reason` is `invalid_value`,
    `missing_value` or `unknown_column`; `detail` names the fields and rules, never
    the values, which may be personal.
    """

    row: int
    reason: str
    detail: str


def validate_records(feed: str, rows: Iterable[Row]) -> tuple[list[Row], list[RecordProblem]]:
    """Separate the rows that keep the feed's contract from those that do not.

    A row holds the feed's typed columns (absent = null), `business_key`, `op`,
    `changed_at`, `payload` and optionally `arrival_ts`, as Python values of the
    column's own type: nothing is coerced, so good rows come back as they went in.
    Every row is in exactly one of the two lists.

    Raises KeyError with the known feeds for an unknown one.
    """
    if feed not in RECORD_MODELS:
        raise KeyError(f"unknown record feed '{feed}'; known: {', '.join(RECORD_MODELS)}")
    adapter: TypeAdapter[_Record] = TypeAdapter(RECORD_MODELS[feed])
    key = RECORD_KEYS[feed]
    good: list[Row] = []
    problems: list[RecordProblem] = []
    for position, row in enumerate(rows):
        try:
            adapter.validate_python(row)
        except ValidationError as error:
            problems.append(_problem(position, error))
            continue
        if row["business_key"] != row[key]:
            problems.append(RecordProblem(position, "invalid_value", f"business_key differs from {key}"))
        else:
            good.append(row)
    return good, problems


def _problem(position: int, error: ValidationError) -> RecordProblem:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    kinds = {fault["type"] for fault in faults}
    reason = "invalid_value"
    if kinds == {"missing"}:
        reason = "missing_value"
    elif kinds == {"extra_forbidden"}:
        reason = "unknown_column"
    detail = "; ".join(f"{'.'.join(map(str, f['loc'])) or 'row'}: {f['msg']}" for f in faults)
    return RecordProblem(position, reason, detail)


def records_table(feed: str, rows: Iterable[Row]) -> pa.Table:
    """Valid rows as the Arrow table that an extract lands.

    Columns in the order of `columns.record_schema`, without the envelope and
    `extracted_at`, which landing adds; `arrival_ts` only when the rows carry it.

    Raises KeyError for an unknown feed, pyarrow.ArrowException for a value that does
    not fit its column without loss.
    """
    held = list(rows)
    wanted = {"business_key", "op", "changed_at", "payload"}
    wanted.update(field.name for field in RECORD_FEEDS[feed])
    if any("arrival_ts" in row for row in held):
        wanted.add("arrival_ts")
    fields = [field for field in record_schema(feed) if field.name in wanted]
    columns = [pa.array([row.get(field.name) for row in held], type=field.type) for field in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
