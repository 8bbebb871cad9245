"""What is out of the ordinary: pure functions over the kept history, with reasons in their thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

# Volumes: a day against the days of its kind (weekday or weekend) before it.
COMPARED_DAYS = 14
MIN_COMPARED_DAYS = 5
# As far as the median of distances goes, a normal spread is 1.4826 of it; four of these happen
# by chance on one day of 16,000.
_SPREAD = 1.4826
SPREADS_ALLOWED = 4
# A fleet that is very regular has no spread; collars that go on holiday are no anomaly.
SHARE_ALLOWED = 0.3
# Below this many rows a day, a share says nothing.
ROWS_ALLOWED = 10

# Run times: against the last builds of about as many days.
COMPARED_RUNS = 10
MIN_COMPARED_RUNS = 5
TIMES_ALLOWED = 3.0
# What a busy machine adds to anything.
SECONDS_ALLOWED = 5.0

# Freshness: the last whole day has to be there, or at most this many days before it.
DAYS_LATE_ALLOWED = 1
# A table that has rows on fewer days than this share (duplicates, a tracker now and then) owes none.
MIN_SHARE_OF_DAYS = 0.8


@dataclass(frozen=True)
class VolumeVerdict:
    """Rows of a daily table on one day against what was usual: `usual` None means nothing to compare with."""

    table_name: str
    event_date: date
    row_count: int
    usual: float | None
    allowed: float | None

    @property
    def is_anomaly(self) -> bool:
        if self.usual is None or self.allowed is None:
            return False
        return abs(self.row_count - self.usual) > self.allowed

    def __str__(self) -> str:
        return f"{self.table_name} {self.event_date}: {self.row_count} rows, usually {self.usual:g}"


def volume_verdicts(volumes: Mapping[str, Mapping[date, int]], days: Iterable[date]) -> list[VolumeVerdict]:
    """Every daily table on each of `days`. A day without a record has zero rows, from the table's first day on."""
    return [
        _volume_verdict(table, by_day, day)
        for table, by_day in sorted(volumes.items())
        for day in sorted(days)
        if by_day and day >= min(by_day)
    ]


def _volume_verdict(table: str, by_day: Mapping[date, int], day: date) -> VolumeVerdict:
    first = min(by_day)
    earlier: list[int] = []
    other = day - timedelta(days=1)
    while other >= first and len(earlier) < COMPARED_DAYS:
        if _is_weekend(other) == _is_weekend(day):
            earlier.append(by_day.get(other, 0))
        other -= timedelta(days=1)
    rows = by_day.get(day, 0)
    if len(earlier) < MIN_COMPARED_DAYS or median(earlier) == 0:
        return VolumeVerdict(table, day, rows, None, None)
    usual = float(median(earlier))
    spread = _SPREAD * median(abs(count - usual) for count in earlier)
    return VolumeVerdict(
        table, day, rows, usual, max(SPREADS_ALLOWED * spread, SHARE_ALLOWED * usual, ROWS_ALLOWED)
    )


def _is_weekend(day: date) -> bool:
    return day.isoweekday() >= 6


@dataclass(frozen=True)
class TimeVerdict:
    """Seconds that a model took against what was usual for about as many days; `usual_s` None: too few builds."""

    table_name: str
    duration_s: float
    usual_s: float | None

    @property
    def is_slow(self) -> bool:
        return (
            self.usual_s is not None
            and self.duration_s > TIMES_ALLOWED * self.usual_s
            and self.duration_s > self.usual_s + SECONDS_ALLOWED
        )

    def __str__(self) -> str:
        return f"{self.table_name}: {self.duration_s:.1f} s, usually {self.usual_s:.1f} s"


def time_verdict(table_name: str, duration_s: float, earlier: Sequence[float]) -> TimeVerdict:
    """One model; `earlier` are its times in comparable builds, the newest first."""
    compared = earlier[:COMPARED_RUNS]
    usual = float(median(compared)) if len(compared) >= MIN_COMPARED_RUNS else None
    return TimeVerdict(table_name, duration_s, usual)


@dataclass(frozen=True)
class FreshnessVerdict:
    """The newest day of a daily table and how many days it is behind the last whole day; `is_judged` False for a
    table that does not have rows on most days."""

    table_name: str
    newest: date
    days_late: int
    is_judged: bool

    @property
    def is_stale(self) -> bool:
        return self.is_judged and self.days_late > DAYS_LATE_ALLOWED

    def __str__(self) -> str:
        return f"{self.table_name}: newest day {self.newest}, {self.days_late} days late"


def freshness_verdicts(
    volumes: Mapping[str, Mapping[date, int]], last_whole_day: date
) -> list[FreshnessVerdict]:
    """Every daily table that ever had rows."""
    verdicts = []
    for table, by_day in sorted(volumes.items()):
        filled = sorted(day for day, rows in by_day.items() if rows)
        if not filled:
            continue
        newest = filled[-1]
        span = [newest - timedelta(days=back) for back in range(COMPARED_DAYS)]
        span = [day for day in span if day >= filled[0]]
        share = sum(bool(by_day.get(day)) for day in span) / len(span)
        verdicts.append(
            FreshnessVerdict(
                table, newest, max(0, (last_whole_day - newest).days), share >= MIN_SHARE_OF_DAYS
            )
        )
    return verdicts
