"""Planted message faults: which kinds there are, how a message is broken, which reject it must cause.

Which message gets which fault is drawn in `telemetry`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

# Kinds of messages: as due, or one planted fault. DUPLICATE and CONFLICT mark the second copy.
NORMAL, LATE, OUT_OF_ORDER, DUPLICATE, CONFLICT, MALFORMED = range(6)

OVERSIZED_BYTES = 66_000  # the collector refuses more than 64 KiB by default


class Malformation(NamedTuple):
    """One way to break a good message, and the reason the collector must give."""

    name: str
    reason: str
    apply: Callable[[bytes], bytes]


def _with(field: str, raw: bytes) -> Callable[[bytes], bytes]:
    pattern = re.compile(rb'"' + field.encode() + rb'":("[^"]*"|[^,}]*)')
    text = b'"' + field.encode() + b'":' + raw
    return lambda value: pattern.sub(lambda _: text, value, count=1)


def _without(field: str) -> Callable[[bytes], bytes]:
    pattern = re.compile(rb'"' + field.encode() + rb'":("[^"]*"|[^,}]*),')
    return lambda value: pattern.sub(b"", value, count=1)


def _zoneless(value: bytes) -> bytes:
    return re.sub(rb'("event_ts":"[^"]*)Z"', rb'\1"', value, count=1)


def _oversized(value: bytes) -> bytes:
    return value[:-1] + b',"debug":"' + b"x" * (OVERSIZED_BYTES - len(value)) + b'"}'


MALFORMATIONS: tuple[Malformation, ...] = (
    Malformation("truncated", "malformed", lambda value: value[: len(value) // 2]),
    Malformation("not_a_number", "malformed", _with("battery_pct", b"NaN")),
    Malformation("empty", "empty", lambda _: b""),
    Malformation("oversized", "oversized", _oversized),
    Malformation("not_utf8", "encoding", _with("firmware_version", b'"2.\xff\xfe"')),
    Malformation("no_event_id", "missing", _without("event_id")),
    Malformation("text_for_number", "type", _with("step_count", b'"12"')),
    Malformation("boolean_for_number", "type", _with("lick_count", b"true")),
    Malformation("too_precise", "precision", _with("battery_pct", b"50.12345")),
    Malformation("battery_over_100", "range", _with("battery_pct", b"150.00")),
    Malformation("zoneless_time", "timestamp", _zoneless),
    Malformation("unknown_version", "version", _with("schema_version", b"9")),
)
