"""Friendly names: what analysts read instead of the names of columns."""

from __future__ import annotations

from powerbi.star import COLUMN_NAMES

_WORDS = {"id": "ID"}
_UNITS = {"bpm": "bpm", "c": "°C", "kg": "kg", "minutes": "minutes", "pct": "%", "s": "s"}


def column_name(column: str) -> str:
    """The name of a column for people: words in title case, the unit in brackets."""
    if column in COLUMN_NAMES:
        return COLUMN_NAMES[column]
    words = column.split("_")
    unit = next((_UNITS[word] for word in words[1:] if word in _UNITS), None)
    named = [_WORDS.get(word, word.capitalize()) for word in words if unit is None or word not in _UNITS]
    return " ".join(named) + (f" ({unit})" if unit else "")


def dax_column(table: str, column: str) -> str:
    """A column of the warehouse as DAX refers to it."""
    return f"'{table}'[{column_name(column)}]"
