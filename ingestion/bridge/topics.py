"""The shape of MQTT topic names. No I/O."""

import re
from dataclasses import dataclass

MAX_LEVEL_CHARS = 64

_LEVEL = rf"[A-Za-z0-9._:-]{{1,{MAX_LEVEL_CHARS}}}"
_TELEMETRY = re.compile(rf"petwellness/({_LEVEL})/({_LEVEL})/telemetry")


class BadTopicError(ValueError):
    """A topic name that is not `petwellness/{clinic_id}/{device_id}/telemetry`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Whose telemetry a topic carries: the clinic the collar reports through, and the device."""

    clinic_id: str
    device_id: str


def parse_topic(topic: str) -> Place:
    """The clinic and device of a telemetry topic. Raises BadTopicError."""
    match = _TELEMETRY.fullmatch(topic)
    if match is None:
        raise BadTopicError(f"'{topic[:200]}' is not petwellness/{{clinic_id}}/{{device_id}}/telemetry")
    return Place(match[1], match[2])
