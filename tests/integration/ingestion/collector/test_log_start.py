"""A partition's first claim while retention moves the start of its log: whoever sees what, they meet at key 0."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from lake import layout
from lake.landing import Claim, claim_range, land_range, list_claims, list_manifests, verify_chain
from lake.store import LocalStore
from warehouse.gaps import log_gaps, lost_ranges
from warehouse.reconcile import reconcile

ON_ONE = pytest.mark.only_on("embedded", "the order of puts is the test's, whatever the broker")


class HeldStore(LocalStore):
    """Something happens just before a worker's first claim reaches the store, or just after."""

    def __init__(self, world: Any, before: Callable[[Claim], None], after: Callable[[], None]) -> None:
        super().__init__(world.home / "lake")
        self._before, self._after = [before], [after]

    def put_new(self, key: str, data: bytes) -> None:
        if not key.startswith(layout.CLAIMS) or not self._before:
            super().put_new(key, data)
            return
        self._before.pop()(msgspec.json.decode(data, type=Claim))
        try:
            super().put_new(key, data)
        finally:
            self._after.pop()()


def held(
    world: Any,
    *,
    before: Callable[[Claim], None] = lambda _: None,
    after: Callable[[], None] = lambda: None,
) -> HeldStore:
    return HeldStore(world, before, after)


def send(world: Any, *ends: int) -> None:
    """Messages up to each end; the mock cluster deletes whole batches, and each of these is one."""
    for first, end in zip((0, *ends), ends, strict=False):
        world.send(map(world.event, range(first, end)), first=first)


def drain_as_another(world: Any) -> None:
    world.collector(client=world.client("another")).drain()


def claims(world: Any) -> list[tuple[int, int, str | None]]:
    found = sorted(list_claims(world.store), key=lambda claim: claim.range_key)
    return [(claim.start, claim.end, claim.gap_reason) for claim in found]


def offsets(world: Any) -> list[int]:
    """Offsets of all landed rows, after checking chain, law and that none is there twice."""
    return sorted(world.landed()["kafka_offset"].to_pylist())


def gap(start: int, end: int) -> tuple[int, int, str]:
    return start, end, f"the log starts at {end}"


def test_a_first_claim_held_while_the_log_loses_its_start_stands_beside_no_other(world: Any) -> None:
    """Worker A is frozen before its claim [0, 6); the log then starts at 3, where B goes on; A wakes."""
    send(world, 3, 6)

    def lose_the_start(claim: Claim) -> None:
        assert (claim.start, claim.end) == (0, 6)
        world.delete_records(3)
        drain_as_another(world)

    report = world.collector(held(world, before=lose_the_start)).drain()
    assert claims(world) == [gap(0, 3), (3, 6, None)]
    assert offsets(world) == [3, 4, 5]
    assert report.claims_lost == 2


@ON_ONE
def test_a_first_claim_in_place_of_a_gap_is_landed_with_what_the_log_still_has(world: Any) -> None:
    """The other way round: A's [0, 5) is first, and is all that stays of A."""
    send(world, 3, 6)
    world.delete_records(3)

    def come_first(ours: Claim) -> None:
        assert (ours.start, ours.end, ours.gap_reason) == gap(0, 3)
        claim_range(world.store, msgspec.structs.replace(ours, end=5, claimed_by="another", gap_reason=None))

    report = world.collector(held(world, before=come_first)).drain()
    assert claims(world)[0] == (0, 5, None)
    assert offsets(world) == [3, 4, 5]
    assert (report.gap_claims, report.recovered_claims, report.offset_gaps) == (0, 1, 3)


@ON_ONE
def test_a_gap_that_nobody_landed_takes_the_messages_of_whoever_still_holds_them(world: Any) -> None:
    """B claims the gap and dies; A, who has read those messages, loses none of them."""
    send(world, 3, 6)

    def die_with_the_gap(ours: Claim) -> None:
        world.delete_records(3)
        world.claim(0, 3, gap_reason="the log starts at 3")

    world.collector(held(world, before=die_with_the_gap)).drain()
    assert claims(world) == [gap(0, 3), (3, 6, None)]
    assert offsets(world) == [0, 1, 2, 3, 4, 5]
    assert lost_ranges(list_manifests(world.store)) == []


@ON_ONE
def test_gaps_up_to_different_starts_follow_one_another(world: Any) -> None:
    """B saw the log start at 3, A sees it start at 6."""
    send(world, 3, 6, 9)
    world.delete_records(6)
    others = held(world, before=lambda _: world.claim(0, 3, gap_reason="the log starts at 3"))
    report = world.collector(others).drain()
    assert claims(world) == [gap(0, 3), gap(3, 6), (6, 9, None)]
    assert offsets(world) == [6, 7, 8]
    assert report.gap_claims == 1


@pytest.mark.only_on("kafka", "what a fetch before the log's start gets is the broker's answer")
@pytest.mark.parametrize("end", [6, 9], ids=["some are left", "none is left"])
def test_a_start_that_moves_on_behind_the_gap_is_counted_once(world: Any, end: int) -> None:
    send(world, 3, 6, 9)
    world.delete_records(3)
    world.collector(held(world, after=lambda: world.delete_records(end))).drain()
    world.send(map(world.event, range(9, 12)), first=9)
    world.collector().drain()
    assert claims(world)[0] == gap(0, 3)
    assert offsets(world) == [*range(end, 12)]
    assert sum(m.offset_gaps for m in list_manifests(world.store)) == end


@ON_ONE
def test_a_log_first_seen_after_its_start_was_lost_says_so(world: Any) -> None:
    """Also where nothing is left of it; and the loss is told before and after it is recorded."""
    send(world, 3)
    world.delete_records(3)
    [expired] = log_gaps(world.topic, world.stream_id(), {0: (3, 3)}, list_claims(world.store), False)
    assert (expired.kind.name, expired.count) == ("expired", 3)
    report = world.collector().drain()
    assert report.gap_claims == 1
    [lost] = lost_ranges(list_manifests(world.store))
    assert (lost.start, lost.end, lost.gap_reason) == gap(0, 3)
    assert log_gaps(world.topic, world.stream_id(), {0: (3, 3)}, list_claims(world.store), False) == []


@ON_ONE
def test_a_chain_of_an_older_release_that_begins_above_0_goes_on_at_its_end_and_is_named(world: Any) -> None:
    """It is not ambiguous, so nothing that arrives has to wait for a person; a second start is not made up."""
    send(world, 3, 6)
    world.delete_records(3)
    old = world.claim(3, 6)
    land_range(world.store, old, no_rows(), offset_gaps=3)
    world.send(map(world.event, range(6, 9)), first=6)
    world.collector().drain()
    assert claims(world) == [(3, 6, None), (6, 9, None)]
    found = list_claims(world.store)
    with pytest.raises(Exception, match=r"begins at 3, not at 0.*petwellness claims supersede"):
        verify_chain(found)
    [finding] = reconcile(found, [], {}, 0, vouched={c.range_key for c in found}).findings
    assert (finding.range_key, finding.rule) == (old.range_key, "chain begins above 0")
    assert "petwellness claims supersede" in finding.detail


def no_rows() -> Any:
    import pyarrow as pa

    from contracts.columns import TELEMETRY_SCHEMA
    from lake.landing import FILLED_BY_CLAIM

    return pa.schema([f for f in TELEMETRY_SCHEMA if f.name not in FILLED_BY_CLAIM]).empty_table()
