"""Raw rows for warehouse tests, made from a seed: change logs, extracts and events.

Small worlds with everything that is awkward: ties, returns, absences, late and
repeated records, moves in the middle of a day, ids that come back.
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from contracts.columns import RECORD_FEEDS

FIRST_DAY = datetime(2026, 6, 1)
DAY = timedelta(days=1)
# Of the three clinics: one west, one near, one far east of Greenwich.
TIMEZONES = ("America/Los_Angeles", "Europe/Zurich", "Asia/Kolkata")
Row = dict[str, Any]
Raw = dict[str, list[Row]]


def record(feed: str, entity: str, changed_at: datetime, **values: Any) -> Row:
    """One change record; envelope values can be overridden by name."""
    row: Row = {
        "stream_id": f"cluster.{feed}.1",
        "kafka_partition": 0,
        "kafka_offset": 0,
        "arrival_ts": changed_at,
        "source_system": "crm",
        "source_file": "landing/test.parquet",
        "business_key": entity,
        "op": "upsert",
        "changed_at": changed_at,
        RECORD_FEEDS[feed][0].name: entity,
        "payload": "{}",
        **values,
    }
    row.setdefault("extracted_at", row["arrival_ts"])
    row.setdefault("ingested_at", row["arrival_ts"] + timedelta(minutes=1))
    return row


def extract(
    feed: str,
    number: int,
    extracted_at: datetime,
    rows: list[Row],
    complete: bool = True,
    source: str = "registry",
) -> Raw:
    """An extract with its rows, which become snapshot records of its stream, all of one claim."""
    stream_id = f"{source}.{feed}.{number:03}"
    claimed_at = extracted_at + timedelta(minutes=5)
    for offset, row in enumerate(rows):
        row.update(
            stream_id=stream_id,
            kafka_offset=offset,
            source_system=source,
            op="snapshot",
            extracted_at=extracted_at,
            ingested_at=claimed_at,
        )
    statement = {
        "extract_id": f"{number:03}",
        "feed": feed,
        "source_system": source,
        "stream_id": stream_id,
        "complete": complete,
        "row_count": len(rows),
        "extracted_at": extracted_at,
        "claimed_at": claimed_at,
        "arrival_ts": max((row["arrival_ts"] for row in rows), default=None),
    }
    return {feed: rows, "extracts": [statement]}


def merged(parts: Iterable[Raw]) -> Raw:
    raw: Raw = defaultdict(list)
    for part in parts:
        for name, rows in part.items():
            raw[name] += rows
    return dict(raw)


def small_world(seed: int, days: int = 9, devices: int = 5) -> Raw:
    """Telemetry and every record feed for a few collars over a few days."""
    rng = random.Random(seed)
    records = [_registry(rng, devices), _assignments(rng, devices, days), _visits(rng, days)]
    others = [_documents(random.Random(seed + 1)), _contacts(random.Random(seed + 2), days)]
    return merged([*records, _telemetry(rng, devices, days), *others])


def _registry(rng: random.Random, devices: int) -> Raw:
    before = FIRST_DAY - 2 * DAY
    raw: Raw = defaultdict(list)
    for number in range(devices):
        raw["devices"].append(
            record(
                *("devices", f"d{number}", before),
                kafka_offset=number,
                status="active",
                expected_events_per_day=40,
            )
        )
    retired_at = FIRST_DAY + 4 * DAY + timedelta(hours=7)
    raw["devices"].append(record("devices", "d0", retired_at, kafka_offset=90, status="retired"))
    for number in range(devices + 1):
        raw["pets"].append(
            record(
                "pets",
                f"p{number}",
                before,
                kafka_offset=number,
                owner_id=f"o{number % 3}",
                name=f"Pet {number}",
                species="dog",
                breed=rng.choice(["akita", "beagle"]),
                birth_year=rng.choice([2015, 2020, 5012]),
                dob=rng.choice([None, datetime(2019, 5, 17).date()]),
                microchip_id=rng.choice([None, f"chip{number}"]),
            )
        )
    moved_at = FIRST_DAY + 3 * DAY + timedelta(hours=5)
    raw["pets"].append(
        record(
            *("pets", "p1", moved_at),
            arrival_ts=moved_at + 2 * DAY,
            kafka_offset=91,
            owner_id="o2",
            breed="akita",
        )
    )
    for number in range(3):
        raw["clinics"].append(
            record(
                *("clinics", f"c{number}", before),
                kafka_offset=number,
                name=f"Name {number}",
                timezone=TIMEZONES[number],
            )
        )
        flags = {purpose: {"value": True} for purpose in ("analytics", "push", "email")}
        raw["owners"].append(
            record(
                *("owners", f"o{number}", before),
                kafka_offset=number,
                name=f"Name {number}",
                consent_flags=json.dumps(flags),
            )
        )
    # One refuses analytics for two days, which is known late; another refuses push.
    for offset, (owner_id, day, purpose, value) in enumerate(
        [("o0", 3, "analytics", False), ("o0", 5, "analytics", True), ("o1", 4, "push", False)]
    ):
        changed_at = FIRST_DAY + day * DAY
        flags = {name: {"value": True} for name in ("analytics", "push", "email")} | {
            purpose: {"value": value}
        }
        raw["owners"].append(
            record(
                *("owners", owner_id, changed_at),
                arrival_ts=changed_at + DAY,
                kafka_offset=90 + offset,
                name="Name",
                consent_flags=json.dumps(flags),
            )
        )
    raw["breeds"].append(record("breeds", "b1", before, breed="akita", species="dog"))
    raw["appointments"].append(
        record(
            "appointments", "a1", before, pet_id="p1", scheduled_ts=FIRST_DAY + 5 * DAY, status="scheduled"
        )
    )
    return dict(raw)


def _assignments(rng: random.Random, devices: int, days: int) -> Raw:
    rows: list[Row] = []

    def assign(
        entity: str, device: int, pet: int, start: datetime, end: datetime | None, late: timedelta
    ) -> None:
        changed_at = start if end is None else end
        rows.append(
            record(
                "device_assignments",
                entity,
                changed_at,
                arrival_ts=changed_at + late,
                kafka_offset=len(rows),
                device_id=f"d{device}",
                pet_id=f"p{pet}",
                assigned_from=start,
                assigned_to=end,
            )
        )

    for device in range(devices - 1):  # the last collar has no pet
        start = FIRST_DAY - rng.randrange(2) * DAY + timedelta(minutes=10 * rng.randrange(60))
        assign(f"as{device}", device, device, start, None, timedelta(0))
    # A move in the middle of a day, known two days later; a collar that two pets claim; a late correction.
    move = FIRST_DAY + 2 * DAY + timedelta(hours=13, minutes=20)
    assign("as-move", 1, devices, move, None, 2 * DAY)
    assign("as2", 2, 2, rows[2]["assigned_from"], FIRST_DAY + (days - 2) * DAY, timedelta(0))
    assign("as-shared", 2, 3, FIRST_DAY + 4 * DAY, FIRST_DAY + 5 * DAY + timedelta(hours=6), 1 * DAY)
    gone = FIRST_DAY + 6 * DAY
    times = {"changed_at": gone, "arrival_ts": gone, "extracted_at": gone}
    rows.append({**rows[0], "op": "delete", "kafka_offset": 80, **times})
    return {"device_assignments": rows}


def _visits(rng: random.Random, days: int) -> Raw:
    parts: list[Raw] = []
    for number in range(30):
        visit_ts = FIRST_DAY + timedelta(hours=rng.randrange(-24 * 40, 24 * days))
        values = {
            "pet_id": f"p{rng.randrange(6)}",
            "clinic_id": f"c{rng.randrange(3)}",
            "visit_ts": visit_ts,
            "is_unplanned": rng.choice([True, False, None]),
            "weight_kg": rng.choice([None, Decimal(rng.randrange(8000, 9000)) / 1000]),
            "next_vaccine_due": rng.choice([None, (visit_ts + 90 * DAY).date()]),
        }
        outcome = rng.choice(["completed", "completed", "no_show"])
        stages = [(visit_ts - 3 * DAY, "scheduled"), (visit_ts, outcome)]
        for step, (changed_at, status) in enumerate(stages):
            late = rng.choice([timedelta(0), timedelta(minutes=5), 2 * DAY])
            row = record(
                "clinic_visits",
                f"v{number:02}",
                changed_at,
                arrival_ts=changed_at + late,
                kafka_offset=2 * number + step,
                status=status,
                **values,
            )
            parts.append({"clinic_visits": [row]})
    # A second clinic system that only sends complete extracts, one of them late: visits vanish and return.
    for number in range(5):
        extracted_at = FIRST_DAY + number * 1.5 * DAY
        rows = [
            record(
                "clinic_visits",
                f"x{visit}",
                extracted_at,
                arrival_ts=extracted_at + (3 * DAY if number == 2 else timedelta(0)),
                pet_id=f"p{visit}",
                visit_ts=FIRST_DAY - (visit + 1) * DAY,
                status="completed",
                is_unplanned=True,
            )
            for visit in range(5)
            if rng.random() < 0.6
        ]
        parts.append(extract("clinic_visits", number, extracted_at, rows))
        # The clinic's own stream touches some of the registry's visits in between.
        changed_at = extracted_at + timedelta(hours=rng.randrange(1, 30))
        parts.append(
            {
                "clinic_visits": [
                    record(
                        "clinic_visits",
                        f"x{visit}",
                        changed_at,
                        kafka_offset=100 + 10 * number + visit,
                        pet_id=f"p{visit}",
                        visit_ts=FIRST_DAY - (visit + 1) * DAY,
                        status="completed",
                        is_unplanned=False,
                    )
                    for visit in rng.sample(range(5), 2)
                ]
            }
        )
    return merged(parts)


def _documents(rng: random.Random) -> Raw:
    """Documents of the visits v00 to v19, some of them decided on, a few of them late or taken back."""
    rows: list[Row] = []
    for number in range(20):
        scanned_at = FIRST_DAY + timedelta(hours=rng.randrange(24 * 9))
        values: Row = {
            "visit_id": f"v{number:02}",
            "pet_id": f"p{rng.randrange(6)}",
            "document_uri": f"s3://documents/{number}",
            "ocr_engine": "engine-1",
            "ocr_fields": '{"pet":"Rex"}',
            "ocr_confidence": Decimal(rng.randrange(500, 1000)) / 1000,
            "review_status": "pending",
        }
        stages: list[tuple[datetime, str, Row]] = [(scanned_at, "upsert", values)]
        decided_at = scanned_at + timedelta(hours=rng.randrange(1, 70))
        if rng.random() < 0.5:
            decision = {"review_status": "validated", "validator_id": "staff-1", "validated_at": decided_at}
            stages.append((decided_at, "upsert", values | decision))
        elif rng.random() < 0.3:
            stages.append((decided_at, "delete", values))
        for changed_at, op, content in stages:
            late = rng.choice([timedelta(0), 2 * DAY])
            rows.append(
                record(
                    *("visit_documents", f"doc{number:02}", changed_at),
                    arrival_ts=changed_at + late,
                    kafka_offset=len(rows),
                    op=op,
                    **content,
                )
            )
    return {"visit_documents": rows}


def _contacts(rng: random.Random, days: int) -> Raw:
    """Contacts with the three owners over a month and the world's days; no message that an owner refused."""
    rows: list[Row] = []
    for number in range(120):
        occurred_at = FIRST_DAY + timedelta(minutes=rng.randrange(-30 * 1440, days * 1440))
        owner = rng.randrange(3)
        channel, action = rng.choice(
            [("app", "session"), ("app", "booked"), ("push", "sent"), ("push", "opened"), ("email", "sent"),
             ("email", "opened"), ("email", "clicked"), ("phone", "called")]
        )  # fmt: skip
        if action == "sent" and (occurred_at < FIRST_DAY - 2 * DAY or (channel, owner) == ("push", 1)):
            continue
        late = rng.choice([timedelta(0), timedelta(0), DAY])
        rows.append(
            record(
                *("engagement", f"g{number:03}", occurred_at),
                arrival_ts=occurred_at + late,
                kafka_offset=len(rows),
                owner_id=f"o{owner}",
                channel=channel,
                action=action,
                occurred_at=occurred_at,
                duration_s=rng.randrange(600) if action in ("session", "called") else None,
                appointment_id="a1" if action == "booked" else None,
            )
        )
    return {"engagement": rows}


def _telemetry(rng: random.Random, devices: int, days: int) -> Raw:
    events: list[Row] = []
    for device in range(devices):
        for day in range(days):
            if rng.random() < 0.1:
                continue
            for _ in range(rng.randrange(20, 45)):
                # Whole minutes of a few hours, so that assignment boundaries are met exactly.
                event_ts = FIRST_DAY + day * DAY + timedelta(minutes=10 * rng.randrange(144))
                late = rng.choice([5, 5, 5, 5, 3 * 3600, 30 * 3600, 3 * 86400])
                events.append(_event(rng, device, event_ts, f"e{len(events)}", late))
    repeated: list[Row] = []
    for event in rng.sample(events, len(events) // 15):
        later = event["arrival_ts"] + timedelta(seconds=rng.choice([0, 1, 2 * 86400]))
        changes = rng.choice([{}, {}, {"step_count": 999}, {"event_ts": event["event_ts"] + DAY}])
        repeated.append({**event, "arrival_ts": later, **changes})
    for offset, event in enumerate(events + repeated):
        event["kafka_offset"] = offset
    return {"telemetry_events": events + repeated}


def _event(rng: random.Random, device: int, event_ts: datetime, event_id: str, late_s: int) -> Row:
    def maybe(value: Any) -> Any:
        return None if rng.random() < 0.2 else value

    arrival_ts = event_ts + timedelta(seconds=late_s)
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": device % 2,
        "arrival_ts": arrival_ts,
        "ingested_at": arrival_ts + timedelta(minutes=1),
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": f"d{device}",
        "event_ts": event_ts,
        "event_id": event_id,
        "step_count": maybe(rng.choice([0, 0, rng.randrange(100)])),
        "lick_count": maybe(rng.randrange(3)),
        "gps_lat": maybe(Decimal(473000000 + rng.randrange(99999)) / 10**7),
        "gps_long": maybe(Decimal(85000000 + rng.randrange(99999)) / 10**7),
        "battery_pct": maybe(Decimal(rng.randrange(10000)) / 100),
        "pulse_bpm": maybe(Decimal(rng.randrange(600, 1200)) / 10),
        "body_temp_c": maybe(Decimal(rng.randrange(3750, 3950)) / 100),
        "weight_kg": Decimal(rng.randrange(8000, 9000)) / 1000 if rng.random() < 0.05 else None,
        "quality_score": Decimal(1),
        "capture_clinic_id": maybe(f"c{rng.randrange(3)}"),
        "schema_version": 1,
        "payload": f'{{"n":{rng.randrange(5)}}}',
    }


def split_into_batches(raw: Raw, seed: int, first_days: list[int], straggling_day: int) -> list[Raw]:
    """Raw rows in the batches a loader would bring them in.

    `first_days` says at which day of the world each batch begins; telemetry
    comes by its event's day, records by their arrival. Two more batches
    follow: records alone, some of them long known elsewhere, and telemetry
    alone, some events of `straggling_day`. An extract stays whole, with its
    statement.
    """
    rng = random.Random(seed)
    records_alone = len(first_days)
    of_extract: dict[str, int] = {}

    def batch_of(moment: datetime) -> int:
        begun = [day for day in first_days if moment >= FIRST_DAY + day * DAY]
        return max(len(begun) - 1, 0)

    result: list[Raw] = [defaultdict(list) for _ in range(records_alone + 2)]
    extract_streams = {statement["stream_id"] for statement in raw["extracts"]}
    for name in sorted(set(raw) - {"extracts", "telemetry_events"}):
        for row in raw[name]:
            number = records_alone if rng.random() < 0.1 else batch_of(row["arrival_ts"])
            if row["stream_id"] in extract_streams:
                number = of_extract.setdefault(row["stream_id"], number)
            result[number][name].append(row)
    for row in raw["telemetry_events"]:
        straggles = (row["event_ts"] - FIRST_DAY).days == straggling_day and rng.random() < 0.3
        result[-1 if straggles else batch_of(row["event_ts"])]["telemetry_events"].append(row)
    for statement in raw["extracts"]:
        result[of_extract.get(statement["stream_id"], 0)]["extracts"].append(statement)
    return [dict(batch) for batch in result]
