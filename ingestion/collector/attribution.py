"""Whose event it is: which pets claim which device when, from its assignments (contracts.md, Consent and erasure).

The one rule that opt-outs, late refusals and erasure share. It is the rule of
`dbt_project/macros/histories/segments.sql`, which says it for facts. Plain values, no I/O.
"""

from collections import defaultdict
from collections.abc import Container, Iterable
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from lake.disputes import Disputed

OPEN_END = datetime(9999, 12, 31)


class Assignment(NamedTuple):
    """A pet was given a device in `[assigned_from, assigned_to)`; no end: the assignment is open."""

    device_id: str
    pet_id: str | None
    assigned_from: datetime
    assigned_to: datetime | None


class Segment(NamedTuple):
    """`pet_ids` claim the device all through `[from_ts, to_ts)`; one of them wore it, of several nobody knows
    which. No end: until further notice."""

    device_id: str
    from_ts: datetime
    to_ts: datetime | None
    pet_ids: tuple[str, ...]


class Demand(NamedTuple):
    """`owner_id` wants nothing of `pet_id` in `[from_ts, to_ts)` (no end: still) kept, for `reason`; of one
    device only where it is given."""

    owner_id: str
    pet_id: str
    from_ts: datetime
    to_ts: datetime | None
    reason: str
    device_id: str | None = None


class Stretch(NamedTuple):
    """A demand's pet, and no other, wore the device in `[from_ts, to_ts)`."""

    device_id: str
    from_ts: datetime
    to_ts: datetime | None
    reason: str


def ended(assignments: Iterable[Assignment]) -> list[Assignment]:
    """Assignments with the end that holds: their own, or for an open one where a later one of the same device
    begins. Those that end no later than they begin are left out."""
    given = [*assignments]
    starts: dict[str, set[datetime]] = defaultdict(set)
    for one in given:
        starts[one.device_id].add(one.assigned_from)
    following: dict[str, dict[datetime, datetime]] = {
        device_id: dict(pairwise(sorted(moments))) for device_id, moments in starts.items()
    }
    found = []
    for one in given:
        to_ts = one.assigned_to or following[one.device_id].get(one.assigned_from)
        if to_ts is None or one.assigned_from < to_ts:
            found.append(one._replace(assigned_to=to_ts))
    return found


def segments(assignments: Iterable[Assignment], device_ids: Container[str] | None = None) -> list[Segment]:
    """The time of every device (of these only, where they are given), cut where an assignment begins or ends."""
    by_device: dict[str, list[tuple[datetime, datetime, str | None]]] = defaultdict(list)
    for device_id, pet_id, from_ts, to_ts in ended(
        one for one in assignments if device_ids is None or one.device_id in device_ids
    ):
        by_device[device_id].append((from_ts, to_ts or OPEN_END, pet_id))
    found = []
    for device_id, held in sorted(by_device.items()):
        for low, high in pairwise(
            sorted({moment for from_ts, to_ts, _ in held for moment in (from_ts, to_ts)})
        ):
            pets = {
                pet for from_ts, to_ts, pet in held if pet is not None and from_ts <= low and high <= to_ts
            }
            if pets:
                found.append(Segment(device_id, low, None if high == OPEN_END else high, tuple(sorted(pets))))
    return found


def divided(
    demands: Iterable[Demand], assignments: Iterable[Assignment]
) -> tuple[list[Stretch], list[Disputed]]:
    """What the demands cover: where their pet alone claims a device, and where others claim it, too."""
    given = [*assignments]
    by_pet: dict[str, list[Demand]] = defaultdict(list)
    for demand in demands:
        by_pet[demand.pet_id].append(demand)
    concerned = {one.device_id for one in given if one.pet_id in by_pet}
    stretches: list[Stretch] = []
    disputed: list[Disputed] = []
    for device_id, low, high, pets in segments(given, concerned):
        for demand in (demand for pet in pets for demand in by_pet.get(pet, ())):
            if demand.device_id not in (None, device_id):
                continue
            from_ts, to_ts = max(low, demand.from_ts), earliest(high, demand.to_ts)
            if to_ts is not None and to_ts <= from_ts:
                continue
            if len(pets) == 1:
                stretches.append(Stretch(device_id, from_ts, to_ts, demand.reason))
            else:
                disputed.append(Disputed(device_id, from_ts, to_ts, demand.owner_id, pets, demand.reason))
    return stretches, _joined(disputed)


def _joined(disputed: Iterable[Disputed]) -> list[Disputed]:
    """The same spans in order, those that touch and ask the same as one."""
    found: list[Disputed] = []
    for one in sorted(disputed, key=lambda one: (one.question, one.reason, one.from_ts)):
        before = found[-1] if found else None
        if (
            before is not None
            and (before.question, before.reason) == (one.question, one.reason)
            and (before.to_ts is None or one.from_ts <= before.to_ts)
        ):
            to_ts = None if before.to_ts is None or one.to_ts is None else max(before.to_ts, one.to_ts)
            found[-1] = before._replace(to_ts=to_ts)
        else:
            found.append(one)
    return sorted(found, key=lambda one: (one.device_id, one.from_ts, one.owner_id, one.reason))


def earliest(*ends: datetime | None) -> datetime | None:
    """The first of these ends; none of them: no end."""
    return min((end for end in ends if end is not None), default=None)
