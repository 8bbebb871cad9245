"""An end of the log that was seen before another worker's claim says nothing about that claim."""

import msgspec
import pytest

from ingestion.lake import layout
from ingestion.lake.landing import Claim, claim_range
from ingestion.lake.store import LocalStore


class OvertakenStore(LocalStore):
    """Before the first claim gets through, one more message arrives and another worker claims all of it."""

    world = None
    overtaken = False

    def put_new(self, key: str, data: bytes) -> None:
        if key.startswith(layout.CLAIMS) and not self.overtaken:
            self.overtaken = True
            claim = msgspec.json.decode(data, type=Claim)
            self.world.send([self.world.event(claim.end)], first=claim.end)
            claim_range(
                self.world.store, msgspec.structs.replace(claim, end=claim.end + 1, claimed_by="another")
            )
        super().put_new(key, data)


@pytest.mark.xfail(
    strict=True, reason="the engine takes any end of the log it saw for the end of an adopted claim"
)
def test_a_claim_that_reaches_further_than_the_end_once_seen_is_landed_whole(world) -> None:
    """STALE_EOF in docs/protocol: a replay ends at an end of the log only if that lies at or behind its own."""
    world.send([world.event(number) for number in range(2)])
    store = OvertakenStore(world.home / "lake")
    store.world = world
    world.collector(store).drain()
    assert world.landed()["event_id"].to_pylist() == ["e-0", "e-1", "e-2"]
