"""Daily partitions by event date, and from a run's partitions to the days it rebuilds.

A scheduled run carries one partition key, the day it runs for, and the tag
`petwellness/scope: dirty`: it rebuilds every day that new ranges touched,
in one run (one run per day took half an hour over 189 days). A run without the
tag, or of a backfill, rebuilds exactly its partitions; one without partitions, of
assets that are kept whole, rebuilds no day. The job of checks has the scope `all`:
it builds nothing, and its checks look at every day, as those of any run do that
builds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date

import dagster as dg

from petwellness_orchestration.named_days import PartitionsMissingError
from petwellness_orchestration.settings import OperationsSettings

SCOPE_TAG = "petwellness/scope"
DIRTY_SCOPE = "dirty"
DIRTY_TAGS = {SCOPE_TAG: DIRTY_SCOPE}
ALL_SCOPE = "all"
ALL_TAGS = {SCOPE_TAG: ALL_SCOPE}
# Dagster's own, on every run of a backfill.
BACKFILL_TAG = "dagster/backfill"


def event_days() -> dg.DailyPartitionsDefinition:
    """One partition per UTC event date, today included."""
    first = OperationsSettings().first_event_date
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_offset=1)


EVENT_DAYS = event_days()


def is_about_dirty_days(tags: Mapping[str, str]) -> bool:
    """Whether a run takes every day that loads touched. One of a backfill, of a job's too, takes its own."""
    return tags.get(SCOPE_TAG) == DIRTY_SCOPE and BACKFILL_TAG not in tags


def looks_at_every_day(run: dg.DagsterRun) -> bool:
    """Whether a run's checks look at every day, not at those that were rebuilt last: it says so, or it runs checks
    alone, so that nothing was rebuilt that they could be about."""
    is_checks_alone = bool(run.asset_check_selection) and not run.asset_selection
    return run.tags.get(SCOPE_TAG) == ALL_SCOPE or is_checks_alone


def days_to_build(
    tags: Mapping[str, str], keys: Sequence[str], dirty: Iterable[date], by_day: Collection[str] = ()
) -> tuple[date, ...]:
    """The event dates a run rebuilds: the dirty ones, or its own partitions.

    `by_day` are the selected assets that are kept by day. Raises PartitionsMissingError where there are some and
    no day is named.
    """
    if is_about_dirty_days(tags):
        return tuple(sorted(set(dirty)))
    if by_day and not keys:
        raise PartitionsMissingError(
            by_day, "run the job `refresh`, which rebuilds every day that loads touched"
        )
    return tuple(sorted(date.fromisoformat(key) for key in keys))
