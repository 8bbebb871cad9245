"""Messages of the fleet, wave by wave: which are due, when they arrive, what they say.

Two steps on arrays. `plan` decides which messages arrive in a stretch of time,
with their planted faults; it is cheap (no contents), and `truth` runs it alone.
`Renderer` turns a plan into JSON bytes. All draws are functions of (seed,
channel, device, slot), where a slot is one sending period of a device counted
from the fleet's start; so a wave can be made alone and in any batch size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulation.faults import CONFLICT, DUPLICATE, LATE, MALFORMATIONS, MALFORMED, NORMAL, OUT_OF_ORDER
from simulation.randomness import F64, I64, derive, mix, normal, part, uniform
from simulation.timeline import DAY_MS, HOUR_MS, Timeline, daily_rhythm, to_ms
from simulation.wire import (
    ABSENT,
    ACCEL_LIMIT,
    LICK_LIMIT,
    PULSE_LIMITS,
    RESPIRATION_LIMITS,
    STEP_LIMIT,
    TEMP_LIMITS,
    Encoder,
    Measures,
)
from simulation.world import FIRMWARE, World

TOPIC = "telemetry"
_SLOT_BITS = 40
_LONGEST_DELAY_MS = 48 * HOUR_MS
# Rows of one planning step when faults of past days are looked for; bounds memory.
_SCAN_ROWS = 2_000_000
_PACES = np.array([2, 5, 15, 60])
_GPS_EVERY = 5  # slots between position fixes


@dataclass(frozen=True)
class MessageBatch:
    """Messages in order of arrival, as parallel lists.

    `keys` are device ids, `values` JSON (or what a fault left of it),
    `arrival_ts_ms` the time of receipt in ms since 1970.
    """

    topic: str
    keys: list[bytes]
    values: list[bytes]
    arrival_ts_ms: list[int]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Plan:
    """Messages that arrive in a stretch of time, sorted by (arrival, device, slot, kind).

    `kind` is NORMAL or the planted fault, `true_ms` when the event took
    place, `event_ms` what the device's clock said.
    """

    device: I64
    slot: I64
    kind: I64
    arrival_ms: I64
    true_ms: I64
    event_ms: I64

    def __len__(self) -> int:
        return len(self.device)


class Planner:
    """Decides which messages of a fleet exist and when they arrive."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        config = self._config = world.config
        self._timeline = timeline
        self._devices = len(world.device_ids)
        self._is_irregular = np.isin(np.arange(self._devices), world.irregular_devices)
        self._pace_key = derive(config.seed, "pace")
        self._start_ms = to_ms(config.start_ts)
        self._last_slot = config.days * config.slots_per_day
        phase = mix(np.arange(self._devices, dtype=np.int64), derive(config.seed, "phase"))
        self._phase_ms = part(phase, 0) * (config.period_ms // 2) // 65536
        self._time_key = derive(config.seed, "time")
        self._fault_key = derive(config.seed, "fault")
        self._shape_key = derive(config.seed, "fault shape")
        rates = np.cumsum(
            [config.malformed, config.conflicts, config.late, config.out_of_order, config.duplicates]
        )
        # Thresholds of one uniform draw: a slot has at most one fault.
        self._malformed, self._conflict, self._late, self._swapped, self._twice = (
            float(rate) for rate in rates
        )

    def wave(self, day: int, rows: int) -> Iterator[Plan]:
        """Plans of about `rows` messages that arrive on `day`; on the last day also what comes after it."""
        config = self._config
        moved = self._moved(day)
        slots = max(1, min(config.slots_per_day, rows // self._devices))
        first = day * config.slots_per_day
        last = first + config.slots_per_day
        for slot in range(first, last, slots):
            stop = min(slot + slots, last)
            plan = self._in_time(slot, stop)
            until = self._slot_ms(stop) if stop < self._last_slot else np.iinfo(np.int64).max
            chosen = (moved.arrival_ms >= self._slot_ms(slot)) & (moved.arrival_ms < until)
            yield _sorted(_concat([plan, _take(moved, chosen)]))

    def live(self, after_ms: int, until_ms: int) -> Plan:
        """Fault-free messages whose events fall in (after_ms, until_ms]; arrival is `until_ms`."""
        period = self._config.period_ms
        first = (after_ms - self._start_ms) // period - 1
        last = (until_ms - self._start_ms) // period + 1
        device, slot = self._grid(first, last)
        true_ms, _ = self._times(device, slot)
        due = (true_ms > after_ms) & (true_ms <= until_ms)
        device, slot, true_ms = device[due], slot[due], true_ms[due]
        keep = (true_ms < self._timeline.silent_from_ms[device]) & self._in_pace(device, slot)
        plan = Plan(device, slot, np.zeros_like(device), np.full_like(device, until_ms), true_ms, true_ms)
        return _sorted(_take(plan, keep))

    def malformation(self, plan: Plan) -> I64:
        """Index into MALFORMATIONS for each message of the plan; -1 for the well-formed."""
        word = mix(self._counter(plan.device, plan.slot), self._shape_key)
        return np.where(plan.kind == MALFORMED, part(word, 1) % len(MALFORMATIONS), -1)

    def first_arrival_ms(self, plan: Plan) -> I64:
        """When the first copy of each second copy arrived; for other messages, had they been undisturbed."""
        return self._times(plan.device, plan.slot)[1]

    def _slot_ms(self, slot: int) -> int:
        return self._start_ms + slot * self._config.period_ms

    def _grid(self, first: int, last: int) -> tuple[I64, I64]:
        """Every device in every slot of [first, last)."""
        slots = np.arange(first, last, dtype=np.int64)
        devices = np.arange(self._devices, dtype=np.int64)
        return np.repeat(devices, len(slots)), np.tile(slots, len(devices))

    def _counter(self, device: I64, slot: I64) -> I64:
        return (device << _SLOT_BITS) + slot

    def _times(self, device: I64, slot: I64) -> tuple[I64, I64]:
        """When the event takes place and when an undisturbed message arrives; both within the slot."""
        period = self._config.period_ms
        word = mix(self._counter(device, slot), self._time_key)
        jitter = part(word, 0) * (period // 20) // 65536
        true_ms = self._start_ms + slot * period + self._phase_ms[device] + jitter
        delay = period // 300 + part(word, 1) * (period // 3) // 65536
        return true_ms, true_ms + delay

    def _sent(self, device: I64, slot: I64, true_ms: I64) -> np.ndarray:
        """Which events were sent: not in a gap, not by a collar that is silent by now or does not send just then."""
        lost = self._timeline.gaps.find(device, true_ms) >= 0
        return ~lost & (true_ms < self._timeline.silent_from_ms[device]) & self._in_pace(device, slot)

    def _in_pace(self, device: I64, slot: I64) -> np.ndarray:
        """Which slots a collar uses: all, or where its cadence is irregular one in 2 to 60, another in each 6 h."""
        used = np.ones(len(device), dtype=np.bool_)
        at = np.flatnonzero(self._is_irregular[device])
        if len(at):
            stretch = slot[at] // (self._config.slots_per_day // 4)
            pace = mix(self._counter(device[at], stretch), self._pace_key)
            word = mix(self._counter(device[at], slot[at]), self._pace_key)
            used[at] = part(word, 1) % _PACES[part(pace, 0) % len(_PACES)] == 0
        return used

    def _event_ms(self, device: I64, true_ms: I64, kind: I64) -> I64:
        """The device clock; malformed messages keep the true time so that they break in one way only."""
        clocks = self._timeline.clocks
        at = clocks.find(device, true_ms)
        if not len(clocks.value):
            return true_ms
        return true_ms + np.where((at >= 0) & (kind != MALFORMED), clocks.value[at], 0)

    def _in_time(self, first: int, last: int) -> Plan:
        """Messages of the slots that arrive undisturbed, malformed ones and originals of copies included."""
        device, slot = self._grid(first, last)
        draw = uniform(mix(self._counter(device, slot), self._fault_key))
        true_ms, arrival_ms = self._times(device, slot)
        keep = self._sent(device, slot, true_ms) & ((draw < self._conflict) | (draw >= self._swapped))
        device, slot, draw = device[keep], slot[keep], draw[keep]
        true_ms, arrival_ms = true_ms[keep], arrival_ms[keep]
        kind = np.where(draw < self._malformed, MALFORMED, NORMAL)
        return Plan(device, slot, kind, arrival_ms, true_ms, self._event_ms(device, true_ms, kind))

    def _moved(self, day: int) -> Plan:
        """Late and overtaken messages and second copies that arrive on `day`; the last day takes the rest."""
        spd = self._config.slots_per_day
        past_days = -(-_LONGEST_DELAY_MS // DAY_MS) + 1
        first, last = max(0, (day - past_days) * spd), (day + 1) * spd
        step = max(1, _SCAN_ROWS // self._devices)
        found = [self._moved_from(slot, min(slot + step, last)) for slot in range(first, last, step)]
        moved = _concat(found)
        until = self._slot_ms(last) if last < self._last_slot else np.iinfo(np.int64).max
        return _take(moved, (moved.arrival_ms >= self._slot_ms(day * spd)) & (moved.arrival_ms < until))

    def _moved_from(self, first: int, last: int) -> Plan:
        device, slot = self._grid(first, last)
        draw = uniform(mix(self._counter(device, slot), self._fault_key))
        hit = np.flatnonzero((draw >= self._malformed) & (draw < self._twice))
        device, slot, draw = device[hit], slot[hit], draw[hit]
        kind = np.select(
            [draw < self._conflict, draw < self._late, draw < self._swapped],
            [CONFLICT, LATE, OUT_OF_ORDER],
            DUPLICATE,
        ).astype(np.int64)
        true_ms, arrival_ms = self._times(device, slot)
        word = mix(self._counter(device, slot), self._shape_key)
        share = part(word, 0)
        period = self._config.period_ms
        delay = np.select(
            [kind == LATE, kind == OUT_OF_ORDER],
            [HOUR_MS + share * (_LONGEST_DELAY_MS - HOUR_MS) // 65536, period * (2 + share % 9)],
            1000 + share * (6 * HOUR_MS) // 65536,
        )
        sent = self._sent(device, slot, true_ms)
        plan = Plan(device, slot, kind, arrival_ms + delay, true_ms, self._event_ms(device, true_ms, kind))
        return _take(plan, sent)


class Renderer:
    """Writes the contents of planned messages."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        config = world.config
        self._config = config
        self._timeline = timeline
        self._start_ms = to_ms(config.start_ts)
        seed = config.seed
        self._id_key = derive(seed, "event id")
        self._activity_key = derive(seed, "activity")
        self._motion_key = derive(seed, "motion")
        self._vitals_key = derive(seed, "vitals")
        self._place_key = derive(seed, "place")
        habit = mix(np.arange(len(world.device_ids), dtype=np.int64), derive(seed, "habit"))
        self._charge_cycle = config.slots_per_day * (300 + part(habit, 0) % 400) // 100
        self._charge_phase = part(habit, 1) * self._charge_cycle // 65536
        self._weigh_slot = part(habit, 2) * config.slots_per_day // 65536
        self._rhythm = daily_rhythm()
        self._has = {
            name: np.array(
                [name not in world.missing_sensors.get(device, ()) for device in range(len(world.device_ids))]
            )
            for name in ("pulse_bpm", "body_temp_c", "respiration_rpm", "gps_lat")
        }
        pets = world.pets
        self._is_cat = np.array([pet.breed.species == "cat" for pet in pets], dtype=np.int64)
        self._pet_activity = np.array([pet.activity for pet in pets])
        self._pet_licking = np.array([pet.licking for pet in pets])
        self._pet_pulse = np.array([pet.pulse_bpm for pet in pets])
        self._pet_temp = np.array([pet.body_temp_c for pet in pets])
        self._pet_respiration = np.array([pet.respiration_rpm for pet in pets])
        self._pet_weight_g = np.array([float(pet.weight_kg) * 1000 for pet in pets])
        self._keys = np.array([device_id.encode() for device_id in world.device_ids], dtype=object)
        self._encoder = Encoder(
            config.start,
            [
                f'"device_id":"{device_id}","capture_clinic_id":"{world.clinic_ids[clinic]}"'
                for device_id, clinic in zip(world.device_ids, world.device_clinic, strict=True)
            ],
            FIRMWARE,
        )

    def batch(self, plan: Plan, malformation: I64) -> MessageBatch:
        """Messages of a plan; `malformation` says how each is broken, -1 for not at all."""
        values = self._encoder.encode(self.measures(plan))
        for index in np.flatnonzero(malformation >= 0).tolist():
            values[index] = MALFORMATIONS[malformation[index]].apply(values[index])
        return MessageBatch(TOPIC, self._keys[plan.device].tolist(), values, plan.arrival_ms.tolist())

    def measures(self, plan: Plan) -> Measures:
        """What the collars measure. Values follow the pet that wears the collar at the true time."""
        config, effects, segments = self._config, self._timeline.effects, self._timeline.segments
        device, slot = plan.device, plan.slot
        counter = (device << _SLOT_BITS) + slot
        segment = segments.find(device, plan.true_ms)
        pet = segments.pet[segment]
        worn = pet >= 0  # pet -1 reads the last pet below; everything it yields is masked by `worn`
        elapsed_ms = plan.true_ms - self._start_ms
        # Live messages after the period go through its hours again.
        hour = elapsed_ms // HOUR_MS % (config.days * 24)
        minute = elapsed_ms // 60_000 % 1440

        act = mix(counter, self._activity_key)
        chance = (
            self._rhythm[self._is_cat[pet], minute] * self._pet_activity[pet] * effects.activity[pet, hour]
        )
        moving = (part(act, 0) < chance * 65536) & worn
        effort: F64 = np.where(moving, (part(act, 1) + 1) / 65536, 0.0)
        steps = (np.where(moving, 4 + 90 * effort, 0) / config.events_per_minute).astype(np.int64)
        bout = (
            worn
            & ~moving
            & (part(act, 2) < 0.05 * 65536 * self._pet_licking[pet] * effects.licking[pet, hour])
        )
        licks = np.where(bout, 3 + part(act, 3) % 25, 0) // config.events_per_minute

        motion = mix(counter, self._motion_key)
        swing = 200 + 6_000 * effort
        accel = [
            np.clip((rest + swing * normal(motion, axis)).astype(np.int64), -ACCEL_LIMIT, ACCEL_LIMIT)
            for axis, rest in enumerate((300, -500, 9_800))
        ]
        quality = np.clip(1000 - (40 * np.abs(normal(motion, 3))).astype(np.int64), 0, 1000)

        vital = mix(counter, self._vitals_key)
        sickness = effects.pulse[pet, hour]
        pulse = self._pet_pulse[pet] * sickness * (1 + 0.45 * effort) + 3.0 * normal(vital, 0)
        temp = self._pet_temp[pet] + effects.temp_c[pet, hour] + 0.3 * effort + 0.10 * normal(vital, 1)
        breaths = self._pet_respiration[pet] * (0.5 + 0.5 * sickness) * (1 + 0.9 * effort)
        breaths += 1.5 * normal(vital, 2)
        weighed = worn & (slot % config.slots_per_day == self._weigh_slot[device])
        weight = self._pet_weight_g[pet] * (1 + 0.004 * normal(vital, 3))

        place = mix(counter, self._place_key)
        fixed = worn & self._has["gps_lat"][device] & ((slot + device) % _GPS_EVERY == 0)
        # About 8 m of scatter at home, up to some 300 m on a walk.
        reach = 800 + 26_000 * effort
        lat = segments.home_lat_e7[segment] + (reach * normal(place, 0)).astype(np.int64)
        long = segments.home_long_e7[segment] + (1.5 * reach * normal(place, 1)).astype(np.int64)

        at = np.searchsorted(self._timeline.firmware_key, (device << 42) + plan.true_ms, side="right") - 1
        return Measures(
            event_id=mix(counter, self._id_key),
            event_ms=plan.event_ms,
            device=device,
            firmware=self._timeline.firmware[at],
            accel_x=accel[0],
            accel_y=accel[1],
            accel_z=accel[2],
            step_count=np.minimum(steps, STEP_LIMIT - 1) + (plan.kind == CONFLICT),
            lick_count=np.minimum(licks, LICK_LIMIT),
            battery=self._battery(device, slot),
            quality=quality,
            pulse=_limited(pulse * 10, PULSE_LIMITS, worn & self._has["pulse_bpm"][device]),
            body_temp=_limited(temp * 100, TEMP_LIMITS, worn & self._has["body_temp_c"][device]),
            respiration=_limited(
                breaths * 10, RESPIRATION_LIMITS, worn & self._has["respiration_rpm"][device]
            ),
            lat_e7=np.where(fixed, lat, ABSENT),
            long_e7=np.where(fixed, long, ABSENT),
            weight_g=np.where(weighed, weight, ABSENT).astype(np.int64),
        )

    def _battery(self, device: I64, slot: I64) -> I64:
        """Hundredths of a percent: 3 to 7 days down from full to 8 %, then an hour or two of charging."""
        cycle = self._charge_cycle[device]
        at = (slot + self._charge_phase[device]) % cycle
        drain = cycle - 90 * self._config.events_per_minute
        draining = 10_000 - 9_200 * at // drain
        charging = 800 + 9_200 * (at - drain) // (cycle - drain)
        return np.where(at < drain, draining, charging)


def _limited(value: F64, limits: tuple[int, int], present: np.ndarray) -> I64:
    return np.where(present, np.clip(value, *limits).astype(np.int64), ABSENT)


@dataclass(frozen=True)
class WaveBatches:
    """The messages that arrive on one day (the last wave also carries what arrives later).

    Iterating makes them, in batches of about `batch_rows`; each iteration
    makes the same ones. `wave_id` is stable for a configuration.
    """

    wave_id: str
    day_index: int
    planner: Planner
    renderer: Renderer
    batch_rows: int

    def __iter__(self) -> Iterator[MessageBatch]:
        for plan in self.planner.wave(self.day_index, self.batch_rows):
            if len(plan):
                yield self.renderer.batch(plan, self.planner.malformation(plan))


def _columns(plan: Plan) -> tuple[I64, ...]:
    return plan.device, plan.slot, plan.kind, plan.arrival_ms, plan.true_ms, plan.event_ms


def _take(plan: Plan, index: np.ndarray) -> Plan:
    return Plan(*(column[index] for column in _columns(plan)))


def _concat(plans: list[Plan]) -> Plan:
    return Plan(*(np.concatenate(columns) for columns in zip(*map(_columns, plans), strict=True)))


def _sorted(plan: Plan) -> Plan:
    return _take(plan, np.lexsort((plan.kind, plan.slot, plan.device, plan.arrival_ms)))
