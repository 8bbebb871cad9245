"""GPS collars of a Movebank study: a message is one row of the export, as a JSON object of its texts.

- `device_id` is `tag_id`; `event_id` hashes `tag_id` and Movebank's own event number,
  which is unique in the export.
- `event_ts` is `timestamp`. Movebank states times in UTC without writing a zone. The
  export has no time of receipt: these collars store fixes until they are read, and
  the replayer sets the arrival to the event's time.
- `quality_score` is 0 where the source marks the fix as an outlier, by algorithm or by
  hand, else 1: every fix went through both, so an unmarked one has passed.
- A fix without coordinates has null `gps_lat` and `gps_long`.
- `ground_speed` is not in m/s as Movebank defines it: every value is a multiple of 36,
  so metres per hour counted in cm/s (median 1,080, or 0.3 m/s). It and
  `height_above_ellipsoid` have no place in the contract and stay in the payload.
"""

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from contracts.decoders.document import Document, event_id_of, field_of, parse_document
from contracts.telemetry import RejectError, validate_event

NAME = "movebank-v1"
VERSION = "1"
SOURCE_SYSTEM = "movebank"
TOPIC = "telemetry.movebank"

OUTLIER_FLAGS = ("algorithm_marked_outlier", "manually_marked_outlier")
_FLAG_VALUES = {"TRUE": True, "FALSE": False, "": False}
_NUMBER = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,20})?")
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?")


def decode(payload: bytes) -> dict[str, Any]:
    """One fix as checked contract fields. Raises RejectError."""
    fix = parse_document(payload)
    device_id = field_of(fix, "tag_id", str)
    lat, long = _coordinate(fix, "location_lat"), _coordinate(fix, "location_long")
    if (lat is None) != (long is None):
        raise RejectError("missing", "a position needs both location_lat and location_long")
    outlier = {_flag(fix, name) for name in OUTLIER_FLAGS}
    return validate_event(
        {
            "device_id": device_id,
            "event_ts": parse_timestamp(field_of(fix, "timestamp", str)),
            "event_id": event_id_of(device_id, field_of(fix, "event_id", str)),
            "gps_lat": lat,
            "gps_long": long,
            "quality_score": Decimal(0 if True in outlier else 1),
            "schema_version": 1,
        }
    )


def parse_timestamp(text: str) -> datetime:
    """Movebank's `YYYY-MM-DD hh:mm:ss[.ffffff]`, which is UTC. Raises RejectError `timestamp`."""
    if not _TIMESTAMP.fullmatch(text):
        raise RejectError("timestamp", "timestamp is not 'YYYY-MM-DD hh:mm:ss'")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise RejectError("timestamp", "timestamp is no time that exists") from None


def _coordinate(fix: Document, name: str) -> Decimal | None:
    value = fix.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise RejectError("type", f"{name} is not a number")
    return Decimal(value)


def _flag(fix: Document, name: str) -> bool:
    value = fix.get(name)
    if value is None:
        raise RejectError("missing", f"{name} is required")
    if not isinstance(value, str) or value not in _FLAG_VALUES:
        raise RejectError("type", f"{name} is neither TRUE nor FALSE")
    return _FLAG_VALUES[value]
