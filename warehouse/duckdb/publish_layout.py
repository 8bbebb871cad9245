"""Which days of a published table share files, from their numbers of rows: no I/O.

A file of one day is cheap to write again, files of many days are cheap to read.
How they are written is `publish`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

# The part of a table that is not kept by day, and of one without rows. Every other part is a day in ISO format.
WHOLE = "all"

# Rows that are sorted at once, and of a file at most; a month of no more is one file. A day of 7.2 million took 16.7 s,
# as long as unsorted; four million at once in 400 MB took 29 s, all 29 million of a day did not end in six minutes.
SORTED_ROWS = 2_000_000

# A week of a larger month becomes files of all its days, each of some pets, once so many later days are there: late
# events have come by then. With more rows than that it stays as it is: each file's rows are looked for in all of them.
SETTLED_DAYS = 7
MERGED_ROWS = 20_000_000

Group = tuple[str, ...]
"""Parts that share files, in order."""


def layout(rows: Mapping[str, int], is_sorted: bool) -> list[Group]:
    """How the parts of a table (each with its rows) are kept: a month's days together where they have few rows, else
    those of a settled week where it has not too many and has an order, else each day by itself."""
    groups: list[Group] = []
    ordered = sorted(rows)
    for _, month in groupby(ordered, key=_month):
        days = tuple(month)
        if sum(rows[day] for day in days) <= SORTED_ROWS:
            groups.append(days)
            continue
        for last_day, week in groupby(days, key=_last_day_of_week):
            of_week = tuple(week)
            is_settled = len(ordered) - bisect_right(ordered, last_day) >= SETTLED_DAYS
            if is_sorted and is_settled and sum(rows[day] for day in of_week) <= MERGED_ROWS:
                groups.append(of_week)
            else:
                groups += [(day,) for day in of_week]
    return groups


def to_write(
    groups: Sequence[Group], files: Mapping[str, Sequence[str]], changed: Collection[str]
) -> list[Group]:
    """The groups that have to be written: something of them changed, or their files are not theirs alone.

    `files` are those of each part as it was published, parts that are gone included.
    """
    parts_of: dict[str, set[str]] = defaultdict(set)
    for part, its_files in files.items():
        for file in its_files:
            parts_of[file].add(part)
    return [
        group
        for group in groups
        if any(part in changed or part not in files for part in group)
        or any(parts_of[file] != set(group) for part in group for file in files[part])
    ]


def name_of(group: Group) -> str:
    """A day, or the first and the last."""
    return group[0] if len(group) == 1 else f"{group[0]}_to_{group[-1]}"


def _month(part: str) -> str:
    """Of a day; `all` stays what it is."""
    return part[:7]


def _last_day_of_week(day: str) -> str:
    """Weeks are those of a month: it has four, the last of seven to ten days."""
    week = min((int(day[8:10]) - 1) // 7, 3) if day != WHOLE else 3
    return f"{_month(day)}-{7 * (week + 1):02}" if week < 3 else f"{_month(day)}-31"
