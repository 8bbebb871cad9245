"""Values of statements: lists fill the parentheses of an `in`."""

from datetime import date, datetime

import pytest

from ml.warehouse import expanded


@pytest.mark.parametrize(
    ("sql", "values", "expected"),
    [
        ("select 1", [], ("select 1", [])),
        ("a = ?", ["x"], ("a = %s", ["x"])),
        ("a in (?) and b <= ?", [["x", "y"], datetime(2026, 6, 1)], ("a in (%s, %s) and b <= %s", ["x", "y", datetime(2026, 6, 1)])),
        ("a in (?) or d in (?)", [[], [date(2026, 6, 1)]], ("a in (null) or d in (%s)", [date(2026, 6, 1)])),
    ],
)  # fmt: skip
def test_each_value_gets_a_mark(sql, values, expected):
    assert expanded(sql, values, "%s") == expected


@pytest.mark.parametrize("values", [[], ["x", "y"]])
def test_as_many_marks_as_values(values):
    with pytest.raises(ValueError, match="1 question marks"):
        expanded("a = ?", values, "?")
