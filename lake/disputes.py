"""The ledger of disputed spans: telemetry that a household wants gone and that more than one pet claims.

Nobody can say whose it is, so nothing of it is deleted by itself. A span is
listed with a deadline and waits for a person, whose decision is an entry, too.
Entries are create-only and permanent; what they mean for a moment of time is
decided here, how they come about is `governance.erasure.disputes`.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from lake import layout
from lake.redactions import epoch_us, from_epoch_us, without
from lake.store import ObjectExistsError, ObjectStore

# What a person may decide: it was the household's and goes, or it was not and stays.
ERASE = "erase"
KEEP = "keep"
VERDICTS = (ERASE, KEEP)

_NO_END = 2**63 - 1


class Disputed(NamedTuple):
    """`owner_id` wants telemetry of the device in `[from_ts, to_ts)` (no end: still) gone, for `reason`, and
    the pets claim it, theirs and another."""

    device_id: str
    from_ts: datetime
    to_ts: datetime | None
    owner_id: str
    pet_ids: tuple[str, ...]
    reason: str

    @property
    def question(self) -> tuple[str, str, tuple[str, ...]]:
        """What is asked: with other claims, or by another household, it is another question."""
        return self.device_id, self.owner_id, self.pet_ids

    @property
    def limits(self) -> tuple[int, int]:
        """The span in epoch microseconds."""
        return epoch_us(self.from_ts), _NO_END if self.to_ts is None else epoch_us(self.to_ts)


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """Spans that were found disputed at `listed_at`, to be decided by `deadline` (naive UTC)."""

    listing_id: str
    listed_at: datetime
    deadline: datetime
    spans: list[Disputed]


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a person decided of spans, when (naive UTC) and why. It holds as long as the same pets claim them."""

    decision_id: str
    decided_at: datetime
    decided_by: str
    reason: str
    verdict: str
    spans: list[Disputed]


def put_listing(store: ObjectStore, listing: Listing) -> None:
    """List spans; an entry of the same id is the same entry."""
    with contextlib.suppress(ObjectExistsError):
        store.put_new(layout.dispute_key(listing.listing_id), msgspec.json.encode(listing))


def put_decision(store: ObjectStore, decision: Decision) -> None:
    """Enter a decision; an entry of the same id is the same entry."""
    with contextlib.suppress(ObjectExistsError):
        store.put_new(layout.decision_key(decision.decision_id), msgspec.json.encode(decision))


def load_listings(store: ObjectStore) -> list[Listing]:
    """All that was ever listed, in order of time."""
    decoder = msgspec.json.Decoder(Listing)
    return [decoder.decode(data) for data in store.get_many(_keys(store, layout.DISPUTES_LISTED))]


def load_decisions(store: ObjectStore) -> list[Decision]:
    """All decisions, in order of time."""
    decoder = msgspec.json.Decoder(Decision)
    return [decoder.decode(data) for data in store.get_many(_keys(store, layout.DISPUTES_DECIDED))]


def undecided(spans: Iterable[Disputed], decisions: Iterable[Decision]) -> list[Disputed]:
    """The parts of `spans` of which nobody has decided."""
    return minus(spans, [span for decision in decisions for span in decision.spans])


def decided_to_go(spans: Iterable[Disputed], decisions: Iterable[Decision]) -> list[Disputed]:
    """The parts of `spans` of which the first decision is that they go."""
    going: list[Disputed] = []
    left = [*spans]
    for decision in decisions:
        after = minus(left, decision.spans)
        if decision.verdict == ERASE:
            going += minus(left, after)
        left = after
    return going


def minus(spans: Iterable[Disputed], removed: Iterable[Disputed]) -> list[Disputed]:
    """The parts of `spans` about which none of `removed` asks the same question."""
    gaps: dict[tuple[str, str, tuple[str, ...]], list[tuple[int, int]]] = defaultdict(list)
    for one in removed:
        gaps[one.question].append(one.limits)
    return [
        span._replace(from_ts=from_epoch_us(low), to_ts=None if high == _NO_END else from_epoch_us(high))
        for span in spans
        for low, high in without([span.limits], gaps[span.question])
    ]


def common(spans: Iterable[Disputed], others: Iterable[Disputed]) -> list[Disputed]:
    """The parts of `spans` about which one of `others` asks the same question."""
    given = [*spans]
    return minus(given, minus(given, others))


def _keys(store: ObjectStore, prefix: str) -> list[str]:
    return [info.key for info in store.list(prefix)]
