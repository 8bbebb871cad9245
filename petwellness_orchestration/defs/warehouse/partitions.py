"""Daily partitions by event date, and from a run's partitions to the days it rebuilds.

A scheduled run carries one partition key, the day it runs for, and the tag
`petwellness/scope: dirty`: it rebuilds every day that new ranges touched,
in one run (one run per day took half an hour over 189 days). A run without the
tag is a backfill and rebuilds exactly its partitions. The job of checks has the
scope `all`: it builds nothing, and its checks look at every day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import dagster as dg

from petwellness_orchestration.settings import OperationsSettings

SCOPE_TAG = "petwellness/scope"
DIRTY_SCOPE = "dirty"
DIRTY_TAGS = {SCOPE_TAG: DIRTY_SCOPE}
ALL_SCOPE = "all"
ALL_TAGS = {SCOPE_TAG: ALL_SCOPE}


def event_days() -> dg.DailyPartitionsDefinition:
    """One partition per UTC event date, today included."""
    first = OperationsSettings().first_event_date
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_offset=1)


EVENT_DAYS = event_days()


def is_about_every_day(tags: Mapping[str, str]) -> bool:
    """Whether a run's checks look at every day, not at those that were rebuilt last."""
    return tags.get(SCOPE_TAG) == ALL_SCOPE


def days_to_build(
    tags: Mapping[str, str], partition_keys: Sequence[str], dirty: Iterable[date]
) -> tuple[date, ...]:
    """The event dates a run rebuilds: the dirty ones, or a backfill's own partitions."""
    if tags.get(SCOPE_TAG) == DIRTY_SCOPE:
        return tuple(sorted(set(dirty)))
    return tuple(sorted(date.fromisoformat(key) for key in partition_keys))
