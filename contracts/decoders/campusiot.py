"""LoRaWAN field test trackers of CampusIoT, one JSON document a frame as the Helium network delivers it.

Field by field, with what the 16,954 frames of the real file say:

- `device_id` is `dev_eui`. `name` is no identity: one device changes its name.
- `event_ts` is `reported_at`, the moment a hotspot reported the frame: trackers send
  no clock of their own, and this is the time nearest to the device that the source
  states. It equals the first hotspot's `reported_at` in every frame. A hotspot that
  was off line reports late: then `hold_time` (ms, in the payload) is large, and the
  server's time less `hold_time` comes nearest to the sending (median 0.1 s off the
  frame's first copy over 30 repeated frames held over a minute). That sum
  mixes two clocks, so it stays an analysis and is not the event's time.
- Arrival is `_timestamp`, the server's time of receipt: never earlier than
  `reported_at`, 0.8 s later in the median, 49 minutes at most. The replayer sets it.
- `event_id` hashes what identifies a frame: `dev_eui`, `devaddr`, `fcnt`, `port` and the
  decoded payload. LoRaWAN repeats a frame bit by bit, seconds apart or over several
  hotspots, with the same session address and counter (6,410 repeats). The counter
  alone does not do: it starts again at every join, and 2,314 numbers of a device come
  again for another frame. With the session's address it almost does: an address was
  given out again twice, which the payload (battery, temperature, counters) tells
  apart. Repeats received over two minutes after the copy before had been held by
  their hotspot about that long, so none of them is another frame. Times are not part
  of the key, since every repeat has its own.
- No fix is null latitude and longitude (7,404 frames, one of them without any
  decoded value).
- Positions carry float32 noise (45.19500732421875): rounded here, half to even, to the
  contract's 7 decimals (11 mm); the payload keeps them as sent.
- `temperature` is the tracker's, not a body's; `batteryVoltage` is millivolts, not a
  percentage; `quality` and `satellites` have no agreed scale. They stay in the payload.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from contracts.decoders.document import Document, event_id_of, field_of, moment_of_millis, parse_document
from contracts.telemetry import RejectError, validate_event

NAME = "campusiot-v1"
VERSION = "1"
SOURCE_SYSTEM = "campusiot"
TOPIC = "telemetry.campusiot"

_SEVEN_DECIMALS = Decimal("1e-7")


def decode(payload: bytes) -> dict[str, Any]:
    """One frame as checked contract fields. Raises RejectError."""
    frame = parse_document(payload)
    device_id = field_of(frame, "dev_eui", str)
    measured = field_of(field_of(frame, "decoded", dict), "payload", dict)
    lat, long = _position(measured)
    return validate_event(
        {
            "device_id": device_id,
            "event_ts": moment_of_millis("reported_at", field_of(frame, "reported_at", int)),
            "event_id": event_id_of(
                device_id,
                field_of(frame, "devaddr", str),
                field_of(frame, "fcnt", int),
                field_of(frame, "port", int),
                measured,
            ),
            "gps_lat": lat,
            "gps_long": long,
            "schema_version": 1,
        }
    )


def _position(measured: Document) -> tuple[Decimal | None, Decimal | None]:
    lat, long = measured.get("latitude"), measured.get("longitude")
    if lat is None and long is None:
        return None, None
    if lat is None or long is None:
        raise RejectError("missing", "a position needs both latitude and longitude")
    return _degrees("latitude", lat, 90), _degrees("longitude", long, 180)


def _degrees(name: str, value: Any, limit: int) -> Decimal:
    if type(value) not in (int, Decimal):
        raise RejectError("type", f"{name} is not a number")
    if not -limit <= value <= limit:  # Not by abs(), which fails for exponents beyond the context's.
        raise RejectError("range", f"{name} is outside its bounds")
    return Decimal(value).quantize(_SEVEN_DECIMALS, rounding=ROUND_HALF_EVEN)
