"""What was planted in a fleet, as counts and tables that every layer can be checked against.

Counts come from planning every wave again without contents, which costs a
fifth of making the messages; nothing has to be remembered while waves are
published. How the faults come about is in `telemetry` and `timeline`.
"""

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulation.config import SIMULATOR_VERSION, FleetConfig
from simulation.documents import Document, plan_documents
from simulation.engagement import contacts_per_owner_day, plan_contacts
from simulation.faults import CONFLICT, DUPLICATE, LATE, MALFORMATIONS, OUT_OF_ORDER
from simulation.randomness import I64
from simulation.records import Change, extracted_at, odd_records, repeats
from simulation.telemetry import Plan, Planner
from simulation.timeline import DAY_MS, HOUR_MS, Timeline, from_ms, to_ms
from simulation.world import CONSENT_FLAGS, World

_PLAN_ROWS = 200_000
_EPOCH = date(1970, 1, 1)
# The contract's window of device clocks around the time of receipt.
_CLOCK_MAX_AGE_MS = 400 * DAY_MS
_CLOCK_MAX_AHEAD_MS = 24 * HOUR_MS


@dataclass
class WaveTruth:
    """Counts of one wave, or of all.

    messages = sum of rejected + valid; valid = consent_dropped + landed;
    landed = distinct + duplicates + conflicts. Consent is what all records say
    of the time of receipt, the collector's rule once every extract has landed.
    `late` and `out_of_order` count landed messages with that planted fault,
    `clock_shifted` landed messages of a clock that is off by minutes,
    `unassigned` distinct events of collars that nobody wears, `ambiguous` those of
    spans that two pets claim.
    """

    messages: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    malformations: dict[str, int] = field(default_factory=dict)
    valid: int = 0
    consent_dropped: int = 0
    landed: int = 0
    distinct: int = 0
    duplicates: int = 0
    conflicts: int = 0
    late: int = 0
    out_of_order: int = 0
    clock_shifted: int = 0
    unassigned: int = 0
    ambiguous: int = 0

    def add(self, other: "WaveTruth") -> None:
        for name, value in asdict(other).items():
            if isinstance(value, dict):
                getattr(self, name).update(Counter(getattr(self, name)) + Counter(value))
            else:
                setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class Truth:
    """Everything planted in a fleet.

    `tables` (names are file names of `write_truth`):

    - `events_per_device_day`: device_id, event_date, events (distinct landed ones, conflicts apart)
    - `assignments`: assignment_id, device_id, pet_id, assigned_from, assigned_to
    - `gaps`: device_id, from_ts, to_ts, missing_events (null where the collar's cadence is irregular)
    - `clock_episodes`: device_id, from_ts, to_ts, offset_s
    - `opt_outs`: owner_id, from_ts, to_ts; `opt_out_drops`: device_id, events dropped
    - `illnesses`: pet_id, kind, severity, onset_ts, until_ts, visit_id
    - `lazy_days`: pet_id, day; `no_shows`: visit_id
    - `histories`: feed, business_key, versions (SCD type 2 rows, deletions included), is_deleted at the end
    - `late_records`: feed, business_key, changed_at, delivered on day (changed before the day began)
    - `documents`: document_id, visit_id, ocr_confidence, is_doubtful (a person has to look), review_status at
      the end, decided_at
    - `engagement`: owner_id, event_date (on the clinics' clocks), channel, action, contact_count, duration_s
    - `ambiguous_spans`: device_id, from_ts, to_ts, events (distinct landed ones) of spans that two pets claim
    - `irregular_days`: device_id, event_date, events of collars from which no number of events is expected
    - `missing_sensors`: device_id, sensor (a column of telemetry), events (distinct landed ones, all without it)
    - `silent_consents`: owner_id, flag, last_said (null: never) of owners whose records do not mention every flag
    - `listed_versions`: pet_id, valid_from, valid_to, is_deleted of pets that only the register knows
    - `set_aside_records`: feed, business_key, reason, records: repeats and records that cannot be right
    - `superseded_features`: pet_id, event_date, value that an earlier release left of a superseded definition
    """

    fingerprint: str
    total: WaveTruth
    waves: list[WaveTruth]
    world: dict[str, Any]
    tables: dict[str, pa.Table]


def find_truth(world: World, timeline: Timeline, planner: Planner, delivered: list[Change]) -> Truth:
    """Recompute what was planted."""
    config = world.config
    tally = _Tally(world, timeline)
    waves = []
    for day in range(config.days):
        wave = WaveTruth()
        for plan in planner.wave(day, _PLAN_ROWS):
            wave.add(tally.count(plan, planner.malformation(plan), planner.first_arrival_ms(plan)))
        waves.append(wave)
    total = WaveTruth()
    for wave in waves:
        total.add(wave)
    documents = _documents(config, plan_documents(world))
    return Truth(
        fingerprint=config.fingerprint(),
        total=total,
        waves=waves,
        world=_stories(world, delivered, documents),
        tables={
            "events_per_device_day": tally.events_table(world.device_ids),
            **tally.anomaly_tables(world),
            "gaps": _gaps(world, timeline),
            "clock_episodes": _clock_episodes(world, timeline),
            "opt_out_drops": tally.drops_table(world.device_ids),
            **_world_tables(world),
            "histories": pa.concat_tables([histories(delivered), _listed_histories(world)]),
            "listed_versions": _listed_versions(world),
            "silent_consents": _silent_consents(world, delivered),
            "superseded_features": superseded_features(world),
            "set_aside_records": _set_aside_records(world, delivered),
            "late_records": _late_records(config, delivered),
            "documents": documents,
            "engagement": _engagement(world),
        },
    )


class _Tally:
    """Counts plans; keeps the events per device and day over all of them."""

    def __init__(self, world: World, timeline: Timeline) -> None:
        config, devices = world.config, len(world.device_ids)
        self._timeline = timeline
        self._first_day = to_ms(config.start_ts) // DAY_MS - 1
        # Clocks off by minutes reach one day beyond the period on either side.
        self._events = np.zeros((devices, config.days + 2), dtype=np.int64)
        self._drops = np.zeros(devices, dtype=np.int64)
        self._claimed_twice = np.zeros(len(timeline.claimed_twice.device), dtype=np.int64)

    def count(self, plan: Plan, malformation: I64, first_arrival_ms: I64) -> WaveTruth:
        broken = malformation >= 0
        clock = ~broken & (
            (plan.event_ms < plan.arrival_ms - _CLOCK_MAX_AGE_MS)
            | (plan.event_ms > plan.arrival_ms + _CLOCK_MAX_AHEAD_MS)
        )
        valid = ~broken & ~clock
        # Consent is that at the time of receipt, by all records; the pet that at the event's time as stated.
        segments = self._timeline.segments
        dropped = valid & segments.opted_out[segments.find(plan.device, plan.arrival_ms)]
        landed = valid & ~dropped
        # A second copy whose first one was dropped is the only one that landed.
        copy = (plan.kind == DUPLICATE) | (plan.kind == CONFLICT)
        repeated = landed & copy
        repeated &= ~segments.opted_out[segments.find(plan.device, first_arrival_ms)]
        distinct = landed & ~repeated
        np.add.at(
            self._events,
            (plan.device[distinct], plan.event_ms[distinct] // DAY_MS - self._first_day),
            1,
        )
        np.add.at(self._drops, plan.device[dropped], 1)
        claimed_twice = self._timeline.claimed_twice.find(plan.device, plan.event_ms)
        ambiguous = distinct & (claimed_twice >= 0)
        np.add.at(self._claimed_twice, claimed_twice[ambiguous], 1)
        kinds = Counter(MALFORMATIONS[i].name for i in malformation[broken].tolist())
        reasons = Counter(MALFORMATIONS[i].reason for i in malformation[broken].tolist())
        if clock.any():
            reasons["clock"] += int(clock.sum())
        return WaveTruth(
            messages=len(plan),
            rejected=dict(reasons),
            malformations=dict(kinds),
            valid=int(valid.sum()),
            consent_dropped=int(dropped.sum()),
            landed=int(landed.sum()),
            distinct=int(distinct.sum()),
            duplicates=int((repeated & (plan.kind == DUPLICATE)).sum()),
            conflicts=int((repeated & (plan.kind == CONFLICT)).sum()),
            late=int((landed & (plan.kind == LATE)).sum()),
            out_of_order=int((landed & (plan.kind == OUT_OF_ORDER)).sum()),
            clock_shifted=int((landed & (plan.event_ms != plan.true_ms)).sum()),
            unassigned=int((distinct & (segments.pet[segments.find(plan.device, plan.event_ms)] < 0)).sum()),
            ambiguous=int(ambiguous.sum()),
        )

    def anomaly_tables(self, world: World) -> dict[str, pa.Table]:
        """Tables of collars with which something is out of the ordinary."""
        spans, ids = self._timeline.claimed_twice, world.device_ids
        events = self._events.sum(axis=1)
        lacks = [(device, sensor) for device, lost in world.missing_sensors.items() for sensor in lost]
        irregular = pc.is_in(
            self.events_table(ids)["device_id"], _texts(ids[i] for i in world.irregular_devices)
        )
        return {
            "ambiguous_spans": pa.table(
                {
                    "device_id": _texts(ids[device] for device in spans.device.tolist()),
                    "from_ts": _times(from_ms(ms) for ms in spans.start_ms),
                    "to_ts": _times(from_ms(ms) for ms in spans.end_ms),
                    "events": self._claimed_twice,
                }
            ),
            "irregular_days": self.events_table(ids).filter(irregular),
            "missing_sensors": pa.table(
                {
                    "device_id": _texts(ids[device] for device, _ in lacks),
                    "sensor": _texts(sensor for _, sensor in lacks),
                    "events": pa.array([int(events[device]) for device, _ in lacks], pa.int64()),
                }
            ),
        }

    def events_table(self, device_ids: list[str]) -> pa.Table:
        device, day = np.nonzero(self._events)
        return pa.table(
            {
                "device_id": [device_ids[i] for i in device.tolist()],
                "event_date": pa.array(
                    [_EPOCH + timedelta(days=int(d) + self._first_day) for d in day], pa.date32()
                ),
                "events": self._events[device, day],
            }
        )

    def drops_table(self, device_ids: list[str]) -> pa.Table:
        device = np.flatnonzero(self._drops)
        return pa.table(
            {"device_id": [device_ids[i] for i in device.tolist()], "events": self._drops[device]}
        )


def _stories(world: World, delivered: list[Change], documents: pa.Table) -> dict[str, Any]:
    """Named counts and the ids that play a part."""
    devices = world.device_ids
    return {
        "owners": len(world.owner_ids),
        "pets": len(world.pets),
        "clinics": len(world.clinic_ids),
        "devices": len(devices),
        "shared_device": None if world.shared_device is None else devices[world.shared_device],
        "moved_devices": [devices[device] for device in world.moved_devices],
        "retired_devices": [devices[device] for device in world.retired_at],
        "deleted_owners": world.deleted_owners,
        "returned_owners": world.returned_owners,
        "moved_owners": world.moved_owners,
        "rehomed_pets": world.rehomed_pets,
        "pets_with_unplanned_visit": len({i.pet for i in world.illnesses if i.visit_id}),
        "pets_ill_without_visit": len({i.pet for i in world.illnesses if not i.visit_id}),
        "no_shows": len(world.no_shows),
        "documents": documents.num_rows,
        "doubtful_documents": documents["is_doubtful"].to_pylist().count(True),
        "documents_to_review": sum(
            row["is_doubtful"] and row["review_status"] == "pending" for row in documents.to_pylist()
        ),
        "repeated_records": [f"{change.feed}/{change.key}" for change in repeats(world.config, delivered)],
        "records": dict(Counter(change.feed for change in delivered)),
    }


def _texts(values: Iterable[str]) -> pa.Array:
    return pa.array(list(values), pa.string())


def _times(values: Iterable[datetime | None]) -> pa.Array:
    return pa.array(list(values), pa.timestamp("us"))


def _gaps(world: World, timeline: Timeline) -> pa.Table:
    gaps, config = timeline.gaps, world.config
    return pa.table(
        {
            "device_id": [world.device_ids[device] for device in gaps.device.tolist()],
            "from_ts": _times(from_ms(ms) for ms in gaps.start_ms),
            "to_ts": _times(from_ms(ms) for ms in gaps.end_ms),
            "missing_events": pa.array(
                (gaps.end_ms - gaps.start_ms) // config.period_ms,
                mask=np.isin(gaps.device, world.irregular_devices),
            ),
        }
    )


def _clock_episodes(world: World, timeline: Timeline) -> pa.Table:
    clocks = timeline.clocks
    return pa.table(
        {
            "device_id": [world.device_ids[device] for device in clocks.device.tolist()],
            "from_ts": _times(from_ms(ms) for ms in clocks.start_ms),
            "to_ts": _times(from_ms(ms) for ms in clocks.end_ms),
            "offset_s": clocks.value / 1000,
        }
    )


def _world_tables(world: World) -> dict[str, pa.Table]:
    worn = list(world.assignments.items())
    pets, devices = world.pets, world.device_ids
    return {
        "assignments": pa.table(
            {
                "assignment_id": [key for key, _ in worn],
                "device_id": [devices[wear.subject] for _, wear in worn],
                "pet_id": [pets[wear.target].pet_id for _, wear in worn],
                "assigned_from": _times(wear.start for _, wear in worn),
                "assigned_to": _times(wear.end for _, wear in worn),
            }
        ),
        "opt_outs": pa.table(
            {
                "owner_id": [world.owner_ids[out.subject] for out in world.opt_outs],
                "from_ts": _times(out.start for out in world.opt_outs),
                "to_ts": _times(out.end for out in world.opt_outs),
            }
        ),
        "illnesses": pa.table(
            {
                "pet_id": [pets[illness.pet].pet_id for illness in world.illnesses],
                "kind": [illness.kind for illness in world.illnesses],
                "severity": [illness.severity for illness in world.illnesses],
                "onset_ts": _times(illness.onset for illness in world.illnesses),
                "until_ts": _times(illness.until for illness in world.illnesses),
                "visit_id": pa.array([illness.visit_id for illness in world.illnesses], pa.string()),
            }
        ),
        "lazy_days": pa.table(
            {
                "pet_id": pa.array([pets[pet].pet_id for pet, _ in world.lazy_days], pa.string()),
                "day": pa.array(
                    [world.config.start + timedelta(days=day) for _, day in world.lazy_days], pa.date32()
                ),
            }
        ),
        "no_shows": pa.table({"visit_id": pa.array(world.no_shows, pa.string())}),
    }


def histories(delivered: list[Change]) -> pa.Table:
    """SCD type 2 versions each record ends with.

    A version begins where a record, in order of `changed_at`, differs from the
    one before: other columns, a deletion or a return.
    """
    versions: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for change in sorted(delivered, key=lambda c: (c.feed, c.key, c.changed_at, c.delivery)):
        key, state = (change.feed, change.key), (change.op, change.row)
        if last.get(key) != state:
            versions[key] += 1
            last[key] = state
    return pa.table(
        {
            "feed": [feed for feed, _ in versions],
            "business_key": [key for _, key in versions],
            "versions": list(versions.values()),
            "is_deleted": [last[key][0] == "delete" for key in versions],
        }
    )


def _listed_versions(world: World) -> pa.Table:
    """What the register's extracts say of its pets: absent from one on is deleted, listed again is there again."""
    rows = []
    for listing in world.listings:
        turns = [(listing.changed_at, False)]
        for delivery in range(world.config.days):
            is_deleted = delivery in listing.absent
            if is_deleted != turns[-1][1]:
                turns.append((extracted_at(world.config, delivery), is_deleted))
        for (begins, is_deleted), then in itertools.zip_longest(turns, turns[1:]):
            rows.append((listing.pet_id, begins, then[0] if then else None, is_deleted))
    return pa.table(
        {
            "pet_id": _texts(row[0] for row in rows),
            "valid_from": _times(row[1] for row in rows),
            "valid_to": _times(row[2] for row in rows),
            "is_deleted": pa.array([row[3] for row in rows], pa.bool_()),
        }
    )


def _listed_histories(world: World) -> pa.Table:
    versions: dict[str, list[bool]] = defaultdict(list)
    for row in _listed_versions(world).to_pylist():
        versions[row["pet_id"]].append(row["is_deleted"])
    return pa.table(
        {
            "feed": _texts("pets" for _ in versions),
            "business_key": _texts(versions),
            "versions": pa.array([len(states) for states in versions.values()], pa.int64()),
            "is_deleted": pa.array([states[-1] for states in versions.values()], pa.bool_()),
        }
    )


def _silent_consents(world: World, delivered: list[Change]) -> pa.Table:
    silent = {world.owner_ids[owner] for owner in world.silent_owners}
    said: dict[tuple[str, str], bool | None] = {
        (owner, flag): None for owner in silent for flag in CONSENT_FLAGS
    }
    for change in sorted(delivered, key=lambda change: change.changed_at):
        if change.feed == "owners" and change.key in silent:
            for flag, statement in (change.row["consent_flags"] or {}).items():
                said[change.key, flag] = statement["value"]
    return pa.table(
        {
            "owner_id": _texts(owner for owner, _ in sorted(said)),
            "flag": _texts(flag for _, flag in sorted(said)),
            "last_said": pa.array([said[key] for key in sorted(said)], pa.bool_()),
        }
    )


def superseded_features(world: World) -> pa.Table:
    """Days of pets with the value that an earlier release left (pet_id, event_date, value)."""
    return pa.table(
        {
            "pet_id": _texts(world.pets[pet].pet_id for pet, _, _ in world.superseded_features),
            "event_date": pa.array([day for _, day, _ in world.superseded_features], pa.date32()),
            "value": pa.array([value for *_, value in world.superseded_features], pa.float64()),
        }
    )


def _set_aside_records(world: World, delivered: list[Change]) -> pa.Table:
    counts = Counter((wrong.feed, wrong.key, kind) for kind, wrong in odd_records(world, delivered))
    return pa.table(
        {
            "feed": _texts(feed for feed, _, _ in counts),
            "business_key": _texts(key for _, key, _ in counts),
            "reason": _texts(reason for _, _, reason in counts),
            "records": pa.array(list(counts.values()), pa.int64()),
        }
    )


def _late_records(config: FleetConfig, delivered: list[Change]) -> pa.Table:
    late = [
        c
        for c in delivered
        if c.changed_at < config.start_ts + timedelta(days=c.delivery) and c.delivery >= 0
    ]
    return pa.table(
        {
            "feed": pa.array([change.feed for change in late], pa.string()),
            "business_key": pa.array([change.key for change in late], pa.string()),
            "changed_at": _times(change.changed_at for change in late),
            "delivered_day": pa.array([change.delivery for change in late], pa.int32()),
        }
    )


def _documents(config: FleetConfig, planned: list[Document]) -> pa.Table:
    """What the last extract says of each document; a decision after it is not made yet."""
    rows = []
    for document in planned:
        if document.scanned_at >= config.end_ts:
            continue
        decision = document.decision
        if decision is not None and decision["validated_at"] >= config.end_ts:
            decision = None
        stated = document.row | (decision or {})
        rows.append(
            {name: stated[name] for name in ("document_id", "visit_id", "ocr_confidence", "review_status")}
            | {"is_doubtful": document.is_doubtful, "decided_at": stated["validated_at"]}
        )
    return pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            [
                ("document_id", pa.string()),
                ("visit_id", pa.string()),
                ("ocr_confidence", pa.decimal128(4, 3)),
                ("is_doubtful", pa.bool_()),
                ("review_status", pa.string()),
                ("decided_at", pa.timestamp("us")),
            ]
        ),
    )


def _engagement(world: World) -> pa.Table:
    return pa.Table.from_pylist(
        contacts_per_owner_day(world, plan_contacts(world).values()),
        schema=pa.schema(
            [
                ("owner_id", pa.string()),
                ("event_date", pa.date32()),
                ("channel", pa.string()),
                ("action", pa.string()),
                ("contact_count", pa.int64()),
                ("duration_s", pa.int64()),
            ]
        ),
    )


def write_truth(truth: Truth, folder: Path) -> None:
    """Write `truth.json` (counts and stories) and one Parquet file per table into `folder`."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name, table in truth.tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    body = {
        "fingerprint": truth.fingerprint,
        "simulator_version": SIMULATOR_VERSION,
        "total": asdict(truth.total),
        "waves": [asdict(wave) for wave in truth.waves],
        "world": truth.world,
    }
    (folder / "truth.json").write_text(json.dumps(body, indent=2, sort_keys=True) + "\n")
