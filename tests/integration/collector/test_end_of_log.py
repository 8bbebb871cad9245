"""An end of the log that was seen before another worker's claim says nothing about that claim."""

import threading
from typing import Any

import msgspec

from ingestion.lake import layout
from ingestion.lake.landing import Claim, claim_range
from ingestion.lake.store import LocalStore

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
