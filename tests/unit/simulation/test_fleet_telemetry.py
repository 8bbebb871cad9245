"""Messages of the simulated fleet against an independent reading of their bytes.

The recount below knows the contract and the extracts, nothing of the
simulator's plans: it parses every message of a small, faulty fleet.
"""

import hashlib
import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.columns import TELEMETRY_FIELDS
from contracts.telemetry import NOT_BEFORE, RejectError, believed_receipts, check_clock, parse_event
from simulation import Fleet, FleetConfig
from simulation.config import ORDINARY
from simulation.faults import MALFORMATIONS
from simulation.randomness import mix

SMALL = FleetConfig(
    **ORDINARY,
    seed=5,
    collars=10,
    households=10,
    clinics=3,
    days=2,
    duplicates=0.02,
    conflicts=0.005,
    late=0.03,
    out_of_order=0.02,
    malformed=0.02,
    gaps_per_device_day=0.3,
    clock_jumps_per_device_day=0.2,
    clock_breaks_per_device_day=0.2,
    analytics_opt_out=0.2,
)


@cache
def small_fleet() -> Fleet:
    return Fleet(SMALL)


@cache
def small_waves() -> list[list[tuple[bytes, bytes, datetime]]]:
    """Per wave: key, value, time of receipt."""
    return [
        [
            (key, value, datetime.fromtimestamp(0, UTC).replace(tzinfo=None) + timedelta(milliseconds=ms))
            for batch in small_fleet().telemetry_wave(day)
            for key, value, ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True)
        ]
        for day in range(SMALL.days)
    ]


@cache
def small_events() -> list[list[dict[str, object] | RejectError]]:
    """Per wave: each message as the contract's reference reads it."""
    return [[read(value, arrival) for _, value, arrival in wave] for wave in small_waves()]


def read(value: bytes, arrival: datetime) -> dict[str, object] | RejectError:
    try:
        event = parse_event(value)
        check_clock(event["event_ts"], arrival, believed_receipts(arrival, NOT_BEFORE))
    except RejectError as reject:
        return reject
    return event


def digest(fleet: Fleet, day: int, batch_rows: int = 8_000) -> str:
    hasher = hashlib.sha256()
    for batch in fleet.telemetry_wave(day, batch_rows):
        for key, value, ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True):
            hasher.update(b"%s|%s|%d\n" % (key, value, ms))
    return hasher.hexdigest()


class Recount:
    """Reads messages as the collector and the warehouse would."""

    def __init__(self) -> None:
        self.waves: list[Counter[str]] = []
        self.rejects: Counter[str] = Counter()
        self.per_device_day: Counter[tuple[str, object]] = Counter()
        seen: dict[tuple[str, str], bytes] = {}
        rows = latest_rows(small_fleet())
        for wave, events in zip(small_waves(), small_events(), strict=True):
            counts: Counter[str] = Counter(messages=len(wave))
            for (_, value, arrival), event in zip(wave, events, strict=True):
                if isinstance(event, RejectError):
                    self.rejects[event.reason] += 1
                    continue
                counts["valid"] += 1
                if opted_out(rows, event["device_id"], arrival):
                    counts["consent_dropped"] += 1
                    continue
                counts["landed"] += 1
                key = (event["device_id"], event["event_id"])
                if key in seen:
                    counts["duplicates" if seen[key] == value else "conflicts"] += 1
                    continue
                seen[key] = value
                counts["distinct"] += 1
                self.per_device_day[event["device_id"], event["event_ts"].date()] += 1
            self.waves.append(counts)


def latest_rows(fleet: Fleet) -> dict[str, dict[str, list[dict[str, object]]]]:
    """All change records per feed and key, in order of change."""
    found: dict[str, dict[str, list[dict[str, object]]]] = defaultdict(lambda: defaultdict(list))
    for extract in fleet.record_extracts():
        for row in extract.table.to_pylist():
            found[extract.feed][row["business_key"]].append(row)
    for feed in found.values():
        for rows in feed.values():
            rows.sort(key=lambda row: row["changed_at"])
    return found


def as_of(rows: list[dict[str, object]], moment: datetime) -> dict[str, object] | None:
    held = None
    for row in rows:
        if row["changed_at"] <= moment:
            held = row
    return None if held is None or held["op"] == "delete" else held


def worn_by(records, device_id: str, moment: datetime) -> str | None:
    for rows in records["device_assignments"].values():
        row = rows[-1]
        until = row["assigned_to"] or datetime.max
        if row["device_id"] == device_id and row["assigned_from"] <= moment < until:
            return row["pet_id"]
    return None


def opted_out(records, device_id: str, moment: datetime) -> bool:
    pet_id = worn_by(records, device_id, moment)
    pet = as_of(records["pets"][pet_id], moment) if pet_id else None
    owner = as_of(records["owners"][pet["owner_id"]], moment) if pet else None
    return owner is not None and not json.loads(owner["consent_flags"])["analytics"]["value"]


def test_truth_equals_an_independent_recount():
    truth, recount = small_fleet().truth(), Recount()
    for wave, counts in zip(truth.waves, recount.waves, strict=True):
        stated = {name: getattr(wave, name) for name in counts}
        assert stated == dict(counts)
    assert truth.total.rejected == dict(recount.rejects)
    assert min(truth.total.consent_dropped, truth.total.duplicates, truth.total.conflicts) > 0
    stated_days = {
        (row["device_id"], row["event_date"]): row["events"]
        for row in truth.tables["events_per_device_day"].to_pylist()
    }
    assert stated_days == dict(recount.per_device_day)
    total = truth.total
    assert total.messages == total.valid + sum(total.rejected.values())
    assert total.valid == total.landed + total.consent_dropped
    assert total.landed == total.distinct + total.duplicates + total.conflicts
    assert sum(stated_days.values()) == total.distinct


def test_late_and_out_of_order_are_as_stated():
    """Late messages show as more than an hour between event and receipt, clocks that are off aside."""
    config = SMALL.model_copy(
        update={
            "duplicates": 0.0,
            "conflicts": 0.0,
            "clock_jumps_per_device_day": 0.0,
            "malformed": 0.0,
            "analytics_opt_out": 0.0,
        }
    )
    fleet = Fleet(config)
    late = overtaken = 0
    for day in range(config.days):
        last: dict[bytes, datetime] = {}
        for batch in fleet.telemetry_wave(day):
            for key, value, ms in zip(batch.keys, batch.values, batch.arrival_ts_ms, strict=True):
                moment = datetime.fromisoformat(json.loads(value)["event_ts"]).replace(tzinfo=None)
                delay = datetime(1970, 1, 1) + timedelta(milliseconds=ms) - moment
                if timedelta(hours=1) <= delay < timedelta(days=3):
                    late += 1
                elif abs(delay) < timedelta(hours=1):
                    overtaken += moment < last.get(key, moment)
                    last[key] = max(last.get(key, moment), moment)
    wave = fleet.truth().total
    assert wave.clock_shifted == wave.consent_dropped == 0
    assert late == wave.late > 100
    # Behind a gap or at a wave's edge an overtaken message may have nobody to be overtaken by.
    assert overtaken == pytest.approx(wave.out_of_order, rel=0.1)


def test_waves_hold_their_day_in_order_of_receipt():
    for day, wave in enumerate(small_waves()):
        arrivals = [arrival for _, _, arrival in wave]
        assert arrivals == sorted(arrivals)
        assert arrivals[0] >= SMALL.start_ts + timedelta(days=day)
        if day < SMALL.days - 1:
            assert arrivals[-1] < SMALL.start_ts + timedelta(days=day + 1)
    assert small_waves()[-1][-1][2] >= SMALL.end_ts, "the last wave carries the leftovers"


def test_every_malformation_is_planted_and_gives_its_reason():
    fleet = small_fleet()
    seen: Counter[str] = Counter()
    for plan in fleet._planner.wave(1, 100_000):
        which = fleet._planner.malformation(plan)
        broken = which >= 0
        batch = fleet._renderer.batch(plan, which)
        for index in broken.nonzero()[0].tolist():
            kind = MALFORMATIONS[which[index]]
            with pytest.raises(RejectError) as caught:
                parse_event(batch.values[index])
            assert caught.value.reason == kind.reason, kind.name
            seen[kind.name] += 1
    assert set(seen) == {kind.name for kind in MALFORMATIONS}


def test_good_messages_have_every_field_and_fit_their_columns_without_rounding():
    held: Counter[str] = Counter()
    sizes = []
    for (_, value, _), event in zip(small_waves()[0], small_events()[0], strict=True):
        if isinstance(event, RejectError):
            continue
        sizes.append(len(value))
        held.update(name for name, field in event.items() if field is not None)
        for column in TELEMETRY_FIELDS:
            if pa.types.is_decimal(column.type) and event[column.name] is not None:
                assert pa.array([event[column.name]], column.type)[0].as_py() == event[column.name]
    assert set(held) == {column.name for column in TELEMETRY_FIELDS} - {"sensor_id"}
    assert 300 < sum(sizes) / len(sizes) < 400
    # A weight once a day or so, a fix every fifth message.
    assert 0 < held["weight_kg"] <= 2 * SMALL.collars
    assert held["gps_lat"] == pytest.approx(held["pulse_bpm"] / 5, rel=0.05)


def test_same_seed_same_bytes_in_any_batch_size():
    expected = digest(Fleet(SMALL), 1)
    assert digest(Fleet(SMALL), 1, batch_rows=500) == expected
    assert digest(small_fleet(), 1, batch_rows=10**6) == expected
    assert digest(Fleet(SMALL.model_copy(update={"seed": 6})), 1) != expected


def test_rates_are_as_configured():
    config = FleetConfig(collars=60, households=50, days=3)
    total = Fleet(config).truth().total
    due = total.messages
    assert total.duplicates / due == pytest.approx(config.duplicates, rel=0.15)
    assert total.late / due == pytest.approx(config.late, rel=0.15)
    assert total.out_of_order / due == pytest.approx(config.out_of_order, rel=0.15)
    assert sum(total.malformations.values()) / due == pytest.approx(config.malformed, rel=0.3)
    assert 0 < total.conflicts / due < 3 * config.conflicts


def test_a_fleet_without_faults_is_whole():
    config = FleetConfig(
        collars=3,
        households=3,
        days=2,
        **ORDINARY,
        **dict.fromkeys(("duplicates", "conflicts", "late", "out_of_order", "malformed"), 0.0),
        **dict.fromkeys(
            ("gaps_per_device_day", "clock_jumps_per_device_day", "clock_breaks_per_device_day"), 0.0
        ),
    )
    total = Fleet(config).truth().total
    assert total.messages == total.valid == config.collars * config.days * config.slots_per_day
    assert total.rejected == {} and total.duplicates == total.conflicts == total.late == 0


def test_gaps_are_silent():
    fleet = small_fleet()
    gaps = fleet.truth().tables["gaps"].to_pylist()
    clean = {
        (event["device_id"], event["event_ts"])
        for events in small_events()
        for event in events
        if not isinstance(event, RejectError)
    }
    shifted = {row["device_id"] for row in fleet.truth().tables["clock_episodes"].to_pylist()}
    checked = 0
    for gap in gaps:
        if gap["device_id"] not in shifted:
            checked += 1
            assert not [
                ts
                for device, ts in clean
                if device == gap["device_id"] and gap["from_ts"] <= ts < gap["to_ts"]
            ]
    assert checked > 0


def test_live_messages_are_those_due_since_the_last_call():
    fleet = Fleet(SMALL)
    now = datetime(2026, 11, 3, 12, 0, 0)
    values: list[bytes] = []
    for seconds in (0, 20, 60, 65, 600):
        for batch in fleet.live_batches(now + timedelta(seconds=seconds), batch_rows=50):
            assert max(batch.arrival_ts_ms) <= (
                now + timedelta(seconds=seconds) - datetime(1970, 1, 1)
            ) / timedelta(milliseconds=1)
            values.extend(batch.values)
    events = [parse_event(value) for value in values]
    active = SMALL.collars - len(fleet.world.retired_at)
    # One period before the first call and ten minutes after it.
    assert len(events) == active * 11
    assert len({event["event_id"] for event in events}) == len(events)
    assert {event["device_id"] for event in events} <= set(fleet.world.device_ids)
    moments = [event["event_ts"] for event in events]
    assert now - timedelta(minutes=1) < min(moments) and max(moments) <= now + timedelta(minutes=10)


def test_a_day_outside_the_period_is_refused():
    with pytest.raises(IndexError, match="days 0 to 1"):
        small_fleet().telemetry_wave(2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**58), unique=True, max_size=200), st.integers(0, 2**64 - 1))
def test_mix_never_maps_two_counters_to_one_word(counters, key):
    import numpy as np

    assert len(set(mix(np.array(counters, dtype=np.int64), key).tolist())) == len(counters)
