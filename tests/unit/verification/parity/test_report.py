"""When a parity run is green, and what it prints when it is not."""

from dataclasses import replace

import pytest

from verification.parity.__main__ import lines_of
from verification.parity.limits import LIMITS
from verification.parity.run import Report, TableResult, compared_rows, named
from verification.parity.world import WorldSize
from warehouse.compare import ABSENT, Comparison, Difference

EQUAL = Comparison("cur.owners", ("owner_sk", "district"), 24, 24, 0, ())
DIFFERENT = replace(
    EQUAL,
    differing=2,
    differences=(
        Difference("cur.owners", (("owner_sk", "a1"),), "district", "4", "5"),
        Difference("cur.owners", (("owner_sk", "a2"),), "", "row", ABSENT),
    ),
)


def report(*comparisons: Comparison) -> Report:
    return Report(WorldSize(), [TableResult(f"step {n}", one) for n, one in enumerate(comparisons)])


def test_a_run_is_green_when_something_was_compared_and_nothing_differs():
    assert report(EQUAL, EQUAL).is_green


@pytest.mark.parametrize(
    "spoilt",
    [
        report(),
        report(EQUAL, DIFFERENT, EQUAL),
        replace(report(EQUAL), problems=["stg.pets is on snowflake only"]),
        replace(report(EQUAL), ended=[LIMITS[0]]),
    ],
)
def test_a_run_is_not_green_when_anything_is_wrong(spoilt):
    assert not spoilt.is_green
    assert not spoilt.document()["is_green"]


def test_differences_are_printed_with_step_table_key_column_and_both_values():
    lines = lines_of(report(EQUAL, DIFFERENT))
    assert lines[:2] == [
        "step 1: cur.owners [owner_sk=a1] district: '4' != '5'",
        "step 1: cur.owners [owner_sk=a2]: 'row' != '(no row)'",
    ]
    # Rows of the last step, differing of all.
    assert "cur.owners                                 24        2          2" in lines


def test_every_limit_says_how_the_emulator_fails_and_what_follows():
    for limit in LIMITS:
        assert limit.means, limit.feature
        assert bool(limit.error) != (limit.answer is not None), limit.feature
    assert len({limit.feature for limit in LIMITS}) == len(LIMITS)


def test_a_table_of_which_some_rows_are_compared_goes_by_its_own_name():
    asked = compared_rows("raw.build_marks")
    assert asked != "raw.build_marks"
    difference = Difference(asked, (("mark", "warehouse"),), "load_seq", 1, 2)
    found = named(Comparison(asked, ("mark", "load_seq"), 1, 1, 1, (difference,)), "raw.build_marks")
    assert found.table == "raw.build_marks"
    assert str(found.differences[0]).startswith("raw.build_marks [mark=")
