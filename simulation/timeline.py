"""The world as sorted arrays that telemetry looks up: who wears a collar, where, how well, which faults.

Built once per fleet. Lookups are by (device, time) with a binary search over
one packed integer key; nothing here draws message contents.
"""

import itertools
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from simulation.config import FleetConfig
from simulation.randomness import F64, I64, NORMAL, derive, mix, part, uniform
from simulation.world import ILLNESS_EFFECTS, Interval, World, holding, intervals_by_subject

F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1)
_TIME_BITS = 42  # milliseconds since 1970 up to the year 2109
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_RAMP_H = 12.0  # an illness reaches full strength this long after its onset
_FADE_H = 24.0  # and fades this long after the visit or recovery


def to_ms(moment: datetime) -> int:
    """Milliseconds since 1970 of a naive UTC time."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(value: int) -> datetime:
    """Naive UTC time of milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=int(value))


def pack(device: I64, ms: I64) -> I64:
    """One sortable integer from a device index and a time."""
    return (device << _TIME_BITS) + ms


@dataclass(frozen=True)
class Episodes:
    """Disjoint spans [start, end) per device with a value each, sorted by (device, start)."""

    device: I64
    start_ms: I64
    end_ms: I64
    value: I64

    def find(self, device: I64, ms: I64) -> I64:
        """Index of the span that holds each (device, time); -1 where none does."""
        if not len(self.device):
            return np.full(len(device), -1, dtype=np.int64)
        key = pack(device, ms)
        at = np.searchsorted(pack(self.device, self.start_ms), key, side="right") - 1
        inside = (at >= 0) & (key < pack(self.device, self.end_ms)[at])
        return np.where(inside, at, -1)


@dataclass(frozen=True)
class Segments:
    """Who wears each collar from `key` (device and time) until the next key of the device.

    `pet` is -1 while nobody does; `opted_out` says that the pet's household
    has withdrawn `analytics`; the home is in 1e-7 degrees.
    """

    key: I64
    pet: I64
    home_lat_e7: I64
    home_long_e7: I64
    opted_out: Bool

    def find(self, device: I64, ms: I64) -> I64:
        """Index of the segment that holds each (device, time); every device has one from time 0."""
        return np.searchsorted(self.key, pack(device, ms), side="right") - 1


@dataclass(frozen=True)
class Effects:
    """Per pet and hour of the period: factors on activity, licking and pulse, degrees on temperature."""

    activity: F32
    licking: F32
    pulse: F32
    temp_c: F32


@dataclass(frozen=True)
class Timeline:
    """All lookups of one fleet."""

    segments: Segments
    firmware_key: I64
    firmware: I64
    silent_from_ms: I64
    gaps: Episodes
    clocks: Episodes
    effects: Effects
    # Spans of a collar that two pets claim; the value is the pet that came second.
    claimed_twice: Episodes


def build_timeline(world: World) -> Timeline:
    """Arrange the world and the fault episodes for lookup."""
    config = world.config
    forever = np.iinfo(np.int64).max
    return Timeline(
        segments=_segments(world),
        firmware_key=np.array(
            [
                (device << _TIME_BITS) + (to_ms(at) if at else 0)
                for device, versions in enumerate(world.device_firmware)
                for at, _ in versions
            ],
            dtype=np.int64,
        ),
        firmware=np.array([v for versions in world.device_firmware for _, v in versions], dtype=np.int64),
        silent_from_ms=np.array(
            [to_ms(at) if at else forever for at in world.device_silent_from], dtype=np.int64
        ),
        gaps=_gaps(config, len(world.device_ids)),
        clocks=_clocks(config, len(world.device_ids)),
        effects=_effects(world),
        claimed_twice=_disjoint(
            *(
                np.array(column, dtype=np.int64)
                for column in (
                    [span.subject for span in world.ambiguous_spans],
                    [to_ms(span.start) for span in world.ambiguous_spans],
                    [to_ms(span.end or span.start) for span in world.ambiguous_spans],
                    [span.target for span in world.ambiguous_spans],
                )
            )
        ),
    )


def _segments(world: World) -> Segments:
    ownership, homes = world.ownership, world.homes
    opt_outs = intervals_by_subject(world.opt_outs)
    worn = intervals_by_subject(list(world.assignments.values()))
    rows: list[tuple[int, int, int, int, bool]] = []

    def add(device: int, ms: int, pet: int, owner: int | None, moment: datetime) -> None:
        lat, long, out = 0.0, 0.0, False
        if owner is not None:
            home = holding(homes[owner], moment)
            if home is not None:
                lat, long = world.home_positions[home.target]
            out = holding(opt_outs.get(owner, []), moment) is not None
        rows.append(((device << _TIME_BITS) + ms, pet, round(lat * 10**7), round(long * 10**7), out))

    for device in range(len(world.device_ids)):
        free_from = 0
        for wear in one_at_a_time(worn.get(device, [])):
            if to_ms(wear.start) > free_from or free_from == 0:
                add(device, free_from, -1, None, wear.start)
            cuts = {wear.start}
            for own in ownership[wear.target]:
                cuts |= {own.start, own.end or wear.start}
                for change in [*homes[own.target], *opt_outs.get(own.target, [])]:
                    cuts |= {change.start, change.end or wear.start}
            for cut in sorted(cuts):
                if cut >= wear.start and (wear.end is None or cut < wear.end):
                    held = holding(ownership[wear.target], cut)
                    add(device, to_ms(cut), wear.target, held.target if held else None, cut)
            free_from = to_ms(wear.end) if wear.end else -1
        if free_from >= 0:
            add(device, free_from, -1, None, world.config.start_ts)
    columns = list(zip(*rows, strict=True))
    return Segments(
        key=np.array(columns[0], dtype=np.int64),
        pet=np.array(columns[1], dtype=np.int64),
        home_lat_e7=np.array(columns[2], dtype=np.int64),
        home_long_e7=np.array(columns[3], dtype=np.int64),
        opted_out=np.array(columns[4], dtype=np.bool_),
    )


def one_at_a_time(worn: list[Interval]) -> list[Interval]:
    """Spans of one collar, by their starts, as it was worn: until the next pet got it, whatever records say."""
    return [
        replace(wear, end=then.start) if then and (wear.end is None or wear.end > then.start) else wear
        for wear, then in itertools.zip_longest(worn, worn[1:])
    ]


def _draw_episodes(
    config: FleetConfig, devices: int, name: str, per_device_day: float, shortest_ms: int, longest_ms: int
) -> tuple[I64, I64, I64, I64]:
    """Starts on a share of the device-days: device, start, end and a 16-bit draw for the value."""
    counter = np.arange(devices * config.days, dtype=np.int64)
    hit = np.flatnonzero(uniform(mix(counter, derive(config.seed, name, "hit"))) < per_device_day)
    word = mix(counter[hit], derive(config.seed, name, "shape"))
    device, day = hit // config.days, hit % config.days
    start = to_ms(config.start_ts) + day * DAY_MS + part(word, 0) * DAY_MS // 65536
    length = shortest_ms + part(word, 1) * (longest_ms - shortest_ms) // 65536
    return device, start, start + length, part(word, 2)


def _disjoint(device: I64, start: I64, end: I64, value: I64) -> Episodes:
    """Sort by device and start; an episode that begins before its predecessor's end is left out."""
    order = np.lexsort((start, device))
    kept: list[int] = []
    for index in order.tolist():
        if kept and device[kept[-1]] == device[index] and start[index] < end[kept[-1]]:
            continue
        kept.append(index)
    chosen = np.array(kept, dtype=np.int64)
    return Episodes(device[chosen], start[chosen], end[chosen], value[chosen])


def _gaps(config: FleetConfig, devices: int) -> Episodes:
    return _disjoint(
        *_draw_episodes(config, devices, "gaps", config.gaps_per_device_day, HOUR_MS // 2, 10 * HOUR_MS)
    )


def _clocks(config: FleetConfig, devices: int) -> Episodes:
    """Device clocks that are off: `value` is the offset in ms added to the time of the event.

    Small offsets (1 to 20 minutes, either way) stay within the contract. Breaks
    are 500 to 900 days back or 5 to 30 days ahead: even a message 48 h late is
    then more than 24 h ahead of its arrival.
    """
    device, start, end, draw = _draw_episodes(
        config, devices, "clock jumps", config.clock_jumps_per_device_day, HOUR_MS, 6 * HOUR_MS
    )
    sign = np.where(draw % 2 == 0, 1, -1)
    jump = sign * (60_000 + draw * 19 * 60_000 // 65536)
    b_device, b_start, b_end, b_draw = _draw_episodes(
        config, devices, "clock breaks", config.clock_breaks_per_device_day, HOUR_MS // 12, HOUR_MS * 2 // 3
    )
    breaks = np.where(b_draw % 2 == 0, -(500 + b_draw % 400) * DAY_MS, (5 + b_draw % 25) * DAY_MS)
    return _disjoint(
        np.concatenate([b_device, device]),
        np.concatenate([b_start, start]),
        np.concatenate([b_end, end]),
        np.concatenate([breaks, jump]),
    )


def _effects(world: World) -> Effects:
    config = world.config
    pets, hours = len(world.pets), config.days * 24
    counter = np.arange(pets * config.days, dtype=np.int64)
    word = mix(counter, derive(config.seed, "mood"))

    def by_hour(which: int, spread: float) -> F32:
        factor: F64 = 1.0 + spread * NORMAL[part(word, which) >> 4]
        return np.repeat(factor.reshape(pets, config.days), 24, axis=1).astype(np.float32)

    activity, licking = by_hour(0, 0.15), by_hour(1, 0.15)
    pulse = by_hour(2, 0.02)
    temp = (by_hour(3, 0.08) - np.float32(1.0)).astype(np.float32)
    for pet, day in world.lazy_days:
        activity[pet, day * 24 : day * 24 + 24] *= np.float32(0.55)
    middle = np.arange(hours) + 0.5
    for illness in world.illnesses:
        onset = (illness.onset - config.start_ts) / timedelta(hours=1)
        until = (illness.until - config.start_ts) / timedelta(hours=1)
        rising = np.clip((middle - onset) / _RAMP_H, 0.0, 1.0)
        falling = np.clip(1.0 - (middle - until) / _FADE_H, 0.0, 1.0)
        strength = illness.severity * np.minimum(rising, falling)
        lost, licks, beats, degrees = ILLNESS_EFFECTS[illness.kind]
        activity[illness.pet] *= (1.0 - lost * strength).astype(np.float32)
        licking[illness.pet] *= (1.0 + licks * strength).astype(np.float32)
        pulse[illness.pet] *= (1.0 + beats * strength).astype(np.float32)
        temp[illness.pet] += (degrees * strength).astype(np.float32)
    return Effects(activity, licking, pulse, temp)


def daily_rhythm() -> F64:
    """Chance of being active per minute of the day (UTC), rows dog and cat, at 6 digits.

    Dogs follow their people: morning, noon, evening. Cats are up at dusk, at
    dawn and now and then at night.
    """
    # Height, minute of the day, width in minutes of each bump.
    dog = ((0.05, 0, 1e9), (0.55, 330, 50), (0.30, 650, 60), (0.60, 1020, 70), (0.15, 780, 240))
    cat = ((0.12, 0, 1e9), (0.55, 270, 60), (0.60, 1170, 80), (0.20, 0, 120), (0.20, 1440, 120))
    return np.array([[_activity(bumps, minute) for minute in range(1440)] for bumps in (dog, cat)])


def _activity(bumps: tuple[tuple[float, float, float], ...], minute: int) -> float:
    chance = sum(high * math.exp(-(((minute - at) / wide) ** 2) / 2) for high, at, wide in bumps)
    return round(min(0.95, chance), 6)
