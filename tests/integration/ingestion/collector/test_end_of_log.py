"""Claims of other workers, made just when this one looks at the bounds of the log."""

import threading
from typing import Any

import msgspec

from lake import layout
from lake.landing import Claim, claim_range, list_claims
from lake.store import LocalStore

# Longer than an engine takes that does not wait.
ON_ITS_WAY_S = 1.5


class OvertakenStore(LocalStore):
    """Before the first claim gets through, another worker claims one message more.

    That worker has read it; to this one it is on its way for a moment.
    """

    def __init__(self, world: Any) -> None:
        super().__init__(world.home / "lake")
        self._world = world
        self._overtaken = False

    def put_new(self, key: str, data: bytes) -> None:
        if key.startswith(layout.CLAIMS) and not self._overtaken:
            self._overtaken = True
            claim = msgspec.json.decode(data, type=Claim)
            others = msgspec.structs.replace(claim, end=claim.end + 1, claimed_by="another")
            claim_range(self._world.store, others)
            last = [self._world.event(claim.end)]
            self.arrival = threading.Timer(ON_ITS_WAY_S, self._world.send, (last,), {"first": claim.end})
            self.arrival.start()
        super().put_new(key, data)


def test_a_claim_that_reaches_further_than_the_end_once_seen_is_landed_whole(world: Any) -> None:
    """STALE_EOF in docs/protocol: a replay ends at an end of the log only if that lies at or behind its own."""
    world.send([world.event(number) for number in range(2)])
    store = OvertakenStore(world)
    try:
        world.collector(store).drain()
    finally:
        store.arrival.join()
    assert world.landed()["event_id"].to_pylist() == ["e-0", "e-1", "e-2"]


class ForestalledStore(LocalStore):
    """Before a gap is claimed, another worker claims from there on, and further than the gap goes."""

    def __init__(self, world: Any, end: int) -> None:
        super().__init__(world.home / "lake")
        self._world, self._end = world, end

    def put_new(self, key: str, data: bytes) -> None:
        if key.startswith(layout.CLAIMS) and self._end:
            gap = msgspec.json.decode(data, type=Claim)
            assert gap.gap_reason is not None
            others = msgspec.structs.replace(gap, end=self._end, claimed_by="another", gap_reason=None)
            self._end = 0
            claim_range(self._world.store, others)
        super().put_new(key, data)


def test_a_claim_in_place_of_a_gap_is_landed_with_its_messages(world: Any) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    world.send(map(world.event, range(3, 9)), first=3)
    world.delete_records(5)
    report = world.collector(ForestalledStore(world, end=7)).drain()
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 5, 6, 7, 8]
    assert report.gap_claims == 0
    assert report.offset_gaps == 2


def test_a_gap_behind_an_unfinished_claim_has_a_claim_of_its_own(world: Any) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    world.send(map(world.event, range(3, 9)), first=3)
    world.claim(3, 5)
    world.delete_records(7)
    report = world.collector().drain()
    assert world.landed()["kafka_offset"].to_pylist() == [0, 1, 2, 7, 8]
    assert (report.gap_claims, report.recovered_claims, report.offset_gaps) == (1, 1, 4)
    assert sorted((c.start, c.end) for c in list_claims(world.store) if c.gap_reason) == [(5, 7)]
