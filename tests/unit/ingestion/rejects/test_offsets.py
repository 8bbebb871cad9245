"""Runs of offsets: the same set, shorter."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ingestion.rejects.offsets import OffsetSet, offsets_of, runs_of

offsets = st.sets(st.integers(0, 60)).map(sorted)


@given(offsets)
def test_runs_give_back_their_offsets_and_are_fewest(members: list[int]) -> None:
    runs = runs_of(np.array(members, np.int64))
    assert offsets_of(runs).tolist() == members
    assert all(end < first for (_, end), (first, _) in itertools.pairwise(runs))


@given(offsets, offsets, offsets, st.integers(0, 60), st.integers(0, 60))
def test_a_set_holds_what_was_added(
    members: list[int], more: list[int], asked: list[int], first: int, end: int
) -> None:
    whole = OffsetSet(runs_of(np.array(members, np.int64)))
    new = sorted({*more} - {*members})
    whole.add(runs_of(np.array(new, np.int64)))
    everything = {*members, *new}
    assert len(whole) == len(everything)
    found = whole.contains(np.array(asked, np.int64))
    assert found.tolist() == [offset in everything for offset in asked]
    assert whole.meets(first, end) == any(first <= offset < end for offset in everything)
