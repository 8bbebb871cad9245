"""Contacts with owners and what owners do: app sessions, messages, calls, bookings.

Planned from a finished world and apart from it, like `documents`. No message is
sent on a channel that the owner refuses at that moment, no session is recorded
while analytics is refused, and nobody is contacted while no longer a client.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from simulation.randomness import stream
from simulation.world import TIMEZONE, Mutation, World, delivery_of, holding, last_rows

# Contacts are known from this long before the period on, so that its first days have a month behind them.
HISTORY = timedelta(days=28)
SESSIONS_A_WEEK = 1.5
MESSAGES_A_WEEK = {"push": 0.6, "email": 0.4, "sms": 0.1}
_WEEK = timedelta(days=7)


@dataclass(frozen=True)
class Contact:
    """One row of the feed `engagement`, without the key it gets from its place among its owner's."""

    owner: int
    channel: str
    action: str
    occurred_at: datetime
    duration_s: int | None = None
    appointment_id: str | None = None
    delayed_days: int = 0


class _Consent:
    """What each owner allows at any moment; nothing before the first statement or while deleted."""

    def __init__(self, world: World) -> None:
        self._states: dict[str, list[tuple[datetime, dict[str, Any]]]] = defaultdict(list)
        flags: dict[str, dict[str, Any]] = {}
        for mutation in sorted(
            (m for m in world.mutations if m.feed == "owners"), key=lambda item: (item.key, item.changed_at)
        ):
            if mutation.patch is not None:
                # A flag that a record does not mention stays as it was said last.
                said = mutation.patch.get("consent_flags") or {}
                flags[mutation.key] = {**flags.get(mutation.key, {}), **said}
            state = {} if mutation.patch is None else flags[mutation.key]
            self._states[mutation.key].append((mutation.changed_at, state))

    def at(self, owner_id: str, moment: datetime) -> dict[str, bool]:
        """Flags in force; empty for who is not a client then."""
        held: dict[str, Any] = {}
        for changed_at, flags in self._states[owner_id]:
            if changed_at <= moment:
                held = flags
        return {name: flag["value"] for name, flag in held.items()}


def plan_contacts(world: World) -> dict[str, Contact]:
    """Every contact up to the end of the period by its engagement_id, by owner and time."""
    consent = _Consent(world)
    by_owner: dict[int, list[Contact]] = defaultdict(list)
    for owner in range(len(world.owner_ids)):
        by_owner[owner] = _weekly(world, owner, consent)
    for contact in _about_appointments(world, consent):
        by_owner[contact.owner].append(contact)
    return {
        f"engagement-{owner + 1:05d}-{number + 1:04d}": contact
        for owner, contacts in by_owner.items()
        for number, contact in enumerate(
            sorted(
                (c for c in contacts if c.occurred_at < world.config.end_ts),
                key=lambda c: (c.occurred_at, c.channel, c.action),
            )
        )
    }


def _weekly(world: World, owner: int, consent: _Consent) -> list[Contact]:
    """Sessions and messages at the household's own pace; draws do not depend on consent."""
    rng = stream(world.config.seed, "engagement", owner)
    owner_id = world.owner_ids[owner]
    found: list[Contact] = []
    week = world.config.start_ts - HISTORY
    while week < world.config.end_ts:
        for _ in range(int(rng.poisson(SESSIONS_A_WEEK))):
            at = week + timedelta(seconds=int(rng.integers(7 * 86_400)))
            session = Contact(owner, "app", "session", at, int(rng.integers(20, 900)), None, _delay(rng))
            if consent.at(owner_id, at).get("analytics"):
                found.append(session)
        for channel, mean in MESSAGES_A_WEEK.items():
            for _ in range(int(rng.poisson(mean))):
                day = week + timedelta(days=int(rng.integers(7)))
                at = day + timedelta(seconds=int(rng.integers(7 * 3600, 18 * 3600)))
                message = _message(owner, channel, at, None, rng)
                if consent.at(owner_id, at).get(channel):
                    found += message
        week += _WEEK
    return found


def _message(
    owner: int, channel: str, at: datetime, appointment_id: str | None, rng: np.random.Generator
) -> list[Contact]:
    """A message and what its reader did within a day: push and e-mail are seen being opened, SMS is not."""
    found = [Contact(owner, channel, "sent", at, None, appointment_id, _delay(rng))]
    opened, clicked = rng.random() < 0.45, rng.random() < 0.3
    read_at = at + timedelta(seconds=int(rng.integers(30, 86_400)))
    if channel != "sms" and opened:
        found.append(Contact(owner, channel, "opened", read_at, None, appointment_id))
    if clicked and (opened or channel == "sms"):
        at_link = read_at + timedelta(seconds=int(rng.integers(2, 60)))
        found.append(Contact(owner, channel, "clicked", at_link, None, appointment_id))
    return found


def _delay(rng: np.random.Generator) -> int:
    """One record in thirty reaches the extract a day late."""
    return int(rng.integers(30) == 0)


def _about_appointments(world: World, consent: _Consent) -> Iterator[Contact]:
    """Who booked an appointment, by which channel, and the reminder of it a day before."""
    pets = {pet.pet_id: position for position, pet in enumerate(world.pets)}
    booked_at: dict[str, datetime] = {}
    for mutation in world.mutations:
        if mutation.feed == "appointments":
            booked_at[mutation.key] = min(
                mutation.changed_at, booked_at.get(mutation.key, mutation.changed_at)
            )
    for appointment_id, row in last_rows(world, "appointments").items():
        rng = stream(world.config.seed, "engagement", appointment_id)
        held = world.ownership[pets[row["pet_id"]]]
        booked = booked_at[appointment_id]
        by = ("phone", "app", "email")[int(rng.choice(3, p=(0.5, 0.35, 0.15)))]
        talked_s = int(rng.integers(60, 600))
        owned = holding(held, booked)
        if (
            owned
            and booked >= world.config.start_ts - HISTORY
            and consent.at(world.owner_ids[owned.target], booked)
        ):
            if by == "phone":
                rang = booked - timedelta(seconds=talked_s)
                yield Contact(owned.target, "phone", "called", rang, talked_s, appointment_id)
            yield Contact(owned.target, by, "booked", booked, None, appointment_id)
        remind = row["scheduled_ts"] - timedelta(days=1)
        owned = holding(held, remind)
        if (
            owned
            and booked < remind
            and remind >= world.config.start_ts - HISTORY
            and row["status"] != "cancelled"
        ):
            allowed = consent.at(world.owner_ids[owned.target], remind)
            channel = next((name for name in ("push", "sms", "email") if allowed.get(name)), None)
            if channel:
                yield from _message(owned.target, channel, remind, appointment_id, rng)


def contact_mutations(world: World, contacts: dict[str, Contact]) -> Iterator[Mutation]:
    """Contacts as records, each stated once."""
    for engagement_id, contact in contacts.items():
        delivery = delivery_of(world.config, contact.occurred_at, contact.delayed_days)
        if delivery is None:
            continue
        row = asdict(contact)
        del row["owner"], row["delayed_days"]
        row = {"engagement_id": engagement_id, "owner_id": world.owner_ids[contact.owner], **row}
        yield Mutation("engagement", engagement_id, contact.occurred_at, delivery, row)


def contacts_per_owner_day(world: World, contacts: Iterable[Contact]) -> list[dict[str, Any]]:
    """Contacts counted by owner, date on the clinics' clocks, channel and action, in that order; seconds of sessions and
    calls."""
    clock = ZoneInfo(TIMEZONE)
    counts: dict[tuple[str, date, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for contact in contacts:
        day = contact.occurred_at.replace(tzinfo=UTC).astimezone(clock).date()
        found = counts[world.owner_ids[contact.owner], day, contact.channel, contact.action]
        found[0] += 1
        found[1] += contact.duration_s or 0
    return [
        {
            "owner_id": owner_id,
            "event_date": day,
            "channel": channel,
            "action": action,
            "contact_count": count,
            "duration_s": seconds,
        }
        for (owner_id, day, channel, action), (count, seconds) in sorted(counts.items())
    ]
