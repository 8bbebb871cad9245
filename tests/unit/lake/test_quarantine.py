"""Which rows the quarantine ledger covers, and which part of overlapping claims stands."""

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from landed import STREAM, claim

from lake.landing import ClaimChainError, verify_chain
from lake.quarantine import Quarantine, Span, count_quarantine, load_quarantine, put_entry, quarantine_entry
from lake.store import LocalStore

T0 = datetime(2026, 6, 1)


def quarantined(*spans: Span) -> Quarantine:
    return Quarantine((quarantine_entry("why", "ann", T0, spans),) if spans else ())


def test_the_ledger_reads_back_what_was_entered_and_what_was_released(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    row, whole = Span(STREAM, 0, 7, 8), Span(STREAM, 1, 0, 100)
    first = quarantine_entry("stamped 2036", "ann", T0, [row])
    second = quarantine_entry("a broken gateway", "bob", datetime(2026, 6, 2), [whole])
    for entry in (first, second, first):
        put_entry(store, entry)
    assert load_quarantine(store).entries == (first, second)
    assert load_quarantine(store).spans == (row, whole)
    release = quarantine_entry(
        "the gateway was right", "ann", datetime(2026, 6, 3), releases=second.quarantine_id
    )
    put_entry(store, release)
    found = load_quarantine(store)
    assert (found.in_force, found.spans, count_quarantine(store)) == ((first,), (row,), 3)
    assert found.released == {second.quarantine_id: release}
    assert found.changed_by([release.quarantine_id]) == (whole,)
    assert [(one.span, one.is_released) for one in found.by_entry] == [(row, False), (whole, True)]


offsets = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted)
files = st.sampled_from(["a", "b", None])


@given(
    st.lists(st.tuples(st.sampled_from(["s", "t"]), st.integers(0, 1), offsets, files), max_size=4),
    st.lists(
        st.tuples(st.sampled_from(["s", "t"]), st.integers(0, 1), st.integers(0, 12), st.sampled_from("ab"))
    ),
)
def test_a_row_is_covered_if_a_span_names_its_place_and_not_another_file(
    spans: list[tuple[str, int, list[int], str | None]], rows: list[tuple[str, int, int, str]]
) -> None:
    named = quarantined(*(Span(stream, part, low, high, file) for stream, part, (low, high), file in spans))
    table = pa.table(
        {
            "stream_id": pa.array([row[0] for row in rows], pa.string()),
            "kafka_partition": pa.array([row[1] for row in rows], pa.int32()),
            "kafka_offset": pa.array([row[2] for row in rows], pa.int64()),
            "source_file": pa.array([row[3] for row in rows], pa.string()),
        }
    )
    assert named.rows(table).tolist() == [
        any(
            (stream, part) == (at[0], at[1]) and low <= at[2] < high and file in (None, at[3])
            for stream, part, (low, high), file in spans
        )
        for at in rows
    ]


def test_claims_that_overlap_follow_one_another_without_what_was_superseded() -> None:
    claims = [claim(0, 200), claim(100, 200), claim(200, 300)]
    with pytest.raises(ClaimChainError):
        verify_chain(claims)
    standing = quarantined(Span(STREAM, 0, 100, 200, claims[1].landing_key)).standing(claims)
    assert standing == [claims[0], claims[2]]
    verify_chain(standing)


def test_of_a_claim_that_is_superseded_in_part_the_rest_stands() -> None:
    claims = [claim(0, 200), claim(100, 300)]
    standing = quarantined(Span(STREAM, 0, 100, 200, claims[1].landing_key)).standing(claims)
    assert [(one.start, one.end) for one in standing] == [(0, 200), (200, 300)]
    verify_chain(standing)


def test_a_quarantined_range_of_offsets_supersedes_no_claim() -> None:
    claims = [claim(0, 200), claim(200, 300)]
    assert quarantined(Span(STREAM, 0, 0, 300)).standing(claims) == claims
