"""Silence: what is expected of a collar, what consent drops is not, and whose a silent day is; worked out by hand.

Every collar owes 24 events a day and sends on the half hour while it sends. `at(n, 6)` is n days and 6
hours after the first midnight.
"""

import json
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count, pairwise
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, Raw, Row, merged, record

from ingestion.collector.consent import opt_outs
from contracts.consent import ANALYTICS, OwnerRecord, statements

BEFORE = FIRST_DAY - 30 * DAY
PRESENT = FIRST_DAY + 5 * DAY + timedelta(hours=12)
CHANGE_ORDER = ("changed_at", "arrival_ts", "stream_id", "kafka_partition", "kafka_offset")
OFFSETS = count()


def at(day: int, hour: int = 0) -> datetime:
    return FIRST_DAY + day * DAY + timedelta(hours=hour)


def changed(feed: str, entity: str, changed_at: datetime, **values: Any) -> Row:
    return record(feed, entity, changed_at, kafka_offset=next(OFFSETS), **values)


def says(owner_id: str, analytics: bool, changed_at: datetime, known: datetime | None = None) -> Row:
    flags = json.dumps({"analytics": {"at": "2026-05-01T08:00:00Z", "value": analytics}})
    return changed("owners", owner_id, changed_at, arrival_ts=known or changed_at, consent_flags=flags)


def worn(device_id: str, pet_id: str, since: datetime, until: datetime | None = None, **values: Any) -> Row:
    return changed(
        *("device_assignments", f"{device_id} on {pet_id} {since:%d %H}", values.pop("changed_at", since)),
        device_id=device_id,
        pet_id=pet_id,
        assigned_from=since,
        assigned_to=until,
        **values,
    )


def sent(device_id: str, clinic_id: str, first: datetime, until: datetime) -> list[Row]:
    moments = [first + timedelta(hours=n, minutes=30) for n in range(int((until - first) / (DAY / 24)))]
    return [
        {
            "stream_id": "cluster.telemetry.1",
            "kafka_partition": 0,
            "kafka_offset": next(OFFSETS),
            "arrival_ts": moment,
            "ingested_at": moment + timedelta(minutes=1),
            "source_system": "petwellness-collar",
            "source_file": "landing/test.parquet",
            "device_id": device_id,
            "event_ts": moment,
            "event_id": f"{moment:%d %H}",
            "capture_clinic_id": clinic_id,
            "schema_version": 1,
            "payload": "{}",
        }
        for moment in moments
    ]


def pet(pet_id: str, clinic_id: str) -> Raw:
    """A pet of a household of its own that was at that clinic before the first day."""
    visited = changed(
        *("clinic_visits", f"visit of {pet_id}", BEFORE),
        pet_id=pet_id,
        clinic_id=clinic_id,
        visit_ts=BEFORE,
        status="completed",
    )
    return {"pets": [changed("pets", pet_id, BEFORE, owner_id=f"o {pet_id}")], "clinic_visits": [visited]}


def collar(device_id: str, since: datetime = BEFORE) -> Raw:
    return {"devices": [changed("devices", device_id, since, status="active", expected_events_per_day=24)]}


def story(
    name: str,
    clinic_id: str,
    until: datetime,
    refusals: tuple[Row, ...] = (),
    registered: datetime = BEFORE,
    first: datetime = FIRST_DAY,
) -> Raw:
    """A pet with a collar of the same name that sends from `first` up to `until`, and what its owner says."""
    rows = {
        "device_assignments": [worn(name, name, BEFORE)],
        "telemetry_events": sent(name, clinic_id, first, until),
        "owners": list(refusals),
    }
    return merged([pet(name, clinic_id), collar(name, registered), rows])


def handed_over(name: str, until: datetime, since: datetime, sends_until: datetime, refuses: bool) -> Raw:
    """A collar that goes from a patient of c1 to one of c2, whose household may refuse."""
    giver, taker = f"{name}, giver", f"{name}, taker"
    rows = {
        "device_assignments": [worn(name, giver, BEFORE, until), worn(name, taker, since)],
        "telemetry_events": sent(name, "c1", FIRST_DAY, sends_until),
        "owners": [says(f"o {taker}", False, BEFORE)] if refuses else [],
    }
    return merged([pet(giver, "c1"), pet(taker, "c2"), collar(name), rows])


def world() -> Raw:
    return merged(
        [
            story("heard", "c1", at(4)),
            story("dark 1", "c2", at(2)),
            story("dark 2", "c2", at(2)),
            story("never heard", "c3", FIRST_DAY),
            story("refuses", "c2", FIRST_DAY, (says("o refuses", False, BEFORE),)),
            story("refuses from noon", "c1", at(1, 12), (says("o refuses from noon", False, at(1, 12)),)),
            # Known on day 3, and what had landed since day 1 is taken out.
            story("refused, told late", "c1", at(1), (says("o refused, told late", False, at(1), at(3)),)),
            # Dropped until it was known that they allow it again.
            story(
                *("allows again, told late", "c1", at(4)),
                refusals=(
                    says("o allows again, told late", False, BEFORE),
                    says("o allows again, told late", True, at(1), at(3)),
                ),
                first=at(3),
            ),
            story("registered at noon", "c1", at(2), registered=at(1, 12), first=at(1, 6)),
            handed_over("seamless", at(2, 12), at(2, 12), at(2), refuses=False),
            handed_over("with a gap", at(2, 6), at(2, 18), at(2), refuses=False),
            handed_over("to one who refuses", at(2, 12), at(2, 12), at(2), refuses=True),
        ]
    )


def random_households(seed: int) -> Raw:
    """Households that refuse and allow, pets that change owners, collars that change pets; told late and early."""
    draw = random.Random(seed)
    days = [0, 1, 2, 3, 4, 5]
    raw: Raw = {"owners": [], "pets": [], "device_assignments": []}
    for number in range(60):
        home = f"r{number:02}"
        for owner_id in (f"{home}a", f"{home}b"):
            for _ in range(draw.randrange(1, 4)):
                day = draw.choice(days)
                raw["owners"].append(
                    says(owner_id, draw.random() < 0.4, at(day), at(day) + draw.choice([0, 0, 2]) * DAY)
                )
        for pet_id in (f"{home}p", f"{home}q"):
            for _ in range(draw.randrange(1, 3)):
                day = draw.choice(days)
                raw["pets"].append(
                    changed(
                        *("pets", pet_id, at(day)),
                        arrival_ts=at(day) + draw.choice([0, 0, 2]) * DAY,
                        owner_id=draw.choice([f"{home}a", f"{home}b", None]),
                        op=draw.choice(["upsert", "upsert", "upsert", "delete"]),
                    )
                )
        for _ in range(draw.randrange(1, 5)):
            day = draw.choice(days)
            until = draw.choice([None, None, at(draw.choice(days))])
            raw["device_assignments"].append(
                worn(
                    *(f"{home}d", draw.choice([f"{home}p", f"{home}q"]), at(day), until),
                    changed_at=at(draw.choice(days)),
                    arrival_ts=at(draw.choice(days)) + 6 * DAY if draw.random() < 0.2 else at(5),
                )
            )
    for row in raw["device_assignments"]:
        row["arrival_ts"] = max(row["changed_at"], row["arrival_ts"] - draw.choice([0, 3, 5]) * DAY)
    return raw


RANDOM = random_households(17)


@pytest.fixture(scope="module")
def warehouse(make_warehouse: Any) -> Any:
    """Built at the end of day 2, and again with nothing but a later present."""
    made = make_warehouse(merged([world(), RANDOM]))
    for dirty, present in ((None, at(3)), ([], PRESENT)):
        made.build(
            *("--select", "+anl_clinic_daily_collars", "+anl_clinic_daily_heartbeat"),
            variables={"dirty_days": dirty, "as_of_ts": f"{present:%Y-%m-%d %H:%M:%S}"},
            without=("unit_test", "test"),
        )
    return made


def days_of(warehouse: Any, device_id: str) -> dict[int, tuple[str | None, int | None, int | None]]:
    """Clinic, expected events and those heard when any were expected, of a device by day."""
    return {
        (row["event_date"] - FIRST_DAY.date()).days: (
            row["clinic_id"],
            row["expected_events"],
            row["heard_event_count"],
        )
        for row in warehouse.rows(f"select * from anl.device_daily_heartbeat where device_id = '{device_id}'")
    }


def test_a_silent_day_has_a_row_up_to_the_present_and_the_clinic_in_force(warehouse: Any) -> None:
    """Nobody at all sends on day 4; day 5 is over by half."""
    silent = {2: ("c2", 24, 0), 3: ("c2", 24, 0), 4: ("c2", 24, 0), 5: ("c2", 12, 0)}
    assert days_of(warehouse, "dark 1") == {0: ("c2", 24, 24), 1: ("c2", 24, 24), **silent}
    assert days_of(warehouse, "heard") == {
        **dict.fromkeys(range(4), ("c1", 24, 24)),
        4: ("c1", 24, 0),
        5: ("c1", 12, 0),
    }


def test_what_consent_drops_is_not_expected(warehouse: Any) -> None:
    assert days_of(warehouse, "refuses") == {}
    assert days_of(warehouse, "refuses from noon") == {0: ("c1", 24, 24), 1: ("c1", 12, 12)}
    assert days_of(warehouse, "refused, told late") == {0: ("c1", 24, 24)}
    assert days_of(warehouse, "allows again, told late") == {
        3: ("c1", 24, 24),
        4: ("c1", 24, 0),
        5: ("c1", 12, 0),
    }


def test_a_device_owes_events_from_the_moment_it_is_registered(warehouse: Any) -> None:
    """What it sent from six on is there, and no part of the ratio."""
    assert days_of(warehouse, "registered at noon")[1] == ("c1", 12, 12)
    assert warehouse.rows(
        "select event_count, heartbeat_ratio from anl.device_daily_heartbeat"
        f" where device_id = 'registered at noon' and event_date = '{at(1).date()}'"
    ) == [{"event_count": 18, "heartbeat_ratio": 1.0}]


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("seamless", {2: ("c2", 24, 0), 3: ("c2", 24, 0), 4: ("c2", 24, 0), 5: ("c2", 12, 0)}),
        ("with a gap", {2: ("c2", 12, 0), 3: ("c2", 24, 0), 4: ("c2", 24, 0), 5: ("c2", 12, 0)}),
        # What was expected on day 2 was expected of the one who gave it.
        ("to one who refuses", {2: ("c1", 12, 0)}),
    ],
)
def test_a_handover_at_midday_is_silent_for_whom_it_was_expected_of(
    warehouse: Any, name: str, silent: dict[int, Any]
) -> None:
    assert days_of(warehouse, name) == {0: ("c1", 24, 24), 1: ("c1", 24, 24), **silent}


def test_a_clinic_that_hears_nothing_is_named(warehouse: Any) -> None:
    columns = "device_count, silent_device_count, expected_events, heard_event_count, heartbeat_ratio"
    for day, expected in {
        1: ("c2", 2, 0, 48, 48, 1.0),
        2: ("c2", 4, 4, 84, 0, 0.0),
        4: ("c2", 4, 4, 96, 0, 0.0),
    }.items():
        rows = warehouse.rows(
            f"select clinic_id, {columns} from anl.clinic_daily_heartbeat"
            f" where clinic_id = 'c2' and event_date = '{at(day).date()}'"
        )
        assert [tuple(row.values()) for row in rows] == [expected]
    assert warehouse.rows("select 1 from anl.clinic_daily_heartbeat where clinic_id = 'unknown'") == []
    never_heard = warehouse.rows(
        "select event_date from anl.clinic_daily_collars where clinic_id = 'c3' and silent_collar_count = 1"
        " and active_collar_count = 0 and heard_event_count = 0 order by event_date"
    )
    assert [row["event_date"] for row in never_heard] == [at(day).date() for day in range(6)]


def known_refusals(by: datetime) -> dict[str, list[tuple[datetime, datetime]]]:
    """Ingestion's own rule on the random records received by then: device to spans."""
    rows = {
        feed: sorted(
            (row for row in RANDOM[feed] if row["arrival_ts"] <= by),
            key=lambda row: tuple(row[name] for name in CHANGE_ORDER),
        )
        for feed in RANDOM
    }
    owners = [OwnerRecord(*(row[name] for name in OwnerRecord._fields)) for row in rows["owners"]]
    assignments = {row["business_key"]: row for row in rows["device_assignments"]}
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for device_id, from_ts, to_ts, _ in opt_outs(
        statements(ANALYTICS, owners),
        [
            (row["pet_id"], row["owner_id"], row["changed_at"])
            for row in rows["pets"]
            if row["op"] != "delete"
        ],
        [
            (row["device_id"], row["pet_id"], row["assigned_from"], row["assigned_to"])
            for row in assignments.values()
        ],
    ):
        found.setdefault(device_id, []).append((from_ts, to_ts or datetime.max))
    return found


def spans_by_rule() -> Iterator[tuple[str, datetime, datetime]]:
    """What is dropped at some receipt by what was known then, or taken out since by what is known now."""
    arrivals = sorted({row["arrival_ts"] for rows in RANDOM.values() for row in rows})
    for known_at, until in pairwise([*arrivals, datetime.max]):
        for device_id, spans in known_refusals(known_at).items():
            yield from ((device_id, max(low, known_at), min(high, until)) for low, high in spans)
    for device_id, spans in known_refusals(datetime.max).items():
        yield from ((device_id, *span) for span in spans)


def test_refusals_are_what_ingestion_drops(warehouse: Any) -> None:
    """Day by day: every record of the random households is of a midnight."""
    moments = [at(day) for day in range(-1, 13)]
    expected = {
        (device_id, moment)
        for device_id, low, high in spans_by_rule()
        for moment in moments
        if low <= moment < high
    }
    found = warehouse.rows("select * from cur.device_refusals where device_id like 'r__d'")
    assert {
        (row["device_id"], moment)
        for row in found
        for moment in moments
        if row["valid_from"] <= moment and (row["valid_to"] is None or moment < row["valid_to"])
    } == expected
    assert len({device_id for device_id, _ in expected}) > 30
