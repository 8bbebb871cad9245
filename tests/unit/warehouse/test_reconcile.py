"""Claims, manifests, ledger and table: what agrees gives no finding, every single fault its own."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import landed
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from landed import CLAIMED_AT

from lake.landing import Claim, Manifest
from lake.layout import RangeKey
from warehouse.reconcile import RawRange, Reconciliation, reconcile


def claim(stream_id: str, partition: int, start: int, end: int, claimed_at: datetime = CLAIMED_AT) -> Claim:
    return landed.claim(start, end, stream_id=stream_id, partition=partition, claimed_at=claimed_at)


def manifest(of: Claim, rejected: int = 0, consent_dropped: int = 0, offset_gaps: int = 0) -> Manifest:
    return landed.manifest(
        of,
        rows=of.end - of.start - rejected - consent_dropped - offset_gaps,
        rejected_by_reason={"malformed": rejected} if rejected else {},
        consent_dropped=consent_dropped,
        offset_gaps=offset_gaps,
    )


def raw_range(of: Manifest) -> RawRange:
    return RawRange(end=of.end, ledger_rows=of.rows, table_rows=of.rows, distinct_offsets=of.rows)


@dataclass
class State:
    """The four records of the same ranges."""

    claims: list[Claim]
    manifests: list[Manifest]
    raw_ranges: dict[RangeKey, RawRange] = field(default_factory=dict)
    orphan_rows: int = 0

    def reconciled(self, settled_before: datetime | None = None) -> Reconciliation:
        return reconcile(self.claims, self.manifests, self.raw_ranges, self.orphan_rows, settled_before)

    def rules(self) -> set[str]:
        return {finding.rule for finding in self.reconciled().findings}


def state(*manifests: Manifest) -> State:
    claims = [claim(m.stream_id, m.partition, m.start, m.end, m.ingested_at) for m in manifests]
    return State(claims, list(manifests), {m.range_key: raw_range(m) for m in manifests})


@pytest.fixture
def three_ranges() -> State:
    """Two ranges of one partition, the second with every kind of set-aside offset, and one of another."""
    return state(
        manifest(claim("s", 0, 0, 10)),
        manifest(claim("s", 0, 10, 30), rejected=3, consent_dropped=2, offset_gaps=1),
        manifest(claim("s", 1, 0, 5)),
    )


SECOND: RangeKey = ("s", 0, 10)


def test_records_that_agree_give_no_finding(three_ranges: State) -> None:
    result = three_ranges.reconciled()
    assert result.passed
    assert (result.claims, result.manifests, result.ledger_ranges, result.raw_rows) == (3, 3, 3, 29)
    assert result.pending == 0


def test_nothing_at_all_agrees() -> None:
    assert State([], []).reconciled().passed


def drop_claim(s: State) -> None:
    s.claims = [c for c in s.claims if c.range_key != SECOND]


def drop_first_claim(s: State) -> None:
    s.claims = [c for c in s.claims if c.range_key != ("s", 0, 0)]


def drop_manifest(s: State) -> None:
    s.manifests = [m for m in s.manifests if m.range_key != SECOND]


def drop_ledger(s: State) -> None:
    del s.raw_ranges[SECOND]


def cut_claim(s: State) -> None:
    s.claims = [msgspec.structs.replace(c, end=c.end - 1) if c.start == 0 else c for c in s.claims]


def change_raw(s: State, **values: int) -> None:
    s.raw_ranges[SECOND] = replace(s.raw_ranges[SECOND], **values)


def break_law(s: State) -> None:
    s.manifests = [
        msgspec.structs.replace(m, offset_gaps=m.offset_gaps + 1) if m.range_key == SECOND else m
        for m in s.manifests
    ]


def add_orphans(s: State) -> None:
    s.orphan_rows = 4


@pytest.mark.parametrize(
    ("fault", "rules"),
    [
        (drop_claim, {"manifest without claim"}),
        (drop_first_claim, {"manifest without claim", "chain begins above 0"}),
        (drop_manifest, {"claim without manifest", "ledger without manifest"}),
        (drop_ledger, {"manifest not loaded"}),
        (cut_claim, {"claims not contiguous"}),
        (break_law, {"law of the range"}),
        (lambda s: change_raw(s, end=29), {"range end"}),
        (lambda s: change_raw(s, ledger_rows=13), {"rows"}),
        (lambda s: change_raw(s, table_rows=15, distinct_offsets=15), {"rows"}),
        (lambda s: change_raw(s, distinct_offsets=13), {"offset twice"}),
        (add_orphans, {"raw rows outside the ledger"}),
    ],
)
def test_every_fault_is_found_by_its_rule(
    three_ranges: State, fault: Callable[[State], None], rules: set[str]
) -> None:
    fault(three_ranges)
    assert three_ranges.rules() == rules


def test_a_missing_claim_between_two_leaves_a_hole() -> None:
    broken = state(*(manifest(claim("s", 0, start, start + 10)) for start in (0, 10, 20)))
    broken.claims = [c for c in broken.claims if c.start != 10]
    assert broken.rules() == {"manifest without claim", "claims not contiguous"}


def test_an_overlap_is_no_chain() -> None:
    overlapping = state(*(manifest(claim("s", 0, start, end)) for start, end in ((0, 10), (5, 8), (8, 20))))
    findings = overlapping.reconciled().findings
    assert [(f.range_key, f.rule) for f in findings] == [
        (("s", 0, 5), "claims overlap"),
        (("s", 0, 8), "claims overlap"),
    ]
    assert "a claim before ends at 10; `petwellness claims supersede`" in findings[0].detail


def test_a_chain_that_begins_above_0_names_what_closes_it() -> None:
    """Its first claim may have a rival at another start: the log's start moves."""
    [finding] = state(manifest(claim("s", 0, 7, 9)), manifest(claim("s", 0, 9, 12))).reconciled().findings
    assert (finding.range_key, finding.rule) == (("s", 0, 7), "chain begins above 0")
    assert "`petwellness claims supersede` closes [0, 7)" in finding.detail


def test_a_link_on_its_way_is_a_link() -> None:
    """The clocks of two workers differ: the later claim looks older, and settled, without the one before."""
    s = state(*(manifest(claim("s", 0, start, start + 5)) for start in (0, 5)))
    first, second = s.claims
    s.claims = [msgspec.structs.replace(first, claimed_at=CLAIMED_AT + timedelta(minutes=2)), second]
    s.manifests = s.manifests[1:]
    del s.raw_ranges["s", 0, 0]
    result = s.reconciled(settled_before=CLAIMED_AT + timedelta(minutes=1))
    assert (result.findings, result.pending) == ((), 1)


def test_chains_of_other_partitions_and_streams_are_their_own() -> None:
    assert (
        state(manifest(claim("s", 0, 0, 10)), manifest(claim("s", 1, 0, 9)), manifest(claim("t", 0, 0, 41)))
        .reconciled()
        .passed
    )


def test_a_finding_names_range_and_figures(three_ranges: State) -> None:
    change_raw(three_ranges, table_rows=12, distinct_offsets=12)
    [finding] = three_ranges.reconciled().findings
    assert finding.range_key == SECOND
    assert finding.detail == "manifest 14, ledger 14, table 12, redacted 0"


@pytest.mark.parametrize("lost", [drop_ledger, drop_manifest])
def test_ranges_claimed_just_now_are_pending_where_collectors_run_beside(
    three_ranges: State, lost: Callable[[State], None]
) -> None:
    lost(three_ranges)
    three_ranges.raw_ranges.pop(SECOND, None)
    before, after = CLAIMED_AT - timedelta(seconds=1), CLAIMED_AT + timedelta(seconds=1)
    assert not three_ranges.reconciled().passed
    assert not three_ranges.reconciled(settled_before=after).passed
    settled = three_ranges.reconciled(settled_before=before)
    assert settled.passed
    assert (settled.pending, settled.claims, settled.manifests) == (1, 2, 2)


def test_a_loaded_range_is_never_pending(three_ranges: State) -> None:
    change_raw(three_ranges, table_rows=12, distinct_offsets=12)
    result = three_ranges.reconciled(settled_before=CLAIMED_AT)
    assert {finding.rule for finding in result.findings} == {"rows"}
    assert result.pending == 0


@st.composite
def consistent(draw: st.DrawFn) -> State:
    """Any number of contiguous chains in agreement, with at least two ranges in all."""
    manifests = []
    for stream_id in draw(st.lists(st.sampled_from("abc"), min_size=1, unique=True)):
        for partition in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)):
            start = 0
            for length in draw(st.lists(st.integers(1, 10**6), min_size=2, max_size=4)):
                set_aside = [draw(st.integers(0, length // 3)) for _ in range(3)]
                manifests.append(manifest(claim(stream_id, partition, start, start + length), *set_aside))
                start += length
    return state(*draw(st.permutations(manifests)))


def _without(items: list[Any], key: RangeKey) -> list[Any]:
    return [item for item in items if item.range_key != key]


def _changed(items: list[Any], key: RangeKey, **values: Any) -> list[Any]:
    return [msgspec.structs.replace(i, **values) if i.range_key == key else i for i in items]


def _raw(s: State, key: RangeKey, **values: int) -> State:
    return replace(s, raw_ranges={**s.raw_ranges, key: replace(s.raw_ranges[key], **values)})


MUTATIONS: dict[str, Callable[[State, Manifest, int], State]] = {
    "claim gone": lambda s, m, _: replace(s, claims=_without(s.claims, m.range_key)),
    "manifest gone": lambda s, m, _: replace(s, manifests=_without(s.manifests, m.range_key)),
    "ledger gone": lambda s, m, _: replace(
        s, raw_ranges={k: r for k, r in s.raw_ranges.items() if k != m.range_key}
    ),
    "rows said": lambda s, m, n: replace(s, manifests=_changed(s.manifests, m.range_key, rows=m.rows + n)),
    "gaps said": lambda s, m, n: replace(
        s, manifests=_changed(s.manifests, m.range_key, offset_gaps=m.offset_gaps + n)
    ),
    "manifest end": lambda s, m, n: replace(s, manifests=_changed(s.manifests, m.range_key, end=m.end + n)),
    "ledger rows": lambda s, m, n: _raw(s, m.range_key, ledger_rows=m.rows + n),
    "ledger end": lambda s, m, n: _raw(s, m.range_key, end=m.end + n),
    "rows lost": lambda s, m, n: _raw(s, m.range_key, table_rows=m.rows - n, distinct_offsets=m.rows - n),
    "rows twice": lambda s, m, n: _raw(s, m.range_key, table_rows=m.rows + n),
    "offsets twice": lambda s, m, n: _raw(s, m.range_key, distinct_offsets=m.rows - n),
    "orphans": lambda s, m, n: replace(s, orphan_rows=n),
}


@given(consistent())
@settings(max_examples=settings.default.max_examples // 4)
def test_whatever_is_consistent_passes(s: State) -> None:
    result = s.reconciled()
    assert result.findings == ()
    assert result.raw_rows == sum(m.rows for m in s.manifests)


@given(consistent(), st.sampled_from(sorted(MUTATIONS)), st.data())
def test_any_single_mutation_is_found(s: State, mutation: str, data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(s.manifests))
    amount = data.draw(st.integers(1, 5))
    assert not MUTATIONS[mutation](s, victim, amount).reconciled().passed


def test_ranges_vouched_for_are_links_of_the_chain_only(three_ranges: State) -> None:
    """The night before saw the first two ranges; tonight brings the third."""
    vouched = {("s", 0, 0), ("s", 0, 10)}

    def tonight(claims: list[Claim]) -> Reconciliation:
        manifests = [m for m in three_ranges.manifests if m.range_key not in vouched]
        raw_ranges = {key: raw for key, raw in three_ranges.raw_ranges.items() if key not in vouched}
        return reconcile(claims, manifests, raw_ranges, 0, vouched=vouched)

    result = tonight(three_ranges.claims)
    assert result.passed
    assert (result.claims, result.manifests, result.ledger_ranges) == (3, 1, 1)
    without_link = [c for c in three_ranges.claims if c.range_key != ("s", 0, 0)]
    shifted = [*without_link, claim("s", 0, 0, 9)]
    assert {finding.rule for finding in tonight(shifted).findings} == {"claims not contiguous"}
    three_ranges.manifests = three_ranges.manifests[:2]
    assert {finding.rule for finding in tonight(three_ranges.claims).findings} == {
        "claim without manifest",
        "ledger without manifest",
    }
