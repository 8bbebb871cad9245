"""Features on hand-made events and records; every expected value is worked out in a comment.

T is 2026-06-10. A value and its coverage are written as a pair, coverage as the minutes or days that
were observed out of those of the window.
"""

import csv
import shutil
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import sqrt

import pytest
from seeded_raw import merged, record

from warehouse.compare import compare_tables
from ml.datasets import (
    RECORD_FEATURES,
    TRAILING_FEATURES,
    forget_superseded_features,
    pivot_features,
    read_features,
)
from ml.warehouse import DuckDBWarehouse

T = datetime(2026, 6, 10)
DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)
AS_OF = {"as_of_ts": "2026-06-12 00:00:00"}
FEATURES = ("--select", "+ml_computed_features")
TESTS_OF_ML = (
    *("test", "--exclude-resource-type", "unit_test"),
    *(
        "--select",
        "ml_feature_catalogue",
        "ml_device_day_measures",
        "ml_pet_day_measures",
        "ml_computed_features",
    ),
)
DAY_MINUTES, NIGHT_MINUTES = 1440, 360


def event(device_id, event_ts, arrival_ts=None, **measures):
    arrival_ts = arrival_ts or event_ts + timedelta(seconds=5)
    return {
        "stream_id": "cluster.telemetry.1",
        "kafka_partition": 0,
        "arrival_ts": arrival_ts,
        "ingested_at": arrival_ts,
        "source_system": "petwellness-collar",
        "source_file": "landing/test.parquet",
        "device_id": device_id,
        "event_ts": event_ts,
        "event_id": f"{device_id}-{event_ts.isoformat()}",
        "schema_version": 1,
        **{name: Decimal(value) if isinstance(value, str) else value for name, value in measures.items()},
    }


def rex_on_t():
    """300 minutes of night from 00:00 and 480 of day from 12:00, one event each."""
    for minute in range(300):
        moving = minute in (50, 215, 216)
        yield event(
            "d1",
            T + minute * MINUTE,
            step_count=6 if moving else 0,
            # Three licks a minute from 02:00 to 02:09, then twelve in one.
            lick_count=3 if 120 <= minute < 130 else 12 if minute == 130 else 0,
            pulse_bpm="90.0" if moving else "60.0",
            respiration_rpm="30.0" if moving else "20.0",
            battery_pct="50.00",
        )
    for minute in range(480):
        first_hour = minute < 60
        yield event(
            "d1",
            T + 12 * 60 * MINUTE + minute * MINUTE,
            step_count=20 if first_hour else 0,
            lick_count=1 if minute < 36 else 0,
            pulse_bpm="120.0" if first_hour else "80.0",
            body_temp_c=("39.00" if minute < 30 else "39.60") if first_hour else None,
            battery_pct="40.50" if minute == 479 else "45.00",
        )
    # Arrives after the end of T: no part of what T knew.
    yield event("d1", T + 20.5 * 60 * MINUTE, T + DAY + 3 * 60 * MINUTE, step_count=5000)


def rex_before_t():
    """Three days with two minutes of night and one of noon, one day with steps alone, one too long ago."""
    noons = [
        (1, 990, 10, "38.50", "24.0", "60.50", None),
        (2, 1990, 20, "38.70", "26.0", "50.50", None),
        (3, 1490, 30, "38.90", "28.0", "55.50", "20.000"),
    ]
    for days_ago, steps, licks, temp, respiration, battery, weight in noons:
        start = T - days_ago * DAY
        yield event("d1", start, step_count=0, pulse_bpm="64.0")
        yield event("d1", start + MINUTE, step_count=10, pulse_bpm="100.0")
        yield event(
            "d1",
            start + DAY / 2,
            step_count=steps,
            lick_count=licks,
            pulse_bpm="76.0",
            body_temp_c=temp,
            respiration_rpm=respiration,
            battery_pct=battery,
            weight_kg=weight,
        )
    # Of T - 2, known on T.
    yield event("d1", T - 2 * DAY + 15 * 60 * MINUTE, T + 8 * 60 * MINUTE, step_count=300)
    yield event("d1", T - 7 * DAY + DAY / 2, step_count=500, lick_count=40, battery_pct="80.00")
    yield event("d1", T - 8 * DAY + DAY / 2, step_count=99999, lick_count=99)


def max_before_and_on_t():
    """An event a minute on T and the seven days before it; nine events on T - 8 and on T + 1."""
    for days_ago in range(8):
        busy = days_ago == 0
        for minute in range(DAY_MINUTES):
            resting = minute % 2 == 0 if busy else minute % 4 != 1
            yield event(
                "d4",
                T - days_ago * DAY + minute * MINUTE,
                step_count=0 if resting else 4,
                lick_count=2 if busy else 1,
                pulse_bpm=("90.0" if busy else "80.0") if resting else "120.0",
                body_temp_c="38.90" if busy else "38.50",
                respiration_rpm="24.0" if busy else "20.0",
            )
    for day in (T - 8 * DAY, T + DAY):
        for minute in range(9):
            yield event("d4", day + minute * MINUTE, step_count=4, lick_count=1)
    # Weighed on two days of each half of the 30 days that end with T; half a kilogram in ten days.
    for days_ago, weight in ((29, "20.000"), (19, "20.500"), (10, "20.950"), (9, "21.000")):
        yield event("d4", T - days_ago * DAY + DAY / 2 + timedelta(seconds=1), weight_kg=weight)


def others():
    # Mia's collar has no contact sensor: it counts steps and licks. Nothing on T.
    yield event("d2", T - DAY / 2, step_count=0, lick_count=0)
    yield event("d2", T + DAY + DAY / 2, step_count=100)
    # Collar d3 moves from Bo to Luna at 12:00:30 on T.
    noon = T + DAY / 2
    yield event("d3", noon - DAY, step_count=50)
    yield event("d3", T + timedelta(hours=6) - MINUTE, step_count=3)
    yield event("d3", T + timedelta(hours=6), step_count=4)
    yield event("d3", noon - MINUTE, step_count=7)
    yield event("d3", noon + timedelta(seconds=10), step_count=1)
    yield event("d3", noon + timedelta(seconds=40), step_count=2)
    yield event("d3", noon + MINUTE, step_count=9)
    # The night after: rest, steps, two minutes of rest with a lost message between them.
    for minute, steps in ((0, 0), (1, 5), (2, 0), (4, 0)):
        yield event("d3", T + DAY + minute * MINUTE, step_count=steps, body_temp_c="38.00")


def assignments():
    moved = T + DAY / 2 + timedelta(seconds=30)
    spans = [
        ("a1", "d1", "rex", T - 8.5 * DAY, None),
        ("a2", "d2", "mia", T - 1.5 * DAY, None),
        ("a3", "d3", "bo", T - 3 * DAY, None),
        ("a4", "d3", "luna", moved, None),
        ("a5", "d4", "max", T - 30 * DAY, None),
    ]
    for offset, (assignment_id, device_id, pet_id, start, end) in enumerate(spans):
        yield record(
            *("device_assignments", assignment_id, start),
            kafka_offset=offset,
            device_id=device_id,
            pet_id=pet_id,
            assigned_from=start,
            assigned_to=end,
        )


def visits():
    rows = [
        # visit, when, known, status, unplanned, weight, vaccine due
        ("v1", T - DAY + 10 * 60 * MINUTE, None, "completed", True, "20.400", date(2026, 7, 1)),
        ("v2", datetime(2025, 12, 1, 9), None, "completed", False, None, date(2026, 6, 1)),
        ("v3", T - 5 * DAY, None, "no_show", None, "30.000", None),
        ("v4", T - 400 * DAY, None, "completed", True, None, None),
        ("v5", T + 5 * DAY, T - 3 * DAY, "scheduled", None, None, None),
        # Over by T, reported after it.
        ("v6", T - 2 * DAY, T + 1.5 * DAY, "completed", True, "30.000", date(2027, 1, 1)),
    ]
    for offset, (visit_id, visit_ts, known, status, unplanned, weight, due) in enumerate(rows):
        yield record(
            *("clinic_visits", visit_id, min(visit_ts, known or visit_ts)),
            arrival_ts=known or visit_ts,
            kafka_offset=offset,
            pet_id="rex",
            visit_ts=visit_ts,
            status=status,
            is_unplanned=unplanned,
            weight_kg=Decimal(weight) if weight else None,
            next_vaccine_due=due,
        )


def world():
    pets = [
        record("pets", pet_id, T - 40 * DAY, kafka_offset=offset, owner_id="ann", dob=dob)
        for offset, (pet_id, dob) in enumerate(
            [("rex", date(2020, 6, 11)), ("mia", None), ("bo", None), ("luna", None), ("max", None)]
        )
    ]
    events = [*rex_before_t(), *rex_on_t(), *max_before_and_on_t(), *others()]
    for offset, row in enumerate(events):
        row["kafka_offset"] = offset
    return merged(
        [
            {"pets": pets},
            {"device_assignments": list(assignments())},
            {"clinic_visits": list(visits())},
            {"telemetry_events": events},
        ]
    )


@pytest.fixture(scope="module")
def warehouse(make_warehouse):
    built = make_warehouse(world())
    built.build(*FEATURES, variables=AS_OF, without=("unit_test", "test"))
    assert built.invoke(*TESTS_OF_ML, variables=AS_OF).success
    return built


@pytest.fixture(scope="module")
def features(warehouse):
    """(pet, day) -> feature -> (value, coverage)."""
    found = {}
    for row in warehouse.rows("select * from ml.computed_features"):
        pet_day = found.setdefault((row["pet_id"], row["event_date"]), {})
        pet_day[row["feature_name"]] = (row["value"], row["coverage"])
    return found


@pytest.fixture(scope="module")
def current_features(dbt_project):
    with (dbt_project.project / "seeds/ml/ml_feature_catalogue.csv").open() as file:
        return {row["feature_name"] for row in csv.DictReader(file) if row["status"] == "current"}


# Minutes of T: 780 observed, all with steps, licks and pulse; 300 of them at night.
OBSERVED = 780 / DAY_MINUTES
NIGHT = 300 / NIGHT_MINUTES
# Pulses: 297 of 60, 3 of 90, 60 of 120 and 420 of 80, in all 58,890 beats per minute; at rest (no
# steps) 297 of 60 and 420 of 80, in all 51,420 over 717 minutes.
REST_PULSE = 51420 / 717
WEEK_MINUTES = 7 * DAY_MINUTES
# A comparison is covered as its thinner side is. Here that is the past, of some events a day.

REX_ON_T = {
    # 3 * 6 at night and 60 * 20 at noon
    "steps_24h": (1218, OBSERVED),
    # 1000 of three minutes the day before are no day's steps
    "steps_delta_24h": (None, 3 / DAY_MINUTES),
    # T, T - 1, T - 2 with the late event, T - 3: 1218 + 1000 + 2300 + 1500; T - 7 is the eighth day
    "steps_mean_7d": (6018 / 4, 789 / WEEK_MINUTES),
    # three minutes on each of three days and one of T - 7
    "steps_delta_7d": (None, 10 / WEEK_MINUTES),
    "steps_cv_7d": (None, 789 / WEEK_MINUTES),
    # 3 at night, 60 at noon
    "active_minutes_24h": (63, OBSERVED),
    "steps_per_active_minute_24h": (1218 / 63, OBSERVED),
    "night_steps": (18, NIGHT),
    "night_steps_ratio_24h": (18 / 1218, OBSERVED),
    # 297 at night, 420 in the afternoon
    "rest_minutes_24h": (717, OBSERVED),
    "night_rest_minutes": (297, NIGHT),
    "night_rest_ratio": (297 / 300, NIGHT),
    # between steps at 00:50, 03:35 and 03:36: 00:00-00:49 (50), 00:51-03:34 (164), 03:37-04:59 (83)
    "night_longest_rest_minutes": (164, NIGHT),
    # rest that ends with steps at 00:50 and 03:35; there is none between 03:35 and 03:36
    "night_interruption_rate": (2 * 60 / 297, NIGHT),
    # three nights of two minutes
    "night_rest_ratio_delta_7d": (None, 6 / (7 * NIGHT_MINUTES)),
    # 10 * 3 + 12 at night, 36 at noon
    "licks_24h": (78, OBSERVED),
    "lick_rate_24h": (78 * 60 / 780, OBSERVED),
    "day_lick_rate": (36 * 60 / 480, 480 / 1080),
    "night_lick_rate": (42 * 60 / 300, NIGHT),
    "licking_minutes_24h": (11 + 36, OBSERVED),
    "lick_burst_minutes_24h": (1, OBSERVED),
    "licks_delta_7d": (None, 4 / WEEK_MINUTES),
    "pulse_mean_24h": (75.5, OBSERVED),
    "pulse_min_24h": (60, OBSERVED),
    "pulse_max_24h": (120, OBSERVED),
    # squares 297 * 3600 + 3 * 8100 + 60 * 14,400 + 420 * 6400 = 4,645,500;
    # (780 * 4,645,500 - 58,890^2) / (780 * 779)
    "pulse_sd_24h": (sqrt(155_457_900 / 607_620), OBSERVED),
    "pulse_delta_7d": (None, 9 / WEEK_MINUTES),
    "resting_pulse_24h": (REST_PULSE, 717 / DAY_MINUTES),
    "resting_pulse_delta_7d": (None, 3 / WEEK_MINUTES),
    # 30 minutes of 39.0, 30 of 39.6
    "body_temp_mean_24h": (39.3, 60 / DAY_MINUTES),
    "body_temp_max_24h": (39.6, 60 / DAY_MINUTES),
    "body_temp_delta_7d": (None, 3 / WEEK_MINUTES),
    "fever_minutes_24h": (30, 60 / DAY_MINUTES),
    # (297 * 20 + 3 * 30) / 300
    "respiration_mean_24h": (20.1, 300 / DAY_MINUTES),
    "respiration_delta_7d": (None, 3 / WEEK_MINUTES),
    "night_rest_respiration": (20, 297 / NIGHT_MINUTES),
    # the clinic's on T - 1; the one reported after T does not count
    "weight_latest_30d": (20.4, 2 / 30),
    # T - 3 and T - 1: nothing of the first 15 of the 30 days
    "weight_trend_30d": (None, 0),
    "battery_min_24h": (40.5, OBSERVED),
    # fell by 20 to T and by 5 to T - 2; rose to T - 1; T - 7 and T - 3 are not neighbours
    "battery_drain_7d": (12.5, 2 / 7),
    "worn_minutes_24h": (780, OBSERVED),
    "coverage_24h": (OBSERVED, OBSERVED),
    # 780 and three minutes on each of three days; the late event's minute was not known at its day's end
    "coverage_7d": (789 / WEEK_MINUTES, 789 / WEEK_MINUTES),
    # T - 4, T - 5 and T - 6
    "silent_days_7d": (3, 789 / WEEK_MINUTES),
    # from T - 1, 10:00 to the end of T
    "days_since_last_visit": (1 + 14 / 24, None),
    # v1 and v2; v4 is too long ago, v6 not known yet
    "visits_365d": (2, None),
    "unplanned_visits_365d": (1, None),
    "no_shows_365d": (1, None),
    # 11 June to 1 July
    "vaccine_due_in_days": (20, None),
    # 11 June 2020 to 11 June 2026, with the leap day of 2024
    "age_years": ((6 * 365 + 1) / 365.25, None),
    # from noon of 1 June to the end of 10 June
    "days_on_platform": (9.5, None),
}


# Max has four steps in every second minute of T, in every fourth before: 2880 and 1440 a day.
MAX_ON_T = {
    "steps_delta_24h": (1.0, 1),
    "steps_mean_7d": ((6 * 1440 + 2880) / 7, 1),
    "steps_delta_7d": (1.0, 1),
    # six days of 1440 and one of twice as much: variance 1440^2 * (7 * 10 - 8^2) / (7 * 6), mean 1440 * 8 / 7
    "steps_cv_7d": (sqrt(1 / 7) / (8 / 7), 1),
    "night_rest_ratio_delta_7d": (1 / 2 - 3 / 4, 1),
    "licks_delta_7d": (1.0, 1),
    # half of the minutes 90, half 120; a quarter of 120 and the others 80 before
    "pulse_delta_7d": (105 - 90, 1),
    # 720 of 1440 minutes at rest; 1080 of each day before
    "resting_pulse_delta_7d": (90 - 80, 1 / 2),
    "body_temp_delta_7d": (38.9 - 38.5, 1),
    "respiration_delta_7d": (24 - 20, 1),
    # 0.05 a day; two of 15 days in each half
    "weight_trend_30d": (1.5, 2 / 15),
}


def near(pair):
    return tuple(None if number is None else pytest.approx(number, rel=1e-9) for number in pair)


def test_every_feature_of_a_day_worked_out_by_hand(features, current_features):
    built = features["rex", T.date()]
    assert set(built) == current_features == set(REX_ON_T)
    wrong = {
        name: (built[name], expected) for name, expected in REX_ON_T.items() if built[name] != near(expected)
    }
    assert wrong == {}


def test_a_comparison_of_full_days_worked_out_by_hand(features):
    built = features["max", T.date()]
    assert {name: built[name] for name in MAX_ON_T} == {name: near(pair) for name, pair in MAX_ON_T.items()}


@pytest.mark.parametrize("day", [T - 7 * DAY, T + DAY], ids=["nine events before", "nine events now"])
def test_a_day_of_nine_events_is_not_compared(features, day):
    built = features["max", day.date()]
    assert built["steps_delta_24h"] == near((None, 9 / DAY_MINUTES))
    deltas = [name for name in built if "_delta_" in name]
    assert len(deltas) == 8
    assert {name: built[name][0] for name in deltas} == dict.fromkeys(deltas)


def test_every_comparison_states_a_least_coverage(dbt_project):
    with (dbt_project.project / "seeds/ml/ml_feature_catalogue.csv").open() as file:
        current = [row for row in csv.DictReader(file) if row["status"] == "current"]
    comparisons = [row for row in current if {"delta", "trend"} & set(row["feature_name"].split("_"))]
    assert len(comparisons) == 9
    assert [row["feature_name"] for row in comparisons if not row["min_coverage"]] == []


def values(pet_day):
    return {name: value for name, (value, _) in pet_day.items() if value is not None}


def test_a_day_without_data_is_null_with_its_coverage_and_never_zero(features):
    mia = features["mia", T.date()]
    # Only the day before, of a collar that has been worn for two days and a half: no steps, observed.
    assert values(mia) == {
        "steps_mean_7d": 0.0,
        "coverage_24h": 0.0,
        "coverage_7d": pytest.approx(1 / (7 * DAY_MINUTES)),
        "days_on_platform": 2.5,
    }
    assert mia["steps_24h"] == (None, 0.0)
    assert mia["steps_mean_7d"] == near((0.0, 1 / WEEK_MINUTES))
    # One minute of the seven days before, none of the day itself
    assert mia["steps_delta_7d"] == near((None, 0))
    assert mia["visits_365d"] == (None, None)


def test_a_silent_day_is_covered_by_nothing(features):
    """So that a mean over days counts those on which nothing came."""
    silent = [("rex", T + DAY), ("rex", T - 4 * DAY), ("rex", T - 5 * DAY), ("mia", T)]
    assert {features[pet_id, day.date()]["coverage_24h"] for pet_id, day in silent} == {(0.0, 0.0)}
    assert features["rex", (T - 6 * DAY).date()]["coverage_7d"] == near((2 / WEEK_MINUTES, 2 / WEEK_MINUTES))
    assert None not in {found["coverage_7d"][0] for found in features.values()}


def test_a_zero_is_one_that_was_observed(features):
    mia = values(features["mia", (T - DAY).date()])
    # One minute with a count of no steps and no licks. Nothing says whether the collar was worn.
    zeros = {name for name, value in mia.items() if value == 0}
    assert zeros == {
        *("steps_24h", "steps_mean_7d", "active_minutes_24h"),
        *("licks_24h", "lick_rate_24h", "licking_minutes_24h", "lick_burst_minutes_24h"),
    }
    assert mia["rest_minutes_24h"] == 1
    assert not mia.keys() & {"worn_minutes_24h", "fever_minutes_24h", "night_steps", "pulse_mean_24h"}


def test_too_little_coverage_is_null_where_the_definition_says_so(features):
    rex = features["rex", (T - DAY).date()]
    # Two of 360 minutes of the night: the count stands, the share is too thin.
    assert rex["night_rest_minutes"] == near((1.0, 2 / NIGHT_MINUTES))
    assert rex["night_rest_ratio"] == near((None, 2 / NIGHT_MINUTES))
    # Four of the 2520 minutes of the seven nights before: half is asked for.
    assert rex["night_rest_ratio_delta_7d"] == near((None, 4 / (7 * NIGHT_MINUTES)))


def test_a_collar_that_moves_counts_for_each_pet_to_the_event(features):
    bo, luna = features["bo", T.date()], features["luna", T.date()]
    # Bo: 3 at 05:59, 4 at 06:00, 7 at 11:59 and 1 at 12:00:10; one event the day before. The minute of
    # the move is his.
    assert bo["steps_24h"] == near((15.0, 4 / DAY_MINUTES))
    assert bo["steps_delta_24h"] == near((None, 1 / DAY_MINUTES))
    assert bo["night_steps"] == near((3.0, 1 / NIGHT_MINUTES))
    # Luna: 2 at 12:00:40 and 9 at 12:01; the collar's past is not hers.
    assert luna["steps_24h"] == near((11.0, 1 / DAY_MINUTES))
    assert luna["steps_mean_7d"] == near((11.0, 1 / WEEK_MINUTES))
    assert luna["steps_delta_24h"] == near((None, 0))
    # 11 h 59 min 30 s
    assert luna["days_on_platform"] == near(((12 * 3600 - 30) / 86400, None))


def test_a_lost_message_does_not_end_a_rest_and_the_last_rest_needs_no_end(warehouse):
    night = "night_minutes, night_rest_minutes, night_longest_rest_minutes, night_interruption_count"
    assert warehouse.rows(
        f"select {night} from ml.pet_day_measures where pet_id = 'luna' and event_date = '2026-06-11'"
    ) == [
        {
            "night_minutes": 4,
            "night_rest_minutes": 3,
            # 00:02 and 00:04, to the end of the night
            "night_longest_rest_minutes": 2,
            "night_interruption_count": 1,
        }
    ]


def test_late_events_count_from_the_midnight_at_which_they_were_known(features):
    # The event of T - 2 that came on T: not in its own day's row, nor in the next day's.
    assert features["rex", (T - 2 * DAY).date()]["steps_24h"][0] == 2000
    # What came after the end of T is in the windows of T + 1: 6218 + 1000 + 2300 + 1500.
    after = features["rex", (T + DAY).date()]
    assert after["steps_mean_7d"] == near((11018 / 4, 789 / WEEK_MINUTES))
    assert after["steps_24h"] == (None, 0.0)


def test_the_features_that_need_no_telemetry_of_the_day_are_those_ml_knows(features):
    silent = values(features["rex", (T + DAY).date()])
    # Rex's week and month are too thin for these two.
    thin = {"steps_cv_7d", "weight_trend_30d"}
    assert set(silent) == (RECORD_FEATURES | TRAILING_FEATURES) - thin


# --- Versions


@pytest.fixture(scope="module")
def changed_project(dbt_project, tmp_path_factory):
    """The project with another definition of steps_24h: twice the steps, as v2."""
    project = tmp_path_factory.mktemp("changed") / "dbt_project"
    shutil.copytree(dbt_project.project, project, ignore=shutil.ignore_patterns("target", "logs"))
    for path, old, new in (
        (
            "seeds/ml/ml_feature_catalogue.csv",
            "steps_24h,Steps of the day,steps,1,,v1,current,data-science\n",
            None,
        ),
        ("macros/features/definitions.sql", "'cast(steps as double)'", "'cast(2 * steps as double)'"),
    ):
        text = (project / path).read_text()
        assert text.count(old) == 1
        new = new or old.replace("current", "superseded") + old.replace("v1", "v2")
        (project / path).write_text(text.replace(old, new))
    return type(dbt_project)(project.parent, project)


def copy_of(warehouse, make_warehouse, project):
    copied = make_warehouse({}).with_project(project)
    shutil.copyfile(warehouse.path, copied.path)
    return copied


def steps_24h(warehouse, version):
    return warehouse.rows(
        "select pet_id, event_date, value, coverage from ml.computed_features"
        f" where feature_name = 'steps_24h' and feature_version = '{version}' order by all"
    )


CHANGED = ("--select", "ml_feature_catalogue", "ml_computed_features")


@pytest.fixture(scope="module")
def two_versions(make_warehouse, warehouse, changed_project):
    """The warehouse after a run of the changed project for which no day was dirty."""
    copied = copy_of(warehouse, make_warehouse, changed_project)
    copied.build(*CHANGED, variables={**AS_OF, "dirty_days": []}, without=("unit_test", "test"))
    assert copied.invoke(*TESTS_OF_ML, variables=AS_OF).success
    return copied


def test_a_new_version_of_every_day_stands_beside_the_old_one(warehouse, two_versions):
    before = steps_24h(warehouse, "v1")
    assert len(before) == 35
    assert steps_24h(two_versions, "v1") == before
    twice = [{**row, "value": None if row["value"] is None else 2 * row["value"]} for row in before]
    assert steps_24h(two_versions, "v2") == twice


def test_a_day_built_again_keeps_the_old_version_and_doubles_none(
    make_warehouse, warehouse, two_versions, changed_project
):
    again = copy_of(two_versions, make_warehouse, changed_project)
    again.build(*CHANGED, variables={**AS_OF, "dirty_days": ["2026-06-10"]}, without=("unit_test", "test"))
    with two_versions.connect() as con_a, again.connect() as con_b:
        assert (
            compare_tables(con_a, "ml.computed_features", con_b, "ml.computed_features", ["feature_id"]) == []
        )


def test_current_versions_equal_a_rebuild(make_warehouse, warehouse, two_versions, changed_project):
    rebuilt = copy_of(warehouse, make_warehouse, changed_project)
    rebuilt.build("--full-refresh", *CHANGED, variables=AS_OF, without=("unit_test", "test"))
    with two_versions.connect() as con_a, rebuilt.connect() as con_b:
        con_a.execute(
            "create or replace table current_features as select * from ml.computed_features"
            " where (feature_name, feature_version) in"
            " (select feature_name, feature_version from ml.feature_catalogue where status = 'current')"
        )
        assert compare_tables(con_a, "current_features", con_b, "ml.computed_features", ["feature_id"]) == []


def test_models_are_given_the_newest_version(two_versions):
    with two_versions.connect() as con:
        matrix = pivot_features(
            read_features(DuckDBWarehouse(con), end_ts=[T + DAY], names=["steps_24h", "licks_24h"])
        )
    assert matrix.versions == {"licks_24h": "v1", "steps_24h": "v2"}
    assert dict(zip(matrix.pet_ids, matrix.values[:, 1], strict=True))["rex"] == 2 * 1218


def test_erasure_takes_the_old_versions_of_its_pets_and_days(make_warehouse, two_versions, changed_project):
    erased = copy_of(two_versions, make_warehouse, changed_project)
    before = steps_24h(erased, "v1")
    kept = [row for row in before if row["pet_id"] != "rex" and row["event_date"] != T.date()]
    with erased.connect() as con:
        assert forget_superseded_features(DuckDBWarehouse(con), ["rex"], [T.date()]) == len(before) - len(
            kept
        )
    assert steps_24h(erased, "v1") == kept
    assert steps_24h(erased, "v2") == steps_24h(two_versions, "v2")
    assert {row["pet_id"] for row in kept} == {"bo", "luna", "max", "mia"}


def test_a_version_that_the_catalogue_does_not_know_is_found(warehouse):
    agree = ("--select", "features_agree_with_catalogue")
    assert warehouse.invoke("test", *agree).success
    with warehouse.connect() as con:
        con.execute("create table kept as from ml.computed_features")
        con.execute(
            "insert into ml.computed_features select * replace ('v0' as feature_version) from kept limit 1"
        )
    assert not warehouse.invoke("test", *agree).success
    with warehouse.connect() as con:
        con.execute(
            "create or replace table ml.computed_features as from kept where feature_name <> 'steps_24h'"
        )
    assert not warehouse.invoke("test", *agree).success
    with warehouse.connect() as con:
        con.execute("create or replace table ml.computed_features as from kept")
        con.execute("drop table kept")
