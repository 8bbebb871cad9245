"""The telemetry event contract: the strict reference every faster decoder must agree with.

`parse_event` reads the contract's own JSON form (decoder `collar-v1`), in the
version that the message states (`FORMS`); `validate_event` checks what any vendor
decoder returns, `check_clock` compares with the time of receipt, and that with the claim. Columns and their
types are in `columns`; decoding in bulk is in `ingestion.collector.decode`;
duplicates are the warehouse's business. How to add a field or a version:
docs/schema-evolution.md.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, NoReturn, TypeVar

import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, create_model
from pydantic_core import PydanticCustomError

from contracts.columns import TELEMETRY_FIELDS

COLLAR_DECODER = "collar-v1"
COLLAR_DECODER_VERSION = "1"

# Order in which a message is examined; the first rule it breaks is its reason.
REJECT_REASONS = (
    "empty",
    "oversized",
    "encoding",
    "malformed",
    "version",
    "missing",
    "type",
    "timestamp",
    "precision",
    "range",
    "clock",
)

MAX_MESSAGE_BYTES = 64 * 1024
# Opening brackets in a message, which bounds its nesting without parsing.
MAX_BRACKETS = 64
MAX_TEXT_CHARS = 256
MAX_AGE = timedelta(days=400)
MAX_AHEAD = timedelta(hours=24)
# So much later than its claim a message may say that it was received: clocks of two machines differ.
MAX_RECEIPT_AHEAD = timedelta(hours=1)
# Receipts before it are not believed where nothing else is said: no collar is so old, and a reset clock says 1970.
NOT_BEFORE = datetime(2000, 1, 1)

# Physical bounds, inclusive; a measure without an entry is bounded by its column's precision.
BOUNDS: dict[str, tuple[int, int | None]] = {
    "step_count": (0, None),
    "lick_count": (0, None),
    "gps_lat": (-90, 90),
    "gps_long": (-180, 180),
    "battery_pct": (0, 100),
    "pulse_bpm": (0, None),
    "respiration_rpm": (0, None),
    "weight_kg": (0, None),
    "quality_score": (0, 1),
}
MAX_INT = 2**31 - 1

TYPES: dict[str, pa.DataType] = {field.name: field.type for field in TELEMETRY_FIELDS}
REQUIRED = frozenset(field.name for field in TELEMETRY_FIELDS if not field.nullable)


@dataclass(frozen=True, slots=True)
class Form:
    """One version of the contract's JSON form.

    `names` are the fields it knows, each at most once in a message. `to_event`
    turns a message's object into the contract's fields, unchecked; it may raise
    RejectError for what it cannot turn.
    """

    names: frozenset[str]
    to_event: Callable[[dict[str, Any]], dict[str, Any]]


# A message has the contract's fields under the contract's names.
PLAIN_FORM = Form(frozenset(TYPES), dict)

# What `schema_version` selects; a version that is not here is a reject.
FORMS: dict[int, Form] = {1: PLAIN_FORM}
# The version of a message that states none.
FIRST_VERSION = 1
# Versions that bulk decoding reads by itself; it leaves the others to `parse_event`.
SCHEMA_VERSIONS = frozenset(version for version, form in FORMS.items() if form is PLAIN_FORM)

_TIMESTAMP = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
_BLANK = b" \t\r\n"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class RejectError(Exception):
    """No event: `reason` from REJECT_REASONS; `detail` names the field, never a value."""

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REJECT_REASONS:
            raise ValueError(f"unknown reject reason '{reason}'; known: {', '.join(REJECT_REASONS)}")
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def _fail(reason: str, detail: str) -> NoReturn:
    raise PydanticCustomError(reason, "{detail}", {"detail": detail})


def _bounded(name: str, value: Decimal | int) -> None:
    low, high = BOUNDS.get(name, (None, None))
    if (low is not None and value < low) or (high is not None and value > high):
        _fail("range", f"{name} is outside its bounds")


def _measure(name: str) -> BeforeValidator:
    """A number that its decimal column holds without rounding."""
    precision, scale = TYPES[name].precision, TYPES[name].scale
    unit = Decimal(1).scaleb(-scale)
    limit = Decimal(10) ** (precision - scale)

    def check(value: Any) -> Decimal | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            _fail("type", f"{name} is not a number")
        if isinstance(value, Decimal) and not value.is_finite():
            _fail("type", f"{name} is not a finite number")
        if not -limit < value < limit:
            _fail("range", f"{name} does not fit its column")
        number = Decimal(value)
        if number.adjusted() < -scale and number != 0:
            _fail("precision", f"{name} has more than {scale} decimals")
        # A plain quantize fails on more digits than the decimal context carries.
        digits = number.as_tuple()
        surplus = -int(digits.exponent) - scale
        if surplus > 0 and any(digits.digits[max(0, len(digits.digits) - surplus) :]):
            _fail("precision", f"{name} has more than {scale} decimals")
        _bounded(name, number)
        return number.quantize(unit)

    return BeforeValidator(check)


def _count(name: str) -> BeforeValidator:
    """A JSON integer (no fraction, no exponent) that fits 32 bits."""

    def check(value: Any) -> int | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            _fail("type", f"{name} is not an integer")
        if abs(value) > MAX_INT:
            _fail("range", f"{name} does not fit its column")
        _bounded(name, value)
        return value

    return BeforeValidator(check)


def _text(name: str) -> BeforeValidator:
    def check(value: Any) -> str | None:
        if value is None or (value == "" and name in REQUIRED):
            if name in REQUIRED:
                _fail("missing", f"{name} is required")
            return None
        if not isinstance(value, str):
            _fail("type", f"{name} is not a string")
        if len(value) > MAX_TEXT_CHARS:
            _fail("range", f"{name} is longer than {MAX_TEXT_CHARS} characters")
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            _fail("encoding", f"{name} holds characters that are no text")
        return value

    return BeforeValidator(check)


def _moment(value: Any) -> datetime:
    """RFC 3339 with a zone and at most microseconds, or a decoder's datetime (naive means UTC)."""
    if value is None:
        _fail("missing", "event_ts is required")
    if isinstance(value, str):
        match = _TIMESTAMP.fullmatch(value)
        if not match:
            _fail("timestamp", "event_ts is no RFC 3339 time with a zone")
        if len(match[1] or "") > 7:
            _fail("precision", "event_ts has more than 6 decimals")
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            _fail("timestamp", "event_ts is no time that exists")
    if not isinstance(value, datetime):
        _fail("type", "event_ts is not a string")
    try:
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        _fail("timestamp", "event_ts is no time that exists")


def _model() -> type[BaseModel]:
    """The columns as a model; a new column is checked by the rules of its type."""
    fields: dict[str, Any] = {}
    kind: Any
    for field in TELEMETRY_FIELDS:
        if pa.types.is_decimal(field.type):
            kind, check = Decimal, _measure(field.name)
        elif pa.types.is_integer(field.type):
            kind, check = int, _count(field.name)
        elif pa.types.is_timestamp(field.type):
            kind, check = datetime, BeforeValidator(_moment)
        else:
            kind, check = str, _text(field.name)
        fields[field.name] = (
            (Annotated[kind | None, check], None) if field.nullable else Annotated[kind, check]
        )
    return create_model(
        "TelemetryEvent", __config__=ConfigDict(strict=True, frozen=True, extra="ignore"), **fields
    )


# One event. Times are naive UTC, measures exact decimals, unknown fields ignored.
TelemetryEvent = _model()


def validate_event(event: dict[str, Any]) -> dict[str, Any]:
    """The contract's fields of an event in python values (int, Decimal, str, datetime), checked.

    Every contract field is in the result, absent ones as None. Raises RejectError.
    """
    _form_of(event)
    try:
        checked = TelemetryEvent.model_validate(event)
    except ValidationError as error:
        # Plain values, not exceptions: one kept in this frame would tie frames and batch
        # into a cycle, and a collector's memory would grow until the next full collection.
        found = [_reason_and_detail(one) for one in error.errors()]
        reason, detail = min(found, key=lambda one: REJECT_REASONS.index(one[0]))
        raise RejectError(reason, detail) from None
    return {name: getattr(checked, name) for name in TYPES}


def _form_of(event: dict[str, Any]) -> Form:
    """The form that an object's `schema_version` selects. Raises RejectError `version` for an unknown one."""
    version = event.get("schema_version")
    if type(version) is not int:  # Absent, or of a wrong type, which validation tells.
        version = FIRST_VERSION
    form = FORMS.get(version)
    if form is None:
        raise RejectError("version", "schema_version is unknown")
    return form


def _reason_and_detail(error: Any) -> tuple[str, str]:
    if error["type"] == "missing":
        return "missing", f"{error['loc'][0]} is required"
    return error["type"], error["ctx"]["detail"]


def parse_event(payload: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> dict[str, Any]:
    """One message in the contract's JSON form as checked python values. Raises RejectError.

    `schema_version` selects the form. Numbers are taken from their text, exactly.
    Unknown fields are allowed and ignored.
    """
    parsed = parse_object(payload, _Object, _Object, max_bytes)
    _check_once(parsed.pairs, PLAIN_FORM.names)
    event = dict(parsed.pairs)
    form = _form_of(event)
    if form is not PLAIN_FORM:
        _check_once(parsed.pairs, form.names)
    return validate_event(form.to_event(event))


def _check_once(pairs: list[tuple[str, Any]], names: frozenset[str]) -> None:
    known = [name for name, _ in pairs if name in names]
    if len(known) > len(set(known)):
        repeated = next(name for name in known if known.count(name) > 1)
        raise RejectError("malformed", f"{repeated} appears more than once")


Parsed = TypeVar("Parsed")


def parse_object(
    payload: bytes,
    of_members: Callable[[list[tuple[str, Any]]], Parsed],
    kind: type[Parsed],
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Parsed:
    """The JSON object that a message is, numbers exact; `of_members` makes a `kind` of each object's members, in
    order and with repeats. Raises RejectError."""
    text = check_text(payload, max_bytes)
    # Bounds the nesting before the parser recurses into it.
    if text.count("{") + text.count("[") > MAX_BRACKETS:
        raise RejectError("malformed", f"more than {MAX_BRACKETS} objects and lists")
    try:
        parsed = json.loads(
            text,
            parse_float=exact_decimal,
            parse_int=exact_integer,
            parse_constant=_reject_constant,
            object_pairs_hook=of_members,
        )
    except ValueError:
        raise RejectError("malformed", "not one JSON document") from None
    check_escapes(text)
    if not isinstance(parsed, kind):
        raise RejectError("malformed", "not a JSON object")
    return parsed


def check_text(payload: bytes, max_bytes: int = MAX_MESSAGE_BYTES) -> str:
    """The text of a message; any decoder of text formats starts here. Raises RejectError."""
    if not payload.strip(_BLANK):
        raise RejectError("empty", "the message has no content")
    if len(payload) > max_bytes:
        raise RejectError("oversized", f"the message is larger than {max_bytes} bytes")
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise RejectError("encoding", "the message is not UTF-8") from None


def check_escapes(document: str) -> None:
    """Raise RejectError if a JSON document spells half a surrogate pair, in an unknown field, too.

    That is no text: the warehouse could not hold the payload.
    """
    if _SURROGATE.search(document):
        # Every name and text, those of repeated names as well; numbers are not looked at.
        whole = json.loads(document, parse_float=str, parse_int=str, object_pairs_hook=list)
        try:
            json.dumps(whole, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RejectError("encoding", "an escape is half a surrogate pair") from None


@dataclass(frozen=True, slots=True)
class ReceiptBounds:
    """The first and the last time of receipt (naive UTC) that is believed."""

    first: datetime
    last: datetime


def believed_receipts(claimed_at: datetime, not_before: datetime) -> ReceiptBounds:
    """What a claim lets its messages say of their receipt: Kafka's timestamp is only the producer's clock.

    A function of the claim alone, so that every replay of it decides the same.
    """
    return ReceiptBounds(not_before, claimed_at + MAX_RECEIPT_AHEAD)


def check_clock(event_ts: datetime, arrival_ts: datetime, believed: ReceiptBounds) -> None:
    """Raise RejectError if a receipt is not believed, or an event is older than 400 days or more than 24 h ahead then.

    All times are naive UTC.
    """
    if arrival_ts < believed.first:
        raise RejectError("clock", f"the receipt is before {believed.first:%Y-%m-%d %H:%M:%S}")
    if arrival_ts > believed.last:
        raise RejectError(
            "clock", f"the receipt is more than {MAX_RECEIPT_AHEAD // timedelta(hours=1)} h after the claim"
        )
    if event_ts < arrival_ts - MAX_AGE:
        raise RejectError("clock", f"event_ts is more than {MAX_AGE.days} days before the receipt")
    if event_ts > arrival_ts + MAX_AHEAD:
        raise RejectError("clock", "event_ts is more than 24 h after the receipt")


class _Object:
    """A JSON object with its members in order, repeats included."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def exact_integer(text: str) -> int:
    """A JSON integer, for `json.loads`; of 40 characters and more only that it is beyond every column."""
    # Python refuses to convert thousands of digits; anything this long is out of every column's range.
    return int(text) if len(text) < 40 else 10**40 if text[0] != "-" else -(10**40)


def exact_decimal(text: str) -> Decimal:
    """A JSON number with a fraction or exponent, for `json.loads`."""
    try:
        return Decimal(text)
    except InvalidOperation:  # An exponent beyond even the decimal module: judged by range or precision.
        digits, _, exponent = text.lower().partition("e")
        if not digits.strip("-0."):
            return Decimal(0)
        sign = "-" if digits[0] == "-" else ""
        return Decimal(f"{sign}1e{'-' if exponent[0] == '-' else ''}999999")


def _reject_constant(name: str) -> NoReturn:
    raise RejectError("malformed", "NaN and Infinity are no JSON numbers")
