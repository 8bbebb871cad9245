"""Wellness alerts rule by rule, on days whose outcome is worked out by hand in the comments.

An hour is judged 15 minutes after its end. Each pet is one story; all of them
are built at once. `day(n, "10:00")` is n days after the first.
"""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, record

from contracts.columns import TELEMETRY_SCHEMA

LATEST = FIRST_DAY + 9 * DAY
SHOWN = ("raised_at", "closed_at", "close_reason", "condition_from_ts", "observed_value", "baseline_value")


def day(number: int, time: str = "00:00") -> datetime:
    hours, minutes = map(int, time.split(":"))
    return FIRST_DAY + number * DAY + timedelta(hours=hours, minutes=minutes)


class Story:
    """Raw rows of the pets of this file, one collar each (`collar of <pet>`)."""

    def __init__(self, con: Any) -> None:
        self._con = con
        self.records: dict[str, list[dict[str, Any]]] = {}

    def add(self, feed: str, entity: str, changed_at: datetime, **values: Any) -> None:
        rows = self.records.setdefault(feed, [])
        rows.append(record(feed, entity, changed_at, kafka_offset=len(rows), **values))

    def pet(self, pet_id: str, cadence: int | None = 1440, until: datetime | None = None) -> None:
        """A pet with a collar of its own from before the first day on, known from then."""
        before = FIRST_DAY - DAY
        self.add("pets", pet_id, before, owner_id=f"owner of {pet_id}", name=pet_id)
        self.add("devices", f"collar of {pet_id}", before, status="active", expected_events_per_day=cadence)
        self.add(
            "device_assignments",
            f"wear of {pet_id}",
            before,
            device_id=f"collar of {pet_id}",
            pet_id=pet_id,
            assigned_from=before,
            assigned_to=None,
        )
        if until:
            self.add(
                "device_assignments",
                f"wear of {pet_id}",
                until,
                device_id=f"collar of {pet_id}",
                pet_id=pet_id,
                assigned_from=before,
                assigned_to=until,
            )

    def events(
        self,
        pet_id: str,
        first: datetime,
        until: datetime,
        every_minutes: float = 1,
        delay: timedelta = timedelta(seconds=5),
        **measures: Any,
    ) -> None:
        """Events of the pet's collar at every n-th minute of [first, until), each with the same measures."""
        columns = "".join(f", {value} as {name}" for name, value in measures.items())
        assert set(measures) <= set(TELEMETRY_SCHEMA.names)
        self._con.execute(
            f"""
            insert into raw.telemetry_events by name
            select
                'cluster.telemetry.1' as stream_id, 0 as kafka_partition,
                (select count(*) from raw.telemetry_events) + row_number() over (order by moment) as kafka_offset,
                moment as event_ts, moment + ? as arrival_ts, moment + ? as ingested_at,
                'petwellness-collar' as source_system, 'landing/test.parquet' as source_file,
                ? as device_id, 'e' || epoch_us(moment) as event_id, 1 as schema_version, '{{}}' as payload {columns}
            from (select unnest(generate_series(?, ?, to_seconds({round(60 * every_minutes)}))) as moment)
            """,
            [delay, delay, f"collar of {pet_id}", first, until - timedelta(microseconds=1)],
        )

    def visit(self, visit_id: str, pet_id: str, changed_at: datetime, **values: Any) -> None:
        values = {"visit_ts": changed_at, "status": "completed", "clinic_id": "clinic-1", **values}
        self.add("clinic_visits", visit_id, changed_at, pet_id=pet_id, **values)


def dropouts(tell: Story) -> None:
    def silent(pet_id: str, gaps: list[tuple[datetime, datetime]]) -> None:
        first = day(0)
        for gap_from, gap_until in [*gaps, (LATEST, LATEST)]:
            tell.events(pet_id, first, gap_from, 10)
            first = gap_until

    tell.pet("five silent hours")
    silent("five silent hours", [(day(1, "10:00"), day(1, "15:00"))])
    tell.pet("six silent hours")
    silent("six silent hours", [(day(1, "10:00"), day(1, "20:00")), (day(2, "02:00"), day(2, "08:00"))])
    tell.pet("one event in six hours")
    silent(
        "one event in six hours",
        [(day(1, "10:00"), day(1, "15:30")), (day(1, "15:40"), day(1, "21:00"))],
    )
    tell.pet("no regular cadence", cadence=None)
    silent("no regular cadence", [(day(1, "10:00"), day(2, "10:00"))])
    tell.pet("retired collar")
    silent("retired collar", [(day(1, "10:00"), LATEST)])
    tell.add(
        "devices", "collar of retired collar", day(1, "12:00"), status="retired", expected_events_per_day=1440
    )
    tell.pet("retired too late to know")
    silent("retired too late to know", [(day(1, "10:00"), LATEST)])
    tell.add(
        *("devices", "collar of retired too late to know", day(1, "12:00")),
        arrival_ts=day(2),
        status="retired",
        expected_events_per_day=1440,
    )
    tell.pet("events come late")
    tell.events("events come late", day(0), day(1, "10:00"), 10)
    tell.events("events come late", day(1, "10:00"), day(1, "18:00"), 10, delay=timedelta(hours=3))
    tell.events("events come late", day(1, "18:00"), LATEST, 10)
    tell.pet("taken off", until=day(1, "12:30"))
    silent("taken off", [(day(1, "08:00"), LATEST)])
    tell.pet("taken off when raised", until=day(1, "16:30"))
    silent("taken off when raised", [(day(1, "08:00"), LATEST)])
    tell.add("pets", "given a silent collar", FIRST_DAY - DAY, name="given")
    tell.add(
        "device_assignments",
        "second wear",
        day(1, "12:30"),
        device_id="collar of taken off",
        pet_id="given a silent collar",
        assigned_from=day(1, "12:30"),
        assigned_to=None,
    )
    tell.add("devices", "collar of nobody", FIRST_DAY - DAY, status="active", expected_events_per_day=1440)
    # From then on their messages are dropped, or taken out once it is known.
    for pet_id, refused_at, known_at in (
        ("refuses", FIRST_DAY - DAY, FIRST_DAY - DAY),
        ("refuses from ten past", day(1, "10:10"), day(1, "10:10")),
        ("refuses, told late", day(1, "10:00"), day(3)),
    ):
        tell.pet(pet_id)
        silent(pet_id, [(max(refused_at, day(0)), LATEST)])
        flags = json.dumps({"analytics": {"value": False}})
        tell.add("owners", f"owner of {pet_id}", refused_at, arrival_ts=known_at, consent_flags=flags)
    tell.events("nobody", day(0), day(0, "12:00"), 10, battery_pct=1)
    tell.pet("claimed by two")
    silent("claimed by two", [(day(1, "00:00"), day(1, "20:00"))])
    tell.add(
        "device_assignments",
        "wear of claimed by two",
        FIRST_DAY - timedelta(hours=12),
        device_id="collar of claimed by two",
        pet_id="claimed by two",
        assigned_from=FIRST_DAY - DAY,
        assigned_to=LATEST,
    )
    tell.add(
        "device_assignments",
        "other claim",
        FIRST_DAY - DAY,
        device_id="collar of claimed by two",
        pet_id="five silent hours",
        assigned_from=day(1),
        assigned_to=day(2),
    )


def fevers(tell: Story) -> None:
    def hours(pet_id: str, begin: datetime, temps: list[float | None], every_minutes: int = 2) -> None:
        for number, temp in enumerate(temps):
            start = begin + timedelta(hours=number)
            if temp is not None:
                tell.events(pet_id, start, start + timedelta(hours=1), every_minutes, body_temp_c=temp)

    # 30 measurements an hour are just enough.
    for pet_id, temps in {
        "hot for three hours": [38.5, 39.2, 39.2, 39.2, 38.5],
        "nearly hot": [39.19] * 10,
        "hot twice": [38.5, *[39.2] * 4, 39.0, 39.0, *[38.9] * 3, 39.0, *[38.9] * 4, *[40.0] * 4],
        "hot with a gap": [39.5, 39.5, None, 39.5, 39.5, None, 39.5, 39.5, 39.5],
    }.items():
        tell.pet(pet_id, cadence=None)
        hours(pet_id, day(1), temps)
    tell.pet("hot in few minutes", cadence=None)
    hours("hot in few minutes", day(1), [40.0] * 6, every_minutes=3)
    # 60 measurements an hour, in ten of its minutes.
    tell.pet("measured often in few minutes", cadence=None)
    for number in range(6):
        start = day(1) + timedelta(hours=number)
        tell.events(
            *("measured often in few minutes", start, start + timedelta(minutes=10)),
            every_minutes=1 / 6,
            body_temp_c=40.0,
        )
    tell.pet("hot and deleted", cadence=None)
    hours("hot and deleted", day(1), [40.0] * 12)
    tell.add("pets", "hot and deleted", day(1, "06:30"), op="delete")
    tell.pet("hot and deleted at once", cadence=None)
    hours("hot and deleted at once", day(1), [40.0] * 12)
    tell.add("pets", "hot and deleted at once", day(0, "06:30"), op="delete")


def batteries(tell: Story) -> None:
    for pet_id, levels in {
        "battery low": [15.01, 15, 15, 24.99, 24.99, 25, 14],
        "battery nearly low": [15.01] * 5,
        "battery low for an hour": [30, 15, 30],
    }.items():
        tell.pet(pet_id, cadence=None)
        for number, level in enumerate(levels):
            tell.events(
                pet_id,
                day(1) + timedelta(hours=number),
                day(1) + timedelta(hours=number + 1),
                30,
                battery_pct=level,
            )


def habits(tell: Story) -> None:
    """Four days of the same steps and licks in every minute, then a change."""

    def habit(
        pet_id: str, first: dict[str, Any], then: dict[str, Any], until: datetime, later: bool = True
    ) -> None:
        tell.pet(pet_id, cadence=None)
        tell.events(pet_id, day(0), day(4), **first)
        tell.events(pet_id, day(4), until, **then)
        if later:
            tell.events(pet_id, until, day(6), **first)

    habit("lazy", {"step_count": 1}, {"step_count": 0}, day(4, "20:00"))
    habit("a little lazy", {"step_count": 100}, {"step_count": 46}, day(6), later=False)
    habit("licking", {"lick_count": 1}, {"lick_count": 3}, day(6), later=False)
    habit("licking a little", {"lick_count": 10}, {"lick_count": 17}, day(6), later=False)
    # Three minutes an hour are lost, and four hours of the second night.
    tell.pet("licking with a gap", cadence=None)
    tell.events("licking with a gap", day(0), day(4), lick_count=1)
    for hour in range(5 * 24):
        start = day(4) + timedelta(hours=hour)
        if not day(4, "20:00") <= start < day(5):
            licks = 3 if start < day(5, "18:00") else 1
            tell.events("licking with a gap", start, start + timedelta(minutes=57), lick_count=licks)
    worn = {"body_temp_c": 38.5}
    habit("collar on the table", {"step_count": 1, **worn}, {"step_count": 0}, day(6), later=False)
    tell.pet("silent, not lazy")
    tell.events("silent, not lazy", day(0), day(4), step_count=1)
    tell.events("silent, not lazy", day(4, "20:00"), LATEST, step_count=1)
    tell.pet("too short a past", cadence=None)
    tell.events("too short a past", day(2), day(4), step_count=1)
    tell.events("too short a past", day(4), day(6), step_count=0)


def vaccinations(tell: Story) -> None:
    pets = [
        "due",
        "due today",
        "vaccinated in time",
        "known too late",
        "missed visit",
        "visit deleted",
        "gone",
    ]
    for pet_id in pets:
        tell.add("pets", pet_id, FIRST_DAY - DAY, owner_id="o1", name=pet_id)
        due = day(8) if pet_id == "due today" else day(4)
        tell.visit(f"first of {pet_id}", pet_id, day(1, "09:00"), next_vaccine_due=due.date())
    in_a_year = day(370).date()
    tell.visit("v1", "due", day(7, "10:00"), arrival_ts=day(7, "12:00"), next_vaccine_due=in_a_year)
    tell.visit("v2", "vaccinated in time", day(4, "18:00"), next_vaccine_due=in_a_year)
    # The visit was before the due date, but nobody knew when the alert was raised.
    tell.visit(
        "v3", "known too late", day(3, "10:00"), arrival_ts=day(6, "01:00"), next_vaccine_due=in_a_year
    )
    tell.visit("v4", "missed visit", day(6, "10:00"), status="no_show", next_vaccine_due=in_a_year)
    tell.add("clinic_visits", "first of visit deleted", day(8), op="delete")
    tell.add("pets", "gone", day(8, "12:00"), op="delete")


@pytest.fixture(scope="module")
def alerts(make_warehouse):
    warehouse = make_warehouse({})
    with warehouse.connect() as con:
        tell = Story(con)
        for stories in (dropouts, fevers, batteries, habits, vaccinations):
            stories(tell)
    warehouse.load(tell.records)
    warehouse.build(
        *("--select", "+anl_wellness_alert_events"),
        variables={"as_of_ts": f"{LATEST - timedelta(hours=1):%Y-%m-%d %H:%M:%S}"},
        without=("unit_test", "test"),
    )
    return warehouse.rows("select * from anl.wellness_alerts order by pet_id, rule, raised_at")


def of(alerts, pet_id, rule):
    """The pet's alerts; it has none of another rule."""
    mine = [alert for alert in alerts if alert["pet_id"] == pet_id]
    assert {alert["rule"] for alert in mine} <= {rule}
    return [tuple(alert[name] for name in SHOWN) for alert in mine]


def test_a_collar_drops_out_after_six_silent_hours_and_returns_with_the_first_event(alerts):
    # Silent 10:00 to 20:00: six hours are judged at 16:15; the hour of the first event ends at 21:00.
    assert of(alerts, "six silent hours", "collar_dropout") == [
        (day(1, "16:15"), day(1, "21:15"), "cleared", day(1, "10:00"), 0.0, None),
        (day(2, "08:15"), day(2, "09:15"), "cleared", day(2, "02:00"), 0.0, None),
    ]


@pytest.mark.parametrize(
    "pet_id",
    [
        "five silent hours",
        "one event in six hours",
        "no regular cadence",
        "retired collar",
        "taken off",
        "claimed by two",
        "refuses",
        "refuses from ten past",
        "refuses, told late",
    ],
)
def test_no_dropout(alerts, pet_id):
    assert of(alerts, pet_id, "collar_dropout") == []


def test_what_was_not_known_in_time_does_not_withdraw_an_alert(alerts):
    # Hours 10 to 17 had no event in time; the events came three hours later.
    assert of(alerts, "events come late", "collar_dropout") == [
        (day(1, "16:15"), day(1, "19:15"), "cleared", day(1, "10:00"), 0.0, None)
    ]
    # Retired at noon, known at midnight: the last silent hour judged ends at 23:00; a day later it expires.
    assert of(alerts, "retired too late to know", "collar_dropout") == [
        (day(1, "16:15"), day(2, "23:15"), "no_data", day(1, "10:00"), 0.0, None)
    ]


def test_a_dropout_ends_with_the_assignment_and_begins_anew_for_the_next_pet(alerts):
    # Worn until 16:30: the hours 8 to 15 are silent, hour 16 is nobody's; a day after the last signal it expires.
    assert of(alerts, "taken off when raised", "collar_dropout") == [
        (day(1, "14:15"), day(2, "16:15"), "no_data", day(1, "08:00"), 0.0, None)
    ]
    # From 12:30 on: the first whole hour begins at 13:00.
    assert of(alerts, "given a silent collar", "collar_dropout") == [
        (day(1, "19:15"), None, None, day(1, "13:00"), 0.0, None)
    ]


def test_a_collar_without_a_pet_raises_nothing(alerts):
    assert "nobody" not in {alert["pet_id"] for alert in alerts}
    assert None not in {alert["pet_id"] for alert in alerts}


def test_fever_needs_four_hours_and_ends_after_four_clear_ones(alerts):
    # Hot from 01:00 to 05:00. 39.0 is neither; three clear hours from 07:00, then 39.0, then four from 11:00
    # to 15:00. Hot again until 19:00, and the data ends: 24 hours after the last hot hour was judged it expires.
    assert of(alerts, "hot twice", "fever") == [
        (day(1, "05:15"), day(1, "15:15"), "cleared", day(1, "01:00"), 39.2, None),
        (day(1, "19:15"), day(2, "19:15"), "no_data", day(1, "15:00"), 40.0, None),
    ]
    ids = {alert["alert_id"] for alert in alerts if alert["pet_id"] == "hot twice"}
    assert len(ids) == 2


@pytest.mark.parametrize(
    "pet_id",
    [
        *("hot for three hours", "nearly hot", "hot with a gap", "hot in few minutes"),
        *("measured often in few minutes", "hot and deleted at once"),
    ],
)
def test_no_fever(alerts, pet_id):
    assert of(alerts, pet_id, "fever") == []


def test_a_deleted_pet_is_judged_no_more(alerts):
    # The hours 0 to 5 are judged; the last at 06:15, and a day later the alert expires.
    assert of(alerts, "hot and deleted", "fever") == [
        (day(1, "04:15"), day(2, "06:15"), "no_data", day(1, "00:00"), 40.0, None)
    ]


def test_low_battery_is_raised_at_15_and_closed_at_25_percent(alerts):
    assert of(alerts, "battery low", "low_battery") == [
        (day(1, "03:15"), day(1, "06:15"), "cleared", day(1, "01:00"), 15.0, None)
    ]
    assert of(alerts, "battery nearly low", "low_battery") == []
    assert of(alerts, "battery low for an hour", "low_battery") == []


def test_sudden_inactivity_against_the_pets_own_week(alerts):
    # After k hours without a step the window has (24 - k) * 60 steps in 1440 minutes against 1 a minute: at
    # most 45 % from k = 14 on, the fourth hour is k = 17, which ends at 17:00; 7 * 60 steps in 24 hours are 17.5.
    # Steps again from 20:00. Hour 24 + j has 5 + j hours with steps in its window and 96 of 97 + j in its
    # baseline; (5 + j) / 24 >= 0.65 * 96 / (97 + j) first holds for j = 10; the fourth is j = 13: day 5, 13:00.
    assert of(alerts, "lazy", "sudden_inactivity") == [
        (day(4, "17:15"), day(5, "14:15"), "cleared", day(4, "13:00"), 17.5, 60.0)
    ]
    # 46 % of the steps are more than 45.
    assert of(alerts, "a little lazy", "sudden_inactivity") == []


def test_silence_is_a_dropout_and_a_collar_on_the_table_nothing(alerts):
    assert of(alerts, "silent, not lazy", "collar_dropout") == [
        (day(4, "06:15"), day(4, "21:15"), "cleared", day(4, "00:00"), 0.0, None)
    ]
    lazy = {alert["pet_id"] for alert in alerts if alert["rule"] == "sudden_inactivity"}
    assert lazy == {"lazy"}


def test_excessive_licking_against_the_pets_own_week(alerts):
    # After k hours of three licks a minute 1 + 2k / 24 of the baseline: 180 % from k = 10 on, the fourth is k = 13:
    # 11 * 60 + 13 * 180 licks in 24 hours are 125 an hour. The data ends with day 5; in its last hour the baseline
    # has 24 hours of three a minute in 120, so the window is 3 / (1 + 2 * 24 / 120) = 214 % of it, still too much.
    # Its window is empty by the end of day 6; another day later the alert expires.
    assert of(alerts, "licking", "excessive_licking") == [
        (day(4, "13:15"), day(8, "00:15"), "no_data", day(4, "09:00"), 125.0, 60.0)
    ]
    assert of(alerts, "licking a little", "excessive_licking") == []


def test_an_episode_with_a_gap_is_told_once(alerts):
    # With the gap in it a window has 20 * 57 minutes, less than the 1152 asked for, until 19:00 of day 5: those
    # hours say nothing, and the alert waits for them.
    [(raised_at, closed_at, reason, *_)] = of(alerts, "licking with a gap", "excessive_licking")
    assert (raised_at, reason) == (day(4, "13:15"), "cleared")
    assert closed_at > day(5, "18:00")


def test_an_outage_of_the_fleet_closes_no_alert(make_warehouse):
    """Two hot pets; nothing is heard of any collar from day 2 to day 5, then of one of them for three days."""
    warehouse = make_warehouse({})
    with warehouse.connect() as con:
        tell = Story(con)
        for pet_id in ("hot again", "lost"):
            tell.pet(pet_id, cadence=None)
            tell.events(pet_id, day(1, "18:00"), day(2), body_temp_c=40.0)
        tell.events("hot again", day(5), day(5, "06:00"), body_temp_c=40.0)
        tell.events("hot again", day(5, "06:00"), day(8), body_temp_c=38.0)
    warehouse.load(tell.records)

    def build(present: datetime) -> dict[str, tuple[Any, ...]]:
        """By pet its one alert, after a run in which no day was dirty but at first."""
        warehouse.build(
            *("--select", "+anl_wellness_alerts"),
            variables={"as_of_ts": f"{present:%Y-%m-%d %H:%M:%S}"},
            without=("unit_test", "test"),
        )
        shown = "pet_id, raised_at, closed_at, close_reason, stale_at"
        rows = [tuple(row.values()) for row in warehouse.rows(f"select {shown} from anl.wellness_alerts")]
        assert len({pet_id for pet_id, *_ in rows}) == len(rows) == 2
        return {pet_id: tuple(rest) for pet_id, *rest in rows}

    raised, stale = day(1, "22:15"), day(3, "00:15")
    assert build(day(4)) == dict.fromkeys(["hot again", "lost"], (raised, None, None, stale))
    # The fever went on when data came back, and ended: the same alert. Of the other collar nothing came while the
    # fleet was heard for 24 hours.
    assert build(day(8)) == {
        "hot again": (raised, day(5, "10:15"), "cleared", None),
        "lost": (raised, day(6, "00:15"), "no_data", None),
    }


def test_a_vaccination_is_overdue_the_day_after_it_was_due_until_a_visit_is_known(alerts):
    assert of(alerts, "due", "overdue_vaccine") == [(day(5), day(7, "12:00"), "cleared", day(4), 1.0, None)]
    assert of(alerts, "due today", "overdue_vaccine") == []
    assert of(alerts, "vaccinated in time", "overdue_vaccine") == []
    assert of(alerts, "known too late", "overdue_vaccine") == [
        (day(5), day(6, "01:00"), "cleared", day(4), 1.0, None)
    ]
    assert of(alerts, "missed visit", "overdue_vaccine") == [(day(5), None, None, day(4), 1.0, None)]
    assert of(alerts, "visit deleted", "overdue_vaccine") == [(day(5), day(8), "cleared", day(4), 1.0, None)]
    assert of(alerts, "gone", "overdue_vaccine") == [(day(5), day(8, "12:00"), "cleared", day(4), 1.0, None)]


def test_an_alert_says_whom_it_concerns_as_known_then(alerts):
    due = next(alert for alert in alerts if alert["pet_id"] == "due")
    assert (due["owner_id"], due["clinic_id"], due["severity"], due["rule_version"]) == (
        "o1",
        "clinic-1",
        "info",
        "v1",
    )
    assert not due["is_open"]
