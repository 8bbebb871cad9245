"""Object names: what they contain, and that they can be read back."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake import layout
from lake.layout import LayoutError

streams = st.from_regex(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]{0,20}", fullmatch=True)
offsets = st.integers(0, 2**63 - 1)


@given(streams, st.integers(0, 99_999), offsets)
def test_a_range_is_read_back_from_its_claim_and_manifest(stream_id: str, partition: int, start: int) -> None:
    for key in (
        layout.claim_key(stream_id, partition, start),
        layout.manifest_key(stream_id, partition, start),
    ):
        assert layout.range_of(key) == (stream_id, partition, start)


@given(st.lists(offsets, min_size=2, max_size=5))
def test_claims_sort_by_offset(starts: list[int]) -> None:
    keys = [layout.claim_key("s", 3, start) for start in starts]
    assert sorted(keys) == [layout.claim_key("s", 3, start) for start in sorted(starts)]


def test_prefixes_do_not_match_a_sibling() -> None:
    assert not layout.claim_key("stream-10", 1, 0).startswith(layout.claims_prefix("stream-1", 1))
    assert not layout.manifest_key("s", 10_001, 0).startswith(layout.manifests_prefix("s", 1))


def test_names_are_those_of_the_contract() -> None:
    claimed_at = datetime(2026, 6, 1, 23, 59)
    assert layout.claim_key("c.t.i", 7, 42) == "_claims/c.t.i/00007/00000000000000000042.json"
    assert layout.manifest_key("c.t.i", 7, 42) == "_manifests/c.t.i/00007/00000000000000000042.json"
    assert (
        layout.landing_key("telemetry_events", claimed_at, "c.t.i", 7, 42, 50)
        == "landing/telemetry_events/date=2026-06-01/c.t.i+7+42+50.parquet"
    )
    assert layout.reject_key("f", "c.t.i", 7, 42, "a" * 64) == f"_rejects/f/c.t.i+7+42+{'a' * 16}.parquet"
    assert layout.consent_key("s1") == "_consent/s1.json"
    assert layout.wave_key("w-1") == "_waves/w-1.json"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a+b", "a b", "é"])
def test_a_name_that_would_break_out_of_its_place_is_refused(name: str) -> None:
    with pytest.raises(LayoutError, match="object name"):
        layout.claim_key(name, 0, 0)


def test_other_keys_are_no_range() -> None:
    with pytest.raises(LayoutError, match="neither a claim nor a manifest"):
        layout.range_of("_waves/w.json")
