"""Which days share files."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse.duckdb import publish_layout
from warehouse.duckdb.publish_layout import MERGED_ROWS, SORTED_ROWS, WHOLE, layout, name_of, to_write


def days(first: str, count: int, rows: int) -> dict[str, int]:
    start = date.fromisoformat(first)
    return {str(start + timedelta(days=number)): rows for number in range(count)}


def names(rows: dict[str, int], is_sorted: bool = True) -> list[str]:
    return [name_of(group) for group in layout(rows, is_sorted)]


def test_a_month_of_few_rows_is_one_file() -> None:
    rows = days("2026-06-01", 31, SORTED_ROWS // 30)
    assert names(rows) == ["2026-06-01_to_2026-06-30", "2026-07-01"]
    assert names(rows, is_sorted=False) == ["2026-06-01_to_2026-06-30", "2026-07-01"]
    assert names({WHOLE: 10 * SORTED_ROWS}) == [WHOLE]
    assert layout({}, is_sorted=True) == []


def test_of_a_larger_month_settled_weeks_are_files_where_there_is_an_order() -> None:
    rows = days("2026-06-01", 15, SORTED_ROWS)
    assert names(rows) == ["2026-06-01_to_2026-06-07", *(f"2026-06-{day:02}" for day in range(8, 16))]
    assert names(rows, is_sorted=False) == [f"2026-06-{day:02}" for day in range(1, 16)]
    # Seven days after its last one.
    assert "2026-06-01_to_2026-06-07" in names(days("2026-06-01", 14, SORTED_ROWS))
    assert "2026-06-01_to_2026-06-07" not in names(days("2026-06-01", 13, SORTED_ROWS))


def test_the_last_week_has_what_is_left_of_its_month() -> None:
    rows = days("2026-05-01", 45, SORTED_ROWS)
    assert names(rows)[:5] == [
        "2026-05-01_to_2026-05-07",
        "2026-05-08_to_2026-05-14",
        "2026-05-15_to_2026-05-21",
        "2026-05-22_to_2026-05-31",
        "2026-06-01_to_2026-06-07",
    ]


def test_a_day_from_the_future_settles_nothing() -> None:
    rows = days("2026-06-01", 7, SORTED_ROWS) | {"2099-01-01": 1}
    assert names(rows) == [f"2026-06-{day:02}" for day in range(1, 8)] + ["2099-01-01"]


def test_weeks_of_very_many_rows_stay_by_day() -> None:
    rows = days("2026-06-01", 30, MERGED_ROWS // 7 + 1)
    assert names(rows) == sorted(rows)


@pytest.mark.parametrize(
    ("files", "changed", "written"),
    [
        ({"a": ["1"], "b": ["1"], "c": ["2"]}, set(), []),
        ({"a": ["1"], "b": ["1"], "c": ["2"]}, {"b"}, [("a", "b")]),
        ({"a": ["1"], "b": ["3"], "c": ["2"]}, set(), [("a", "b")]),
        # A part that is gone was in the file.
        ({"a": ["1"], "b": ["1"], "c": ["2"], "d": ["2"]}, {"d"}, [("c",)]),
        ({"a": ["1"], "b": ["1"]}, {"c"}, [("c",)]),
        ({"a": ["1", "2"], "b": ["1", "2"], "c": ["2"]}, set(), [("a", "b"), ("c",)]),
        ({}, {"a", "b", "c"}, [("a", "b"), ("c",)]),
    ],
)
def test_groups_are_written_when_something_of_them_or_of_their_files_changed(files, changed, written) -> None:
    assert to_write([("a", "b"), ("c",)], files, changed) == written


@given(
    counts=st.dictionaries(st.dates(date(2026, 4, 25), date(2026, 7, 5)), st.integers(0, 30)),
    is_sorted=st.booleans(),
)
def test_every_part_is_in_one_group_of_one_month(counts: dict[date, int], is_sorted: bool) -> None:
    rows = {str(day): count for day, count in counts.items()}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(publish_layout, "SORTED_ROWS", 100)
        patched.setattr(publish_layout, "MERGED_ROWS", 150)
        groups = layout(rows, is_sorted)
    assert sorted(part for group in groups for part in group) == sorted(rows)
    assert all(len({part[:7] for part in group}) == 1 for group in groups)
    assert all(sum(rows[part] for part in group) <= 150 for group in groups if len(group) > 1)
    assert len({name_of(group) for group in groups}) == len(groups)
