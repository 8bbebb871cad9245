"""Rejects as examples that anybody may see: which field, and what its values look like. No I/O.

A reject's detail names the field and never a value, and payloads are restricted. Here a
value is shown by its form (`contracts.personal_data.masked`), so that nothing of a
person is told; only a short number in a field that measures is shown as it came.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from contracts.personal_data import masked
from contracts.telemetry import TYPES

# Positions say where a person lives; the others measure an animal or its device.
_MEASURES = frozenset(
    name
    for name, kind in TYPES.items()
    if (pa.types.is_decimal(kind) or pa.types.is_integer(kind)) and not name.startswith("gps_")
)
# Shorter than a phone number or a microchip.
_SHORT = 6
_SHOWN_CHARS = 24
_VALUES = 2
_FIELD = re.compile(r"[A-Za-z]\w*")
# What a device may be called without saying anything of a person: a code with a digit, which names lack.
_CODE = re.compile(r"(?=.*\d)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ONLY_DIGITS = re.compile(r"[\d._-]{8,}")


class _Number(str):
    """A number of a message as its text."""

    __slots__ = ()


@dataclass(frozen=True)
class Example:
    """What is wrong with some rejects, as their detail says it, and what the values at fault look like."""

    reason: str
    detail: str
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" + (f": {', '.join(self.values)}" if self.values else "")


def examples_of(rejects: Iterable[Mapping[str, Any]], limit: int) -> list[Example]:
    """The most frequent faults among rejects (`reason`, `detail`, `payload`), at most `limit`."""
    counts: Counter[tuple[str, str]] = Counter()
    values: dict[tuple[str, str], list[str]] = {}
    for reject in rejects:
        fault = reject["reason"], reject["detail"]
        counts[fault] += 1
        shown = values.setdefault(fault, [])
        if len(shown) < _VALUES and reject["payload"] is not None:
            value = shown_value(reject["detail"], reject["payload"])
            if value is not None and value not in shown:
                shown.append(value)
    ordered = sorted(counts, key=lambda fault: (-counts[fault], fault))
    return [Example(*fault, tuple(values[fault])) for fault in ordered[:limit]]


def shown_value(detail: str, payload: bytes) -> str | None:
    """What the field that a detail begins with looks like in a message; None where the message has none."""
    named = _FIELD.match(detail)
    if named is None:
        return None
    try:
        document = json.loads(payload, parse_int=_Number, parse_float=_Number, parse_constant=_Number)
        value = _found(document, named[0])
    except (ValueError, RecursionError):
        return None
    if value is _ABSENT:
        return None
    return _shown(named[0], value)


def shown_device(device_id: str) -> str:
    """A device's id if it can be nothing but a code, else its form: it is what a stranger wrote."""
    is_code = _CODE.fullmatch(device_id) and not _ONLY_DIGITS.fullmatch(device_id)
    return device_id if is_code else _form(device_id)


_ABSENT = object()


def _found(value: Any, name: str) -> Any:
    """The first value of a name, nearest to the top."""
    level = [value]
    while level:
        for one in level:
            if isinstance(one, dict) and name in one:
                return one[name]
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return _ABSENT


def _shown(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, _Number):
        return str(value) if name in _MEASURES and len(value) <= _SHORT else _form(value)
    if isinstance(value, str):
        return f'"{_form(value)}"'
    return "an object" if isinstance(value, dict) else "a list"


def _form(text: str) -> str:
    form = "".join(char if char.isprintable() else "?" for char in masked(text[: _SHOWN_CHARS + 1]))
    return form if len(text) <= _SHOWN_CHARS else f"{form[:_SHOWN_CHARS]}..."
