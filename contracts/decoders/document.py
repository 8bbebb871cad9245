"""What vendor decoders share: parsing a message exactly, typed access to its fields, event ids.

The contract's own rules (bounds, precision, required fields) are in
`contracts.telemetry`, which every decoder ends with.
"""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from contracts.telemetry import RejectError, parse_object

_EPOCH = datetime(1970, 1, 1)
Document = dict[str, Any]


def parse_document(payload: bytes) -> Document:
    """The JSON object of a message, decimals exact. Raises RejectError.

    A name that one object repeats is `malformed`: which of the two counts would be a guess.
    """
    return parse_object(payload, _unique_names, dict)


def _unique_names(pairs: list[tuple[str, Any]]) -> Document:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise RejectError("malformed", "an object repeats a name")
    return document


def field_of(document: Document, name: str, kind: type) -> Any:
    """A field that must be there with a value of exactly this type.

    Raises RejectError `missing` for an absent, null or empty one, `type` for another type.
    """
    value = document.get(name)
    if value is None or value == "":
        raise RejectError("missing", f"{name} is required")
    if type(value) is not kind:
        raise RejectError("type", f"{name} is not of type {kind.__name__}")
    return value


def moment_of_millis(name: str, millis: int) -> datetime:
    """Naive UTC of milliseconds since 1970. Raises RejectError `timestamp` outside datetime's range."""
    try:
        return _EPOCH + timedelta(milliseconds=millis)
    except OverflowError:
        raise RejectError("timestamp", f"{name} is no time that exists") from None


def event_id_of(*key_fields: Any) -> str:
    """32 hex digits of SHA-256 over the vendor's key fields; equal fields give equal ids."""
    text = json.dumps(key_fields, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
