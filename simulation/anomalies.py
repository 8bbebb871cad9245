"""Households, pets and collars with which something is out of the ordinary: who they are and what is recorded of them.

Added to a finished world, beside its own households, pets and collars: each entity draws from a stream of its own, so
a kind that is added or left out moves nothing else. How many there are of a kind is a share of `FleetConfig`. Which
records are written twice or wrong is in `records`, how collars send in `telemetry`, what was planted in `truth`.
"""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from simulation.randomness import stream
from simulation.world import (
    CONSENT_FLAGS,
    Interval,
    Listing,
    World,
    add_device,
    add_owner,
    add_pet,
    before,
    home_clinic,
    moment,
    record,
    stated,
    wear_collar,
)

# What a collar of the plain model cannot measure: columns of telemetry, one set after the other.
SENSORS = (("pulse_bpm",), ("body_temp_c", "respiration_rpm"), ("gps_lat", "gps_long"))

# What records of one owner say: first, then in the period (nothing: no second record).
_EVERYTHING = dict.fromkeys(CONSENT_FLAGS, True)
_SILENCES: tuple[tuple[dict[str, bool], dict[str, bool]], ...] = (
    # Refuses, and says later that push is fine: the refusals hold.
    (_EVERYTHING | {"analytics": False, "share_research": False, "push": False}, {"push": True}),
    # Has never said a word of research and messages by SMS and e-mail.
    ({"analytics": True, "push": True}, {}),
    # Has never said anything.
    ({}, {}),
)

# What is wrong with one record of a pet, by the names that the platform gives it.
REPEATED, DUPLICATE_KEY, CONTRADICTED, CLOCK_AHEAD = (
    "repeated",
    "duplicate_key",
    "contradicted",
    "clock_ahead",
)
ODD_RECORDS = (REPEATED, DUPLICATE_KEY, CONTRADICTED, CLOCK_AHEAD)


def plant(world: World) -> World:
    """Add what the shares of the world's configuration ask for; returns the world."""
    config = world.config
    for number in _numbers(config.ambiguous_collars, config.collars):
        _claim_twice(world, stream(config.seed, "ambiguous collar", number))
    for number in _numbers(config.irregular_collars, config.collars):
        rng = stream(config.seed, "irregular collar", number)
        device = _worn_collar(world, rng, expected_events_per_day=None)
        world.irregular_devices.append(device)
    for number in _numbers(config.partial_collars, config.collars):
        device = _worn_collar(world, stream(config.seed, "partial collar", number), model="PW-50")
        world.missing_sensors[device] = SENSORS[number % len(SENSORS)]
    for number in _numbers(config.silent_consents, config.households):
        for silence, (first, later) in enumerate(_SILENCES):
            _silence(world, stream(config.seed, "silent consent", silence, number), first, later)
    _register(world, len(_numbers(config.listed_pets, config.collars)))
    for number in _numbers(config.odd_records, config.collars):
        for kind in ODD_RECORDS:
            # What is contradicted comes an extract later.
            if kind != CONTRADICTED or config.days > 1:
                _odd(world, stream(config.seed, "odd record", kind, number), kind)
    for number in _numbers(config.superseded_features, config.collars):
        _measured_before(world, stream(config.seed, "superseded features", number))
    return world


def _numbers(share: float, of: int) -> range:
    return range(math.ceil(share * of))


def _allows_everything(_: np.random.Generator) -> dict[str, bool]:
    return _EVERYTHING


def _household(
    world: World,
    rng: np.random.Generator,
    consent: Callable[[np.random.Generator], dict[str, bool]] = _allows_everything,
) -> tuple[int, int]:
    """A household with one pet; their indices."""
    owner = add_owner(world, rng, consent)
    pet, joined, row = add_pet(world, rng, owner)
    record(world, "pets", world.pets[pet].pet_id, joined, row)
    return owner, pet


def _installed(world: World, rng: np.random.Generator, pet: int) -> datetime:
    """When the pet got a collar, before the period."""
    at = max(before(world, rng, 30, 400), world.ownership[pet][0].start + timedelta(hours=1))
    return min(at, world.config.start_ts - timedelta(hours=2))


def _worn_collar(world: World, rng: np.random.Generator, **differs: Any) -> int:
    """A collar that a pet of a household of its own wears all the time; `differs` as in `add_device`."""
    owner, pet = _household(world, rng)
    device = add_device(world, rng, home_clinic(world, owner), **differs)
    wear_collar(world, device, pet, _installed(world, rng, pet), None)
    return device


def _claim_twice(world: World, rng: np.random.Generator) -> None:
    """A collar passed on to another household, which the first one's clinic notes hours after the second one's."""
    owner, first = _household(world, rng)
    _, second = _household(world, rng)
    device = add_device(world, rng, home_clinic(world, owner))
    begins = moment(world, rng, 0.2, 0.6)
    ends = min(begins + timedelta(minutes=int(rng.integers(4 * 60, 30 * 60))), moment(world, rng, 0.7, 0.9))
    wear_collar(world, device, first, _installed(world, rng, first), ends)
    wear_collar(world, device, second, begins, None)
    world.ambiguous_spans.append(Interval(device, second, begins, ends))


def _silence(world: World, rng: np.random.Generator, first: dict[str, bool], later: dict[str, bool]) -> None:
    owner, pet = _household(world, rng, lambda _: first)
    world.silent_owners.append(owner)
    if first.get("analytics") is False:
        # Whether a refusal holds shows in what the household's collar sends.
        device = add_device(world, rng, home_clinic(world, owner))
        wear_collar(world, device, pet, _installed(world, rng, pet), None)
    if later:
        at = moment(world, rng, 0.1, 0.4)
        record(world, "owners", world.owner_ids[owner], at, {"consent_flags": stated(later, at)})


def _register(world: World, of_each: int) -> None:
    """Pets that only a register knows, which sends all it has every day and never dates a change."""
    days = world.config.days
    for number in range(of_each):
        rng = stream(world.config.seed, "listed pet", number)
        owner = add_owner(world, rng, _allows_everything)
        missed, gone_from = int(rng.integers(0, max(1, days - 1))), int(rng.integers(0, days))
        absences = [frozenset[int](), frozenset(range(gone_from, days))]
        if days > 1:
            absences.append(frozenset({missed}))
        for absent in absences:
            pet, joined, row = add_pet(world, rng, owner)
            world.listings.append(Listing(world.pets[pet].pet_id, joined, row, absent))


def _odd(world: World, rng: np.random.Generator, kind: str) -> None:
    """A pet whose colour is corrected in the period, by a record that is odd in the way of `kind`."""
    _, pet = _household(world, rng)
    pet_id = world.pets[pet].pet_id
    # What is contradicted comes a day after what contradicts it, so not on the last day.
    at = moment(world, rng, 0.1, 0.5)
    record(world, "pets", pet_id, at, {"color": "piebald"}, int(kind == CONTRADICTED))
    world.odd_pets.append((kind, pet_id))


def _measured_before(world: World, rng: np.random.Generator) -> None:
    """A pet of whose days an earlier release has left a feature."""
    _, pet = _household(world, rng)
    for day in range(world.config.days):
        value = round(float(rng.uniform(1, 30)), 3)
        world.superseded_features.append((pet, world.config.start + timedelta(days=day), value))
