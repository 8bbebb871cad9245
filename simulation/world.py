"""The fleet's world: households, pets, clinics, collars, visits, and everything that happens to them.

`build_world` decides the stories (who moves, falls ill, opts out, misses an
appointment) and returns them as plain data: mutations of source records and the
facts that telemetry follows. Turning mutations into extracts is `records`,
turning facts into messages is `telemetry`.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from simulation.breeds import BREEDS, Breed
from simulation.config import FleetConfig
from simulation.names import COLORS, FIRST_NAMES, LAST_NAMES, PET_NAMES, STREETS
from simulation.randomness import stream

DISTRICTS = 12
# Of every clinic, and so the clock of every day of theirs.
TIMEZONE = "Europe/Zurich"
# Centre of the simulated city; districts lie on a ring of 3 km around it.
CITY_LAT, CITY_LONG = 47.3744, 8.5411
CONSENT_FLAGS = ("analytics", "email", "push", "share_research", "sms")
FIRMWARE = ("2.3.1", "2.4.0", "2.5.0")
INITIAL = -1  # delivery in the extract before day 0

_UNPLANNED = ("illness", "emergency", "injury")
_PLANNED = ("checkup", "vaccination", "dental", "follow_up")
_DIAGNOSES = {"gastro": "K52.9", "skin": "L30.9", "infection": "A49.9", "pain": "M25.5"}

# What one unit of severity does: share of activity lost, factor added to licking,
# share added to the pulse, degrees added to body temperature.
ILLNESS_EFFECTS: dict[str, tuple[float, float, float, float]] = {
    "gastro": (0.50, 1.2, 0.13, 0.7),
    "skin": (0.30, 2.5, 0.08, 0.4),
    "infection": (0.55, 0.8, 0.18, 1.3),
    "pain": (0.60, 1.3, 0.16, 0.5),
}


@dataclass(frozen=True)
class Mutation:
    """One change of a source record: `patch` on the state so far, or a deletion (None).

    `delivery` is the extract that carries it: INITIAL, or the day at whose end
    the extract is taken.
    """

    feed: str
    key: str
    changed_at: datetime
    delivery: int
    patch: dict[str, Any] | None


@dataclass(frozen=True)
class Illness:
    """A spell that shows in telemetry from `onset` until it fades after `until`.

    `until` is the unplanned visit's time; without a visit (`visit_id` None) the
    moment the animal recovers by itself.
    """

    pet: int
    kind: str
    severity: float
    onset: datetime
    until: datetime
    visit_id: str | None


@dataclass(frozen=True)
class Pet:
    """A pet's identity and the resting values its collar measures."""

    pet_id: str
    breed: Breed
    dob: date
    weight_kg: Decimal
    frailty: float
    activity: float
    licking: float
    pulse_bpm: float
    body_temp_c: float
    respiration_rpm: float


@dataclass(frozen=True)
class Interval:
    """`subject` relates to `target` during [start, end); `end` None means until further notice."""

    subject: int
    target: int
    start: datetime
    end: datetime | None


@dataclass(frozen=True)
class Listing:
    """A pet's row in the register, the same in every extract but those of the days in `absent`."""

    pet_id: str
    changed_at: datetime
    row: dict[str, Any]
    absent: frozenset[int]


@dataclass
class World:
    """Everything decided about a fleet before the first message. Indices are positions in the id lists."""

    config: FleetConfig
    owner_ids: list[str] = field(default_factory=list)
    clinic_ids: list[str] = field(default_factory=list)
    device_ids: list[str] = field(default_factory=list)
    pets: list[Pet] = field(default_factory=list)
    mutations: list[Mutation] = field(default_factory=list)
    assignments: dict[str, Interval] = field(default_factory=dict)  # device -> pet
    ownership: dict[int, list[Interval]] = field(default_factory=dict)  # by pet: pet -> owner
    homes: dict[int, list[Interval]] = field(default_factory=dict)  # by owner: owner -> home_positions
    home_positions: list[tuple[float, float]] = field(default_factory=list)  # lat, long
    opt_outs: list[Interval] = field(default_factory=list)  # owner -> 0, analytics withdrawn
    device_clinic: list[int] = field(default_factory=list)
    device_silent_from: list[datetime | None] = field(default_factory=list)
    device_firmware: list[list[tuple[datetime | None, int]]] = field(default_factory=list)
    illnesses: list[Illness] = field(default_factory=list)
    lazy_days: list[tuple[int, int]] = field(default_factory=list)  # pet, day
    no_shows: list[str] = field(default_factory=list)
    shared_device: int | None = None
    moved_devices: list[int] = field(default_factory=list)
    deleted_owners: list[str] = field(default_factory=list)
    returned_owners: list[str] = field(default_factory=list)
    moved_owners: list[str] = field(default_factory=list)
    rehomed_pets: list[str] = field(default_factory=list)
    retired_at: dict[int, datetime] = field(default_factory=dict)  # device
    ambiguous_spans: list[Interval] = field(default_factory=list)  # device -> the pet that came second
    irregular_devices: list[int] = field(default_factory=list)
    missing_sensors: dict[int, tuple[str, ...]] = field(default_factory=dict)  # device -> columns
    silent_owners: list[int] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    odd_pets: list[tuple[str, str]] = field(default_factory=list)  # kind, pet_id
    superseded_features: list[tuple[int, date, float]] = field(default_factory=list)  # pet, day, value


@dataclass
class _Roles:
    """Which devices, pets and households play a part in a story; the others are ordinary."""

    spare_partner: dict[int, int]  # device -> its spare pet
    moves: frozenset[int]
    swaps: list[tuple[int, int]]
    late_installs: frozenset[int]
    retired: frozenset[int]
    rehomed: list[int]
    deleted_owner: int | None
    returned_owner: int | None
    owner_of: list[int]


def build_world(config: FleetConfig) -> World:
    """Decide everything that happens to the fleet of `config`."""
    world = World(config)
    roles = _cast(config)
    _clinics(world)
    _breeds(world)
    _owners(world, roles)
    _pets(world, roles)
    _devices(world, roles)
    _assign(world, roles)
    _departures(world, roles)
    _rehome(world, roles)
    _consent(world, roles)
    _visits(world, roles)
    return world


def pet_count(config: FleetConfig) -> int:
    """One pet per collar and 15 % spare ones, the first of which shares a collar."""
    return config.collars + max(1, round(0.15 * config.collars))


def _cast(config: FleetConfig) -> _Roles:
    rng = stream(config.seed, "roles")
    collars, households, pets = config.collars, config.households, pet_count(config)
    leaving = [int(i) for i in rng.permutation(households)[:2]] if households >= 10 else []
    staying = [owner for owner in range(households) if owner not in leaving]
    owner_of = [
        pet % households if pet < min(households, collars) else int(rng.choice(staying))
        for pet in range(pets)
    ]

    ordinary = [int(d) for d in rng.permutation(collars) if owner_of[int(d)] not in leaving]

    def take(count: int) -> list[int]:
        return [ordinary.pop() for _ in range(min(count, len(ordinary)))]

    share = take(1)
    moves = take(max(1, collars // 20) if collars >= 4 else 0)
    moves = moves[: pets - collars - 1]
    partner = {device: collars + rank for rank, device in enumerate([*share, *moves])}
    for rank, (device, pet) in enumerate(partner.items()):
        # The shared collar and every other move stay in the household; the rest are sold on.
        if rank % 2 == 0:
            owner_of[pet] = owner_of[device]
    swap = take(2) if collars >= 8 else []
    return _Roles(
        spare_partner=partner,
        moves=frozenset(moves),
        swaps=[(swap[0], swap[1])] if len(swap) == 2 else [],
        late_installs=frozenset(take(max(1, collars // 60) if collars >= 10 else 0)),
        retired=frozenset(take(max(1, collars // 40) if collars >= 10 else 0)),
        rehomed=take(max(1, collars // 40) if collars >= 6 and households >= 2 else 0),
        deleted_owner=leaving[0] if leaving else None,
        returned_owner=leaving[1] if leaving else None,
        owner_of=owner_of,
    )


def moment(world: World, rng: np.random.Generator, first: float, last: float) -> datetime:
    """A whole second between two shares (0 to 1) of the period."""
    seconds = world.config.days * 86_400
    return world.config.start_ts + timedelta(seconds=int(rng.uniform(first * seconds, last * seconds)))


def before(world: World, rng: np.random.Generator, first_days: int, last_days: int) -> datetime:
    """A whole second between `last_days` and `first_days` before the period."""
    return world.config.start_ts - timedelta(
        seconds=int(rng.uniform(first_days * 86_400, last_days * 86_400))
    )


def delivery_of(config: FleetConfig, changed_at: datetime, delayed_days: int = 0) -> int | None:
    """The extract that first sees a change, or one some days after it; None when the period is over by then.

    A delay moves nothing beyond the last extract.
    """
    if changed_at < config.start_ts:
        return INITIAL
    day = (changed_at - config.start_ts).days
    return None if day >= config.days else min(day + delayed_days, config.days - 1)


def record(
    world: World,
    feed: str,
    key: str,
    changed_at: datetime,
    patch: dict[str, Any] | None,
    delayed_days: int = 0,
) -> None:
    delivery = delivery_of(world.config, changed_at, delayed_days)
    if delivery is not None:
        world.mutations.append(Mutation(feed, key, changed_at, delivery, patch))


def _end(intervals: list[Interval], at: datetime) -> None:
    """Close the last interval at `at` if it is open."""
    if intervals and intervals[-1].end is None:
        intervals[-1] = replace(intervals[-1], end=at)


def _pass_on(by_subject: dict[int, list[Interval]], subject: int, target: int, at: datetime) -> None:
    """From `at` on the subject relates to `target`, no longer to whom it did."""
    intervals = by_subject.setdefault(subject, [])
    _end(intervals, at)
    intervals.append(Interval(subject, target, at, None))


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _clinics(world: World) -> None:
    for number in range(world.config.clinics):
        rng = stream(world.config.seed, "clinic", number)
        clinic_id = f"clinic-{number + 1:02d}"
        world.clinic_ids.append(clinic_id)
        district = str(number * DISTRICTS // world.config.clinics % DISTRICTS + 1)
        record(
            world,
            "clinics",
            clinic_id,
            before(world, rng, 1500, 3000),
            {
                "clinic_id": clinic_id,
                "name": f"{STREETS[number % len(STREETS)]} Animal Clinic",
                "district": district,
                "timezone": TIMEZONE,
            },
        )


def _breeds(world: World) -> None:
    for breed in BREEDS:
        row = {
            name: Decimal(str(value)) if isinstance(value, int | float) else value
            for name, value in breed._asdict().items()
        }
        record(world, "breeds", breed.breed_id, world.config.start_ts - timedelta(days=3650), row)


def _settle(world: World, owner: int, since: datetime, rng: np.random.Generator) -> dict[str, Any]:
    """Give an owner a new home; returns the address columns."""
    district = int(rng.integers(1, DISTRICTS + 1))
    angle = 2 * math.pi * district / DISTRICTS
    # 0.027 degrees of latitude are 3 km; a degree of longitude is two thirds of that here.
    lat = round(CITY_LAT + 0.027 * math.cos(angle) + float(rng.uniform(-0.007, 0.007)), 5)
    long = round(CITY_LONG + 0.040 * math.sin(angle) + float(rng.uniform(-0.010, 0.010)), 5)
    _pass_on(world.homes, owner, len(world.home_positions), since)
    world.home_positions.append((lat, long))
    street = STREETS[int(rng.integers(len(STREETS)))]
    return {
        "address": f"{street} Lane {int(rng.integers(1, 99))}, 80{district:02d} Exampleton",
        "district": str(district),
        "quarter": f"{district}-{int(rng.integers(1, 5))}",
    }


def _usual_consent(rng: np.random.Generator) -> dict[str, bool]:
    return {
        name: bool(rng.random() >= off)
        for name, off in zip(CONSENT_FLAGS, (0.03, 0.25, 0.2, 0.10, 0.4), strict=True)
    }


def stated(flags: dict[str, bool], at: datetime) -> dict[str, Any] | None:
    """Flags as a record says them; a record that says none has no such column."""
    return {name: {"at": _stamp(at), "value": value} for name, value in flags.items()} or None


def add_owner(
    world: World, rng: np.random.Generator, consent: Callable[[np.random.Generator], dict[str, bool]]
) -> int:
    """A household with its record, known from before the period; `consent` says which flags are said how."""
    number = len(world.owner_ids)
    owner_id = f"owner-{number + 1:05d}"
    world.owner_ids.append(owner_id)
    created = before(world, rng, 200, 2000)
    first = FIRST_NAMES[int(rng.integers(len(FIRST_NAMES)))]
    last = LAST_NAMES[int(rng.integers(len(LAST_NAMES)))]
    domain = ("example.com", "example.org", "example.net")[int(rng.integers(3))]
    flags = consent(rng)
    if flags.get("analytics") is False:
        world.opt_outs.append(Interval(number, 0, created, None))
    record(
        world,
        "owners",
        owner_id,
        created,
        {
            "owner_id": owner_id,
            "name": f"{first} {last}",
            # 555-0100 to 555-0199 are reserved for fiction.
            "contact_phone": f"+1-{200 + number // 100 % 700:03d}-555-01{number % 100:02d}",
            "contact_email": f"{first}.{last}.{number + 1}@{domain}".lower(),
            **_settle(world, number, created, rng),
            "age_band": ("18-30", "31-40", "41-50", "51-60", "61-70", "71-80")[int(rng.integers(6))],
            "sex": ("female", "male")[int(rng.integers(2))],
            "consent_flags": stated(flags, created),
        },
    )
    return number


def _owners(world: World, roles: _Roles) -> None:
    config = world.config
    movers = set(range(0, config.households, 12)) - {roles.deleted_owner, roles.returned_owner}
    for number in range(config.households):
        rng = stream(config.seed, "owner", number)
        add_owner(world, rng, _usual_consent)
        owner_id = world.owner_ids[number]
        if number in movers:
            moved_at = moment(world, rng, 0.1, 0.9)
            world.moved_owners.append(owner_id)
            # Every third move reaches the extract two days late.
            delay = 2 if len(world.moved_owners) % 3 == 1 else 0
            record(world, "owners", owner_id, moved_at, _settle(world, number, moved_at, rng), delay)


def add_pet(world: World, rng: np.random.Generator, owner: int) -> tuple[int, datetime, dict[str, Any]]:
    """A pet of a household: its index, since when it is there, and its row, which whoever lists it records."""
    number = len(world.pets)
    breed = BREEDS[int(rng.integers(len(BREEDS)))]
    life_days = breed.max_life_expectancy_years * 365
    age_days = int(min(life_days, 120 + rng.beta(1.6, 2.2) * life_days))
    grown = min(1.0, 0.35 + 0.65 * age_days / 400)
    span = breed.max_weight_kg - breed.min_weight_kg
    weight = (breed.min_weight_kg + span * float(rng.beta(2, 2))) * grown
    is_cat = breed.species == "cat"
    puppy = age_days < 365
    # Smaller animals beat and breathe faster; young ones faster still.
    pulse = (175.0 if is_cat else 150.0 - 16.0 * math.log(max(weight, 1.5))) * (1.15 if puppy else 1.0)
    pet = Pet(
        pet_id=f"pet-{number + 1:05d}",
        breed=breed,
        dob=world.config.start - timedelta(days=age_days),
        weight_kg=Decimal(f"{weight:.3f}"),
        frailty=round(math.exp(float(rng.normal(0, 0.9))) * (0.3 + 1.4 * age_days / life_days), 4),
        activity=round((0.7 if is_cat else 1.0) * math.exp(float(rng.normal(0, 0.18))), 4),
        licking=round((1.6 if is_cat else 1.0) * math.exp(float(rng.normal(0, 0.20))), 4),
        pulse_bpm=round(pulse * math.exp(float(rng.normal(0, 0.05))), 2),
        body_temp_c=round(38.5 + float(rng.normal(0, 0.15)), 2),
        respiration_rpm=round((26.0 if is_cat else 22.0) * math.exp(float(rng.normal(0, 0.1))), 2),
    )
    world.pets.append(pet)
    joined = max(world.homes[owner][0].start, datetime(pet.dob.year, pet.dob.month, pet.dob.day))
    joined += timedelta(seconds=int(rng.integers(3600, 86_400)))
    _pass_on(world.ownership, number, owner, joined)
    row = {
        "pet_id": pet.pet_id,
        "owner_id": world.owner_ids[owner],
        "name": PET_NAMES[int(rng.integers(len(PET_NAMES)))],
        "species": breed.species,
        "breed": breed.breed,
        "breed_type": breed.breed_group,
        "is_crossbreed": bool(rng.random() < 0.2),
        "dob": pet.dob,
        "birth_year": pet.dob.year,
        "sex": ("female", "male")[int(rng.integers(2))],
        "neutered": bool(rng.random() < 0.7),
        # 999 is the manufacturer code for test transponders (ISO 11784).
        "microchip_id": f"999{number + 1:012d}",
        "color": COLORS[int(rng.integers(len(COLORS)))],
        "weight_kg": pet.weight_kg,
    }
    return number, joined, row


def _pets(world: World, roles: _Roles) -> None:
    config = world.config
    for number in range(pet_count(config)):
        rng = stream(config.seed, "pet", number)
        _, joined, row = add_pet(world, rng, roles.owner_of[number])
        record(world, "pets", world.pets[number].pet_id, joined, row)
        for day in range(config.days):
            if rng.random() < config.lazy_days:
                world.lazy_days.append((number, day))


def add_device(world: World, rng: np.random.Generator, clinic: int, **differs: Any) -> int:
    """A collar registered long before the period; `differs` are columns in which its record differs from others'."""
    number = len(world.device_ids)
    device_id = f"collar-{number + 1:05d}"
    world.device_ids.append(device_id)
    firmware = int(rng.integers(2))
    record(
        world,
        "devices",
        device_id,
        before(world, rng, 420, 500),
        {
            "device_id": device_id,
            "hardware_serial": f"PW{int(rng.integers(16**8)):08X}{number:05d}",
            "vendor": "PetWellness",
            "model": ("PW-100", "PW-200")[int(rng.integers(2))],
            "firmware_version": FIRMWARE[firmware],
            "status": "active",
            "expected_events_per_day": world.config.slots_per_day,
        }
        | differs,
    )
    versions: list[tuple[datetime | None, int]] = [(None, firmware)]
    if rng.random() < 0.3:
        updated_at = moment(world, rng, 0.05, 0.95)
        versions.append((updated_at, len(FIRMWARE) - 1))
        record(world, "devices", device_id, updated_at, {"firmware_version": FIRMWARE[-1]})
    world.device_firmware.append(versions)
    world.device_clinic.append(clinic)
    world.device_silent_from.append(None)
    return number


def _devices(world: World, roles: _Roles) -> None:
    config = world.config
    for number in range(config.collars):
        rng = stream(config.seed, "device", number)
        clinic = home_clinic(world, roles.owner_of[number])
        device_id = world.device_ids[add_device(world, rng, clinic)]
        if number in roles.retired:
            retired_at = moment(world, rng, 0.3, 0.7)
            # A retired collar reports for some hours more, worn by nobody.
            world.device_silent_from[number] = retired_at + timedelta(hours=int(rng.integers(2, 12)))
            world.retired_at[number] = retired_at
            record(world, "devices", device_id, retired_at, {"status": "retired"})


def home_clinic(world: World, owner: int) -> int:
    """The clinic of an owner's part of the city; neighbouring owners share one."""
    lat, long = world.home_positions[world.homes[owner][0].target]
    turn = math.atan2((long - CITY_LONG) / 0.040, (lat - CITY_LAT) / 0.027) / (2 * math.pi) % 1.0
    return int(turn * world.config.clinics) % world.config.clinics


def wear_collar(
    world: World, device: int, pet: int, start: datetime, end: datetime | None, delayed_days: int = 0
) -> None:
    assignment_id = f"assignment-{len(world.assignments) + 1:06d}"
    world.assignments[assignment_id] = Interval(device, pet, start, end)
    row = {
        "assignment_id": assignment_id,
        "device_id": world.device_ids[device],
        "pet_id": world.pets[pet].pet_id,
        "assigned_from": start,
        "assigned_to": None,
    }
    record(world, "device_assignments", assignment_id, start, row, delayed_days)
    if end is not None:
        record(world, "device_assignments", assignment_id, end, {"assigned_to": end}, delayed_days)


def _assign(world: World, roles: _Roles) -> None:
    config = world.config
    swapped = {device for pair in roles.swaps for device in pair}
    for device in range(config.collars):
        rng = stream(config.seed, "assignment", device)
        installed = before(world, rng, 30, 400)
        installed = max(installed, world.ownership[device][0].start + timedelta(hours=1))
        installed = min(installed, config.start_ts - timedelta(hours=2))
        spare = roles.spare_partner.get(device)
        if spare is not None and device not in roles.moves:
            _share(world, rng, device, spare, installed)
        elif spare is not None:
            off = moment(world, rng, 0.2, 0.7)
            world.moved_devices.append(device)
            # One move in four becomes known two days late.
            delay = 2 if len(world.moved_devices) % 4 == 1 else 0
            on = off + timedelta(minutes=int(rng.integers(20, 600)))
            wear_collar(world, device, device, installed, off, delay)
            wear_collar(world, device, spare, on, None, delay)
        elif device in roles.late_installs:
            wear_collar(world, device, device, moment(world, rng, 0.1, 0.4), None)
        elif device in roles.retired:
            wear_collar(world, device, device, installed, world.retired_at[device])
        elif roles.owner_of[device] in (roles.deleted_owner, roles.returned_owner):
            continue
        elif device not in swapped:
            wear_collar(world, device, device, installed, None)
    for left, right in roles.swaps:
        rng = stream(config.seed, "swap", left, right)
        installed, at = before(world, rng, 1, 20), moment(world, rng, 0.3, 0.6)
        world.moved_devices.extend([left, right])
        for device, then in ((left, right), (right, left)):
            wear_collar(world, device, device, installed, at)
            wear_collar(world, device, then, at, None)


def _share(world: World, rng: np.random.Generator, device: int, spare: int, installed: datetime) -> None:
    """One collar worn in turn by two pets of a household, for 18 to 60 hours each."""
    world.shared_device = device
    pets, turn, since = (device, spare), 0, installed
    until = moment(world, rng, 0.02, 0.1)
    while until < world.config.end_ts:
        wear_collar(world, device, pets[turn % 2], since, until)
        # The change takes some minutes now and then.
        since = until + timedelta(minutes=int(rng.integers(0, 2) * rng.integers(5, 90)))
        until = since + timedelta(minutes=int(rng.integers(18 * 60, 60 * 60)))
        turn += 1
    wear_collar(world, device, pets[turn % 2], since, None)


def _departures(world: World, roles: _Roles) -> None:
    """One owner is deleted for good, another deleted and back some days later, with pets and collars."""
    for owner, returns in ((roles.deleted_owner, False), (roles.returned_owner, True)):
        if owner is None:
            continue
        rng = stream(world.config.seed, "departure", owner)
        gone, back = moment(world, rng, 0.25, 0.45), moment(world, rng, 0.6, 0.8)
        owner_id = world.owner_ids[owner]
        (world.returned_owners if returns else world.deleted_owners).append(owner_id)
        pets = [pet for pet, former in enumerate(roles.owner_of) if former == owner]
        for pet in pets:
            if pet < world.config.collars:
                since = world.ownership[pet][0].start
                installed = max(before(world, rng, 30, 400), since + timedelta(hours=1))
                wear_collar(world, pet, pet, min(installed, world.config.start_ts - timedelta(hours=2)), gone)
                if returns:
                    wear_collar(world, pet, pet, back + timedelta(hours=2), None)
            _end(world.ownership[pet], gone)
            record(world, "pets", world.pets[pet].pet_id, gone, None)
            if returns:
                _pass_on(world.ownership, pet, owner, back)
                record(world, "pets", world.pets[pet].pet_id, back, {})
        record(world, "owners", owner_id, gone, None)
        if returns:
            record(world, "owners", owner_id, back, {})


def _rehome(world: World, roles: _Roles) -> None:
    for pet in roles.rehomed:
        rng = stream(world.config.seed, "rehome", pet)
        former = roles.owner_of[pet]
        new = former
        while new in (former, roles.deleted_owner, roles.returned_owner):
            new = int(rng.integers(world.config.households))
        at = moment(world, rng, 0.2, 0.8)
        _pass_on(world.ownership, pet, new, at)
        world.rehomed_pets.append(world.pets[pet].pet_id)
        record(world, "pets", world.pets[pet].pet_id, at, {"owner_id": world.owner_ids[new]})


def _consent(world: World, roles: _Roles) -> None:
    """Some households withdraw `analytics` (one takes it back), others change another flag."""
    config = world.config
    rng = stream(config.seed, "consent")
    flags = {
        m.key: m.patch["consent_flags"]
        for m in world.mutations
        if m.feed == "owners" and m.patch and "name" in m.patch
    }
    leaving = (roles.deleted_owner, roles.returned_owner)
    candidates = [
        int(owner)
        for owner in rng.permutation(config.households)
        if int(owner) not in leaving and flags[world.owner_ids[int(owner)]]["analytics"]["value"]
    ]
    withdrawn = math.ceil(config.analytics_opt_out * config.households)
    others = round(config.consent_changes * config.households)

    def change(owner: int, name: str, value: bool, at: datetime) -> None:
        owner_id = world.owner_ids[owner]
        flags[owner_id] = {**flags[owner_id], name: {"at": _stamp(at), "value": value}}
        record(world, "owners", owner_id, at, {"consent_flags": flags[owner_id]})

    for rank, owner in enumerate(candidates[:withdrawn]):
        out = moment(world, rng, 0.15, 0.6)
        back = moment(world, rng, 0.7, 0.9) if rank == 1 else None
        change(owner, "analytics", False, out)
        if back:
            change(owner, "analytics", True, back)
        world.opt_outs.append(Interval(owner, 0, out, back))
    for owner in candidates[withdrawn : withdrawn + others]:
        name = ("email", "push", "share_research", "sms")[int(rng.integers(4))]
        value = not flags[world.owner_ids[owner]][name]["value"]
        change(owner, name, value, moment(world, rng, 0.05, 0.95))


# --- visits ---------------------------------------------------------------------------------------


@dataclass
class _Visits:
    """Writes visits and appointments of one pet in the order of their ids."""

    world: World
    number: int = 0
    appointments: int = 0

    def complete(
        self,
        pet: int,
        clinic: int,
        at: datetime,
        kind: str,
        rng: np.random.Generator,
        diagnosis: str | None = None,
    ) -> str:
        """A visit that took place: known at its end, with the weight also on the pet's record."""
        visit_id = self._next_id()
        row = {**self._row(visit_id, pet, clinic, at, kind), **self._outcome(pet, at, kind, rng, diagnosis)}
        self._finish(visit_id, pet, row, at)
        return visit_id

    def plan(
        self,
        pet: int,
        clinic: int,
        booked: datetime,
        at: datetime,
        kind: str,
        fate: str,
        rng: np.random.Generator,
    ) -> str:
        """A booked visit: scheduled when booked; completed, no_show or cancelled at its time."""
        visit_id = self._next_id()
        self.appointments += 1
        appointment_id = f"appointment-{self.appointments:06d}"
        row = self._row(visit_id, pet, clinic, at, kind) | {"status": "scheduled"}
        appointment = {
            "appointment_id": appointment_id,
            "pet_id": row["pet_id"],
            "clinic_id": row["clinic_id"],
            "scheduled_ts": at,
            "status": "scheduled",
            "visit_id": None,
        }
        record(self.world, "clinic_visits", visit_id, booked, row)
        record(self.world, "appointments", appointment_id, booked, appointment)
        if fate == "completed":
            outcome = self._outcome(pet, at, kind, rng, None)
            self._finish(visit_id, pet, outcome, at)
            known = outcome["visit_end_ts"]
            kept: str | None = visit_id
        else:
            known = at + timedelta(hours=1) if fate == "no_show" else at - (at - booked) / 2
            known = known.replace(microsecond=0)
            kept = None
            record(self.world, "clinic_visits", visit_id, known, {"status": fate})
        record(self.world, "appointments", appointment_id, known, {"status": fate, "visit_id": kept})
        return visit_id

    def _next_id(self) -> str:
        self.number += 1
        return f"visit-{self.number:06d}"

    def _row(self, visit_id: str, pet: int, clinic: int, at: datetime, kind: str) -> dict[str, Any]:
        return {
            "visit_id": visit_id,
            "pet_id": self.world.pets[pet].pet_id,
            "clinic_id": self.world.clinic_ids[clinic],
            "visit_ts": at,
            "visit_end_ts": None,
            "visit_type": kind,
            "is_unplanned": kind in _UNPLANNED,
            "reason": {"follow_up": "follow-up of an earlier visit"}.get(kind, kind),
            "outcome": None,
            "diagnosis_codes": None,
            "weight_kg": None,
            "next_vaccine_due": None,
        }

    def _outcome(
        self, pet: int, at: datetime, kind: str, rng: np.random.Generator, diagnosis: str | None
    ) -> dict[str, Any]:
        weight = float(self.world.pets[pet].weight_kg) * (1 + float(rng.normal(0, 0.015)))
        return {
            "status": "completed",
            "visit_end_ts": at + timedelta(minutes=int(rng.integers(15, 90))),
            "outcome": ("treated", "medication", "referred")[int(rng.integers(3))]
            if diagnosis
            else "healthy",
            "diagnosis_codes": [_DIAGNOSES[diagnosis]] if diagnosis else [],
            "weight_kg": Decimal(f"{weight:.3f}"),
            "next_vaccine_due": at.date() + timedelta(days=365) if kind == "vaccination" else None,
        }

    def _finish(self, visit_id: str, pet: int, row: dict[str, Any], at: datetime) -> None:
        end = row["visit_end_ts"]
        # One unplanned visit in nine is entered by the clinic a day later.
        delay = 1 if row.get("is_unplanned") and self.number % 9 == 0 else 0
        record(self.world, "clinic_visits", visit_id, end, row, delay)
        if at >= self.world.config.start_ts - timedelta(days=60):
            record(self.world, "pets", self.world.pets[pet].pet_id, end, {"weight_kg": row["weight_kg"]})


def _working_hour(day: datetime, rng: np.random.Generator) -> datetime:
    """A quarter hour between 7:00 and 16:45 UTC of the day."""
    return day.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(
        minutes=int(7 * 60 + 15 * rng.integers(40))
    )


def _visits(world: World, roles: _Roles) -> None:
    config = world.config
    staying = [
        pet
        for pet in range(len(world.pets))
        if roles.owner_of[pet] not in (roles.deleted_owner, roles.returned_owner)
    ]
    rng = stream(config.seed, "health")
    frailty = np.array([world.pets[pet].frailty for pet in staying])
    ill_count = min(len(staying), round(config.illness * len(world.pets)))
    order = [
        staying[int(i)]
        for i in rng.choice(len(staying), len(staying), replace=False, p=frailty / frailty.sum())
    ]
    remaining, ill = set(staying), set(order[:ill_count])
    silent = set(order[ill_count : ill_count + round(config.silent_illness * len(world.pets))])
    visits = _Visits(world)
    for pet in range(len(world.pets)):
        own = stream(config.seed, "visits", pet)
        clinic = home_clinic(world, roles.owner_of[pet])
        _past_visits(world, visits, pet, clinic, own)
        if pet in remaining:
            _planned_visits(world, visits, pet, clinic, own)
        if pet in ill:
            _fall_ill(world, visits, pet, clinic, own)
        elif pet in silent:
            onset = moment(world, own, 0.0, 0.95)
            until = onset + timedelta(minutes=int(own.integers(24 * 60, 72 * 60)))
            kind = list(ILLNESS_EFFECTS)[int(own.integers(len(ILLNESS_EFFECTS)))]
            severity = round(float(own.uniform(0.35, 0.7)), 3)
            world.illnesses.append(Illness(pet, kind, severity, onset, until, None))


def _past_visits(world: World, visits: _Visits, pet: int, clinic: int, rng: np.random.Generator) -> None:
    """A year of history: checks, a vaccination, unplanned visits in the measure of frailty."""
    start, born = world.config.start_ts, world.pets[pet].dob
    kinds = ["vaccination"] * int(rng.random() < 0.85)
    kinds += [_PLANNED[int(i)] for i in rng.integers(len(_PLANNED), size=int(rng.poisson(0.9)))]
    kinds += [
        _UNPLANNED[int(i)]
        for i in rng.integers(len(_UNPLANNED), size=int(rng.poisson(1.0 * world.pets[pet].frailty)))
    ]
    for kind in kinds:
        at = _working_hour(start - timedelta(days=int(rng.integers(2, 366))), rng)
        if at.date() <= born:
            continue
        if kind in _UNPLANNED:
            diagnosis = list(_DIAGNOSES)[int(rng.integers(len(_DIAGNOSES)))]
            visits.complete(pet, clinic, at, kind, rng, diagnosis)
        else:
            fate = "no_show" if rng.random() < world.config.no_show else "completed"
            visits.plan(pet, clinic, at - timedelta(days=int(rng.integers(2, 40))), at, kind, fate, rng)


def _planned_visits(world: World, visits: _Visits, pet: int, clinic: int, rng: np.random.Generator) -> None:
    """With 60 % a visit booked between now and a month after the period, due or still ahead."""
    config = world.config
    if rng.random() >= 0.6:
        return
    at = _working_hour(config.start_ts + timedelta(days=int(rng.integers(0, config.days + 30))), rng)
    booked = (at - timedelta(minutes=int(rng.integers(2 * 1440, 45 * 1440)))).replace(microsecond=0)
    draw = rng.random()
    fate = "no_show" if draw < config.no_show else "cancelled" if draw > 0.96 else "completed"
    visit_id = visits.plan(pet, clinic, booked, at, _PLANNED[int(rng.integers(len(_PLANNED)))], fate, rng)
    if fate == "no_show" and at + timedelta(hours=1) < config.end_ts:
        world.no_shows.append(visit_id)


def _fall_ill(world: World, visits: _Visits, pet: int, clinic: int, rng: np.random.Generator) -> None:
    """An illness that begins 40 to 96 hours before its unplanned visit."""
    config = world.config
    at = _working_hour(config.start_ts + timedelta(days=int(rng.integers(config.days))), rng)
    onset = at - timedelta(minutes=int(rng.integers(40 * 60, 96 * 60)))
    kind = list(ILLNESS_EFFECTS)[int(rng.integers(len(ILLNESS_EFFECTS)))]
    severity = round(float(rng.uniform(0.65, 1.0)), 3)
    visit_type = "emergency" if severity > 0.9 else "illness"
    visit_id = visits.complete(pet, clinic, at, visit_type, rng, kind)
    world.illnesses.append(Illness(pet, kind, severity, onset, at, visit_id))
    if rng.random() < 0.3:
        follow = _working_hour(at + timedelta(days=int(rng.integers(3, 10))), rng)
        visits.plan(pet, clinic, at + timedelta(hours=2), follow, "follow_up", "completed", rng)


def holding(intervals: list[Interval], moment: datetime) -> Interval | None:
    """The interval that holds a moment."""
    for interval in intervals:
        if interval.start <= moment and (interval.end is None or moment < interval.end):
            return interval
    return None


def last_rows(world: World, feed: str) -> dict[str, dict[str, Any]]:
    """Every record of a feed with all its changes, by key; what was deleted and stayed so is left out."""
    rows: dict[str, dict[str, Any]] = {}
    gone: dict[str, bool] = {}
    for mutation in sorted(
        (m for m in world.mutations if m.feed == feed), key=lambda item: (item.key, item.changed_at)
    ):
        gone[mutation.key] = mutation.patch is None
        rows[mutation.key] = {**rows.get(mutation.key, {}), **(mutation.patch or {})}
    return {key: row for key, row in rows.items() if not gone[key]}


def intervals_by_subject(intervals: list[Interval]) -> dict[int, list[Interval]]:
    """Intervals grouped by subject, in order of their start."""
    grouped: dict[int, list[Interval]] = defaultdict(list)
    for interval in sorted(intervals, key=lambda item: (item.subject, item.start)):
        grouped[interval.subject].append(interval)
    return grouped
