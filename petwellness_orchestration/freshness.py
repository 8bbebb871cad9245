"""How old each asset may become: one map, applied to the whole graph."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

import dagster as dg

from petwellness_orchestration.settings import OperationsSettings

# The nightly run has to be through by 8 AM local time; it may start up to five hours earlier.
READY_BY_CRON = "0 8 * * *"
NIGHTLY_WINDOW = timedelta(hours=5)

# By group: groups of the nightly run share its deadline, what lies in the lake has to keep up within the day.
NIGHTLY_GROUPS = frozenset({"raw", "stg", "cur", "anl", "ml", "published", "ops"})
DAILY_GROUPS = frozenset({"landing", "cold", "account"})
DAILY_WINDOW = timedelta(hours=25)


def policy_for(group: str | None) -> dg.FreshnessPolicy | None:
    """The freshness policy of a group; None for sources, which others keep."""
    if group in NIGHTLY_GROUPS:
        return dg.FreshnessPolicy.cron(
            deadline_cron=READY_BY_CRON,
            lower_bound_delta=NIGHTLY_WINDOW,
            timezone=OperationsSettings().timezone,
        )
    if group in DAILY_GROUPS:
        return dg.FreshnessPolicy.time_window(fail_window=DAILY_WINDOW)
    return None


def apply_freshness(defs: dg.Definitions) -> dg.Definitions:
    """Give every asset the policy of its group."""
    # Once a group: Dagster steps through a thousand ticks of a cron expression to see whether its window fits.
    policy_of = cache(policy_for)
    return defs.map_asset_specs(
        func=lambda spec: (
            spec.replace_attributes(freshness_policy=policy)
            if (policy := policy_of(spec.group_name)) is not None
            else spec
        )
    )
