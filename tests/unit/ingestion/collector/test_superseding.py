"""Which of two overlapping claims is set aside, and that no row is lost by it."""

from datetime import datetime
from itertools import pairwise

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from landed import STREAM, claim

from ingestion.collector.superseding import superseded_spans
from lake.quarantine import NOTHING_QUARANTINED, Quarantine, quarantine_entry

T0 = datetime(2026, 6, 1)


held = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda at: (at[0], sum(at))),
    st.sets(st.integers(0, 18)),
    min_size=1,
    max_size=4,
)


@given(held)
def test_what_stands_overlaps_nowhere_and_has_every_row_once(
    rows_of: dict[tuple[int, int], set[int]],
) -> None:
    rows_of = {
        (low, high): {offset for offset in rows if low <= offset < high}
        for (low, high), rows in rows_of.items()
    }
    assume(len({low for low, _ in rows_of}) == len(rows_of))
    claims = [claim(*bounds) for bounds in sorted(rows_of)]
    spans, refused = superseded_spans(
        claims, NOTHING_QUARANTINED, lambda one: np.array(sorted(rows_of[one.start, one.end]), np.int64)
    )
    quarantine = Quarantine((quarantine_entry("why", "ann", T0, spans),))
    kept: list[int] = []
    for one in claims:
        standing = quarantine.standing([one])
        kept += [
            offset
            for offset in rows_of[one.start, one.end]
            if any(piece.start <= offset < piece.end for piece in standing)
        ]
    assert {*kept} == {offset for rows in rows_of.values() for offset in rows}
    if not refused:
        assert len(kept) == len({*kept})
        standing = sorted(quarantine.standing(claims), key=lambda piece: piece.start)
        assert all(before.end <= after.start for before, after in pairwise(standing))


def test_of_two_that_hold_the_same_the_later_one_is_superseded() -> None:
    first, second = claim(0, 200), claim(100, 200)
    [span], refused = superseded_spans(
        [first, second], NOTHING_QUARANTINED, lambda one: np.arange(one.start, one.end)
    )
    assert (span.start, span.end, span.source_file, refused) == (100, 200, second.landing_key, [])


def test_two_that_each_hold_rows_of_their_own_are_refused_by_name() -> None:
    rows = {0: np.array([0, 12]), 10: np.array([11, 15])}
    spans, [why] = superseded_spans(
        [claim(0, 20), claim(10, 20)], NOTHING_QUARANTINED, lambda one: rows[one.start]
    )
    assert spans == []
    assert f"[0, 20) of {STREAM} partition 0 and claim [10, 20)" in why
    assert "would lose rows" in why
