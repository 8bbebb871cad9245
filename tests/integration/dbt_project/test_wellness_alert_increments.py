"""Laws of wellness alerts on random days: as known, each raised once and closed once, however it was loaded."""

import random
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, record

from warehouse.compare import compare_tables
from warehouse.watermark import PartitionProgress, watermark

DAYS = 9
PETS = 4
HOUR = timedelta(hours=1)
TABLES = (
    "anl.wellness_hours",
    "anl.wellness_transitions",
    "anl.wellness_alerts",
    "anl.wellness_alert_events",
)
# Thinner data than real collars send, so that the worlds are small: an event in five minutes.
THINNER = """
    update anl.alert_rules set
        min_window_minutes = case rule when 'fever' then 6 when 'collar_dropout' then null
            when 'low_battery' then null else 150 end,
        min_baseline_minutes = case when min_baseline_minutes is not null then 400 end
    where rule <> 'overdue_vaccine'
"""
# From the sixth day on a hot pet of these worlds has no fever.
SECOND_VERSION_FROM = FIRST_DAY + 5 * DAY
SECOND_VERSION = f"""
    insert into anl.alert_rules
    select * replace ('v2' as rule_version, timestamp '{SECOND_VERSION_FROM}' as valid_from, 39.7 as threshold)
    from anl.alert_rules where rule = 'fever'
"""
MODES = {
    "well": {},
    "hot": {"body_temp_c": Decimal("39.6")},
    "lazy": {"step_count": 1},
    "licking": {"lick_count": 9},
    "low": {"battery_pct": Decimal("9.5")},
    "silent": None,
}

Row = dict[str, Any]
Raw = dict[str, list[Row]]


def world(seed: int) -> Raw:
    """Collars in random moods for hours on end, events that come late, records that come later."""
    rng = random.Random(seed)
    raw: Raw = defaultdict(list)

    def add(
        feed: str, entity: str, changed_at: datetime, late: timedelta = timedelta(0), **values: Any
    ) -> None:
        raw[feed].append(
            record(
                *(feed, entity, changed_at),
                arrival_ts=changed_at + late,
                kafka_offset=len(raw[feed]),
                **values,
            )
        )

    def later() -> timedelta:
        return rng.choice([timedelta(0), 5 * HOUR, 40 * HOUR])

    before = FIRST_DAY - DAY
    for number in range(PETS):
        pet, collar = f"p{number}", f"d{number}"
        add("pets", pet, before, owner_id="o1", name=pet)
        add("devices", collar, before, status="active", expected_events_per_day=288)
        wear = {"device_id": collar, "pet_id": pet, "assigned_from": before}
        add("device_assignments", f"w{number}", before, **wear)
    # A collar moves on, which is known later; one is retired; a pet is deleted.
    moved = FIRST_DAY + DAY * rng.uniform(2, 6)
    add("device_assignments", "moved", moved, later(), device_id="d0", pet_id="p3", assigned_from=moved)
    add("devices", "d1", FIRST_DAY + DAY * rng.uniform(4, 8), later(), status="retired")
    add("pets", "p2", FIRST_DAY + DAY * rng.uniform(6, 8), later(), op="delete")
    for number in range(20):
        visit_ts = FIRST_DAY + DAY * rng.uniform(-3, DAYS - 1)
        due = rng.choice([None, (visit_ts + DAY * rng.randrange(1, 9)).date()])
        values = {
            "pet_id": f"p{rng.randrange(PETS)}",
            "clinic_id": "c1",
            "visit_ts": visit_ts,
            "next_vaccine_due": due,
        }
        add("clinic_visits", f"v{number}", visit_ts, later(), status="completed", **values)
        if rng.random() < 0.2:
            add("clinic_visits", f"v{number}", visit_ts + DAY, later(), op="delete")
    for number in range(PETS):
        moment = FIRST_DAY
        while moment < FIRST_DAY + DAYS * DAY:
            mode = rng.choice(["well", *MODES])
            until = moment + timedelta(minutes=5 * rng.randrange(12, 300))
            hours_late = rng.choice([0, 0, 0, 0, 3, 30])
            while moment < min(until, FIRST_DAY + DAYS * DAY):
                if MODES[mode] is not None:
                    late = timedelta(seconds=rng.choice([5] * 9 + [1200]), hours=hours_late)
                    raw["telemetry_events"].append(_event(number, moment, late, MODES[mode]))
                moment += timedelta(minutes=5)
    for offset, row in enumerate(raw["telemetry_events"]):
        row["kafka_offset"] = offset
    return dict(raw)


def _event(number: int, event_ts: datetime, late: timedelta, measures: dict[str, Any]) -> Row:
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": 0,
        "arrival_ts": event_ts + late,
        "ingested_at": event_ts + late,
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": f"d{number}",
        "event_ts": event_ts,
        "event_id": f"e{number}-{event_ts:%d%H%M}",
        "step_count": 10,
        "lick_count": 2,
        "body_temp_c": Decimal("38.5"),
        "battery_pct": Decimal(60),
        "schema_version": 1,
        "payload": "{}",
        **measures,
    }


def start(make_warehouse: Any, *changes: str) -> Any:
    """An empty warehouse with the rules of this file, changed further by SQL."""
    warehouse = make_warehouse({})
    assert warehouse.invoke("seed", "--select", "anl_alert_rules", "cur_timezones").success
    with warehouse.connect() as con:
        for sql in (THINNER, *changes):
            con.execute(sql)
    return warehouse


def bring(warehouse: Any, batch: Raw, present: datetime) -> None:
    """Load a batch and build as of `present`, as a run would."""
    warehouse.load(batch)
    dirty = sorted({f"{row['event_ts']:%Y-%m-%d}" for row in batch.get("telemetry_events", [])})
    warehouse.build(
        *("--select", "+anl_wellness_alert_events"),
        variables={"dirty_days": dirty, "as_of_ts": f"{present:%Y-%m-%d %H:%M:%S}"},
        without=("unit_test", "test", "seed"),
    )


def split(raw: Raw, batch_of: Any, batches: int) -> list[Raw]:
    result: list[Raw] = [defaultdict(list) for _ in range(batches)]
    for name, rows in raw.items():
        for row in rows:
            result[batch_of(row)][name].append(row)
    return [dict(batch) for batch in result]


def announced(warehouse: Any) -> dict[tuple[str, str], Row]:
    rows = warehouse.rows("select * from anl.wellness_alert_events")
    events = {(row["alert_id"], row["transition"]): row for row in rows}
    assert len(events) == len(rows)
    return events


def differences(a: Any, b: Any) -> list[str]:
    with a.connect() as con_a, b.connect() as con_b:
        return [str(found) for table in TABLES for found in compare_tables(con_a, table, con_b, table)]


END = FIRST_DAY + (DAYS + 3) * DAY


@pytest.fixture(scope="module")
def raw():
    return world(seed=3)


@pytest.fixture(scope="module")
def rebuilt(make_warehouse, raw):
    warehouse = start(make_warehouse, SECOND_VERSION)
    bring(warehouse, raw, END)
    return warehouse


def test_the_world_shows_every_rule_and_both_ends(rebuilt):
    alerts = rebuilt.rows("select rule, close_reason, count(*) as n from anl.wellness_alerts group by all")
    assert {row["rule"] for row in alerts} == {
        *(
            "collar_dropout",
            "fever",
            "sudden_inactivity",
            "excessive_licking",
            "low_battery",
            "overdue_vaccine",
        ),
    }
    assert {row["close_reason"] for row in alerts} >= {"cleared", "no_data"}
    assert sum(row["n"] for row in alerts) > 15


def test_alerts_that_are_open_when_all_data_ends_stay_open(rebuilt):
    ends = FIRST_DAY + DAYS * DAY
    at_the_end = rebuilt.rows(
        "select is_open, stale_at from anl.wellness_alerts where rule not in ('overdue_vaccine', 'collar_dropout')"
        f" and raised_at < '{ends}' and coalesce(closed_at, '{END}') > '{ends + 2 * HOUR}'"
    )
    assert at_the_end
    assert all(alert["is_open"] and alert["stale_at"] > ends for alert in at_the_end)


def test_a_new_version_of_a_rule_leaves_what_was_judged_before(rebuilt):
    fevers = rebuilt.rows("select rule_version, raised_at from anl.wellness_alerts where rule = 'fever'")
    assert fevers
    assert all(row["rule_version"] == "v1" and row["raised_at"] < SECOND_VERSION_FROM for row in fevers)


@pytest.mark.parametrize("loads", [3, pytest.param(4, marks=pytest.mark.full)])
def test_in_order_of_arrival_each_alert_is_told_once_and_nothing_told_is_taken_back(
    make_warehouse, rebuilt, raw, loads
):
    rng = random.Random(1)
    # In the middle of a day and of an hour, then just after the last event; the last run brings late ones and time.
    middles = (FIRST_DAY + timedelta(minutes=rng.randrange(2 * 1440, DAYS * 1440)) for _ in range(loads - 2))
    presents = [*sorted(middles), FIRST_DAY + DAYS * DAY + HOUR, END]
    batches = split(raw, lambda row: sum(row["arrival_ts"] > present for present in presents[:-1]), loads)
    warehouse = start(make_warehouse)
    told: dict[tuple[str, str], Row] = {}
    since = datetime.min
    for batch, present in zip(batches, presents, strict=True):
        if since <= SECOND_VERSION_FROM < present:
            with warehouse.connect() as con:
                con.execute(SECOND_VERSION)
        bring(warehouse, batch, present)
        events = announced(warehouse)
        assert {key: events.get(key) for key in told} == told
        new = [row for key, row in events.items() if key not in told]
        assert all(since < row["transition_at"] <= present for row in new)
        told, since = events, present
    closed = {alert_id for alert_id, transition in told if transition == "closed"}
    assert closed <= {alert_id for alert_id, transition in told if transition == "raised"}
    assert differences(rebuilt, warehouse) == []


def test_what_was_told_while_a_partition_lagged_by_a_day_stays_told(make_warehouse, rebuilt, raw):
    """Half of the collars' events of the last day are still in the log when the others are judged."""
    until, lagging_until = FIRST_DAY + 4 * DAY + HOUR, FIRST_DAY + 3 * DAY

    def partition_of(row: Row) -> int:
        return int(row["device_id"][1:]) % 2

    def batch_of(row: Row) -> int:
        lags = "event_id" in row and partition_of(row) == 1
        return int(row["arrival_ts"] > (lagging_until if lags else until))

    first, second = split(raw, batch_of, 2)
    progress = {}
    for partition in range(2):
        arrivals = [row["arrival_ts"] for row in first["telemetry_events"] if partition_of(row) == partition]
        place = ("cluster.telemetry.1", partition)
        progress[place] = PartitionProgress(*place, 0, max(arrivals), None, FIRST_DAY)
    present = watermark(progress)
    assert present <= lagging_until
    warehouse = start(make_warehouse, SECOND_VERSION)
    bring(warehouse, first, present)
    told = announced(warehouse)
    assert told
    bring(warehouse, second, END)
    later = announced(warehouse)
    assert {key: later.get(key) for key in told} == told
    assert differences(rebuilt, warehouse) == []


def test_in_any_order_the_alerts_become_the_same(make_warehouse, rebuilt, raw):
    rng = random.Random(2)
    # Records and events in either of two batches, whole days of a collar together.
    of_day: dict[Any, int] = {}

    def batch_of(row: Row) -> int:
        day = row["event_ts"].date() if "event_ts" in row else row["kafka_offset"]
        return of_day.setdefault((row.get("device_id"), row.get("business_key"), day), rng.randrange(2))

    warehouse = start(make_warehouse, SECOND_VERSION)
    first, second = split(raw, batch_of, 2)
    bring(warehouse, first, max(row["arrival_ts"] for rows in first.values() for row in rows))
    bring(warehouse, second, END)
    assert differences(rebuilt, warehouse) == []
