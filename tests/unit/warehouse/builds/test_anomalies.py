"""What is out of the ordinary, on days whose median and spread are worked out by hand."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from warehouse.builds.anomalies import freshness_verdicts, time_verdict, volume_verdicts

MONDAY = date(2026, 6, 1)


def days(counts, first=MONDAY):
    """Row counts of consecutive days, the first a Monday."""
    return {first + timedelta(days=number): count for number, count in enumerate(counts)}


# Ten weekdays (and two quiet weekends): 1000 1010 990 1000 1020 / 980 1000 1000 1030 970.
TWO_WEEKS = [1000, 1010, 990, 1000, 1020, 10, 20, 980, 1000, 1000, 1030, 970, 30, 40]
THIRD_MONDAY = date(2026, 6, 15)


def verdict(count, day=THIRD_MONDAY, by_day=None):
    (found,) = volume_verdicts({"anl.t": {**days(by_day or TWO_WEEKS), day: count}}, [day])
    return found


def test_a_weekday_is_held_against_the_weekdays_before_it():
    # Sorted: 970 980 990 1000 1000 1000 1000 1010 1020 1030: median 1000. Distances: 0 0 0 0 10 10 20 20 30 30:
    # median 10, so 4 * 1.4826 * 10 = 59.3; 30 % of 1000 is more: 300.
    found = verdict(1000)
    assert (found.usual, found.allowed) == (1000, 300)
    assert not verdict(700).is_anomaly
    assert verdict(699).is_anomaly
    assert not verdict(1300).is_anomaly
    assert verdict(1301).is_anomaly
    assert str(verdict(0)) == "anl.t 2026-06-15: 0 rows, usually 1000"


def test_where_days_differ_much_the_spread_decides():
    # Weekdays 100 300 100 300 100 300: median 200, distances all 100: 4 * 1.4826 * 100 = 593.04.
    found = verdict(790, day=date(2026, 6, 9), by_day=[100, 300, 100, 300, 100, 5, 5, 300])
    assert found.usual == 200
    assert round(found.allowed, 2) == 593.04
    assert not found.is_anomaly
    assert verdict(794, day=date(2026, 6, 9), by_day=[100, 300, 100, 300, 100, 5, 5, 300]).is_anomaly


def test_a_day_that_brought_nothing_is_an_anomaly_and_a_first_week_is_none():
    by_day = days(TWO_WEEKS)
    (silent,) = volume_verdicts({"anl.t": by_day}, [THIRD_MONDAY])
    assert silent.row_count == 0
    assert silent.is_anomaly
    # Four weekdays are too few to compare with, and so are two weekend days.
    (friday,) = volume_verdicts({"anl.t": by_day}, [date(2026, 6, 5)])
    (sunday,) = volume_verdicts({"anl.t": by_day}, [date(2026, 6, 14)])
    assert (friday.usual, sunday.usual) == (None, None)
    assert not friday.is_anomaly
    # Days before a table's first are nobody's.
    assert volume_verdicts({"anl.t": by_day, "anl.empty": {}}, [date(2026, 5, 31)]) == []


def test_a_table_that_is_usually_empty_is_not_judged():
    assert verdict(500, by_day=[0] * 14).usual is None


@given(st.lists(st.integers(0, 10**9), min_size=14, max_size=60))
def test_the_same_count_every_day_is_never_an_anomaly_and_order_does_not_matter(counts):
    day = MONDAY + timedelta(days=len(counts))
    by_day = days(counts)
    shuffled = dict(sorted(by_day.items(), key=lambda item: -item[0].toordinal()))
    assert volume_verdicts({"t": by_day}, [day]) == volume_verdicts({"t": shuffled}, [day])
    steady = dict.fromkeys([*by_day, day], counts[0])
    assert not any(one.is_anomaly for one in volume_verdicts({"t": steady}, [day]))


def test_a_model_is_slow_when_it_takes_three_times_its_usual_time_and_five_seconds_more():
    usual = [4.0, 6.0, 5.0, 5.0, 5.5]  # median 5
    assert time_verdict("anl.t", 15.1, usual).is_slow
    assert not time_verdict("anl.t", 14.9, usual).is_slow
    # Three times of nearly nothing is still nothing.
    assert not time_verdict("anl.t", 4.9, [0.1] * 5).is_slow
    assert time_verdict("anl.t", 5.2, [0.1] * 5).is_slow
    assert time_verdict("anl.t", 99.0, usual[:4]).usual_s is None
    # Only the last ten builds count: a model that has been slow for long is no news.
    assert not time_verdict("anl.t", 20.0, [20.0] * 10 + [1.0] * 30).is_slow
    assert str(time_verdict("anl.t", 15.1, usual)) == "anl.t: 15.1 s, usually 5.0 s"


def test_a_daily_table_is_stale_two_days_behind_the_last_whole_day():
    full = days([5] * 10)  # to 10 June
    assert [one.is_stale for one in freshness_verdicts({"t": full}, date(2026, 6, 10))] == [False]
    assert [one.is_stale for one in freshness_verdicts({"t": full}, date(2026, 6, 11))] == [False]
    (late,) = freshness_verdicts({"t": full}, date(2026, 6, 12))
    assert (late.is_stale, late.days_late, late.newest) == (True, 2, date(2026, 6, 10))
    # Zero rows are no rows, and today's are no lateness.
    assert freshness_verdicts({"t": {**full, date(2026, 6, 11): 0}}, date(2026, 6, 12)) == [late]
    assert [one.days_late for one in freshness_verdicts({"t": full}, date(2026, 6, 9))] == [0]


def test_a_table_with_rows_now_and_then_owes_none():
    # Rows on 7 of the last 14 days.
    (sparse,) = freshness_verdicts({"t": days([1, 0] * 10 + [1])}, date(2026, 7, 31))
    assert not sparse.is_judged
    assert not sparse.is_stale
    assert freshness_verdicts({"t": days([0] * 5)}, date(2026, 7, 31)) == []
