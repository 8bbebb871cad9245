"""Daily partitions by arrival day: the UTC date of a range's claim, which says nothing of event dates."""

from __future__ import annotations

import dagster as dg

from petwellness_orchestration.settings import OperationsSettings


def arrival_days() -> dg.DailyPartitionsDefinition:
    """One partition per UTC day on which ranges were claimed, today included."""
    first = OperationsSettings().first_arrival_date
    return dg.DailyPartitionsDefinition(start_date=first.isoformat(), end_offset=1)


ARRIVAL_DAYS = arrival_days()
