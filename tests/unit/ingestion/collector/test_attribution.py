"""Whose event it is, against a plain reading of contracts.md: moment by moment, and as the warehouse says it."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import jinja2
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.collector.attribution import OPEN_END, Assignment, Demand, divided, segments
from lake.disputes import Disputed

START = datetime(2026, 6, 1)
DAY = timedelta(days=1)
DAYS = 8
MACRO = Path(__file__).resolve().parents[4] / "dbt_project/macros/histories/segments.sql"


def day(number: int) -> datetime:
    return START + number * DAY


def claimants(assignments: Sequence[Assignment], device_id: str, moment: datetime) -> set[str]:
    """contracts.md: a closed assignment ends at its end, an open one where a later one of the device begins."""
    found = set()
    for one in assignments:
        if one.device_id != device_id or one.pet_id is None or moment < one.assigned_from:
            continue
        if one.assigned_to is not None:
            is_over = moment >= one.assigned_to
        else:
            is_over = any(
                other.device_id == device_id and one.assigned_from < other.assigned_from <= moment
                for other in assignments
            )
        if not is_over:
            found.add(one.pet_id)
    return found


ASSIGNMENTS = st.lists(
    st.builds(
        Assignment,
        st.sampled_from(["d", "e"]),
        st.sampled_from(["p1", "p2", "p3", None]),
        st.integers(0, DAYS).map(day),
        st.one_of(st.none(), st.integers(0, DAYS).map(day)),
    ),
    max_size=8,
)


@settings(max_examples=settings.default.max_examples // 2)
@given(ASSIGNMENTS)
def test_at_every_moment_those_claim_a_device_that_the_contract_names(assignments: list[Assignment]) -> None:
    found = segments(assignments)
    for device_id in ("d", "e"):
        for number in range(-1, DAYS + 2):
            at = day(number)
            claimed = [
                set(one.pet_ids)
                for one in found
                if one.device_id == device_id and one.from_ts <= at and (one.to_ts is None or at < one.to_ts)
            ]
            assert claimed == ([expected] if (expected := claimants(assignments, device_id, at)) else [])


@settings(max_examples=settings.default.max_examples // 2)
@given(ASSIGNMENTS, st.integers(0, DAYS), st.one_of(st.none(), st.integers(0, DAYS)))
def test_a_demand_covers_what_its_pet_alone_claims_and_the_rest_of_it_is_disputed(
    assignments: list[Assignment], first: int, last: int | None
) -> None:
    until = None if last is None else day(last)
    stretches, disputed = divided([Demand("o1", "p1", day(first), until, "why")], assignments)
    for device_id in ("d", "e"):
        for number in range(-1, DAYS + 2):
            at = day(number)
            is_asked = first <= number and (last is None or number < last)
            pets = claimants(assignments, device_id, at)
            covers = [
                any(
                    one.device_id == device_id and one.from_ts <= at and (one.to_ts is None or at < one.to_ts)
                    for one in spans
                )
                for spans in (stretches, disputed)
            ]
            assert covers == [is_asked and pets == {"p1"}, is_asked and len(pets) > 1 and "p1" in pets]


def test_a_span_that_other_statements_cut_is_one_question() -> None:
    assignments = [
        Assignment("d", "p1", day(0), day(6)),
        Assignment("d", "p2", day(2), day(4)),
        Assignment("d", "p2", day(4), day(5)),
    ]
    _, disputed = divided([Demand("o1", "p1", day(0), None, "why")], assignments)
    assert disputed == [Disputed("d", day(2), day(5), "o1", ("p1", "p2"), "why")]


def test_the_warehouse_has_the_same_rule() -> None:
    rng = random.Random(11)
    assignments = [
        Assignment(
            f"d{device}",
            rng.choice(["p1", "p2", "p3", "p4"]),
            day(rng.randrange(DAYS)),
            rng.choice([None, None, day(rng.randrange(DAYS)), day(rng.randrange(DAYS))]),
        )
        for device in range(600)
        for _ in range(rng.randrange(1, 6))
    ]
    rows = pa.Table.from_pylist(
        [{**one._asdict(), "assignment_id": f"a{number}"} for number, one in enumerate(assignments)],
        schema=pa.schema(
            [
                *((name, pa.string()) for name in ("assignment_id", "device_id", "pet_id")),
                *((name, pa.timestamp("us")) for name in ("assigned_from", "assigned_to")),
            ]
        ),
    )
    ctes = jinja2.Template(MACRO.read_text() + "{{ device_segments('assignments') }}").render()
    with duckdb.connect() as con:
        con.register("assignments", rows)
        built = con.execute(
            f"with {ctes} select device_id, segment_from, segment_to, pet_id, pet_resolution from segments"
        ).fetchall()
    expected = [
        (
            one.device_id,
            one.from_ts,
            one.to_ts or OPEN_END,
            one.pet_ids[0] if len(one.pet_ids) == 1 else None,
            "assigned" if len(one.pet_ids) == 1 else "ambiguous",
        )
        for one in segments(assignments)
    ]
    assert {"assigned", "ambiguous"} == {row[4] for row in built}
    assert sorted(built, key=lambda row: row[:2]) == sorted(expected, key=lambda row: row[:2])
