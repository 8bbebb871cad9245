"""`petwellness catalogue`, `compact` and `clean`: upkeep of the lake's files.

What is done is in `lake`; runs are recorded like those of schedules.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date

from petwellness_orchestration import compacting
from petwellness_orchestration.cli.console import mebibytes, say, thousands
from petwellness_orchestration.cli.runs import COMPACT, ROLL_UP, run_job
from petwellness_orchestration.cli.steps import finish
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import load_settings


def show_catalogue() -> int:
    """Roll up closed hours, then a line for each feed and one for the compacted days."""
    from lake.landing import Manifest, list_manifests

    settings = load_settings()
    code = finish(run_job(settings, ROLL_UP))
    if code:
        return code
    store = open_lake(settings)
    by_feed: dict[str, list[Manifest]] = defaultdict(list)
    for manifest in list_manifests(store):
        by_feed[manifest.feed].append(manifest)
    for feed, found in sorted(by_feed.items()):
        days = sorted({m.ingested_at.date() for m in found})
        print(
            f"{feed:20} {thousands(len(found)):>9} files {thousands(sum(m.rows for m in found)):>13} rows"
            f" {mebibytes(sum(m.bytes for m in found)):>14}  arrived {days[0]} to {days[-1]}"
        )
    return 0


def compact_days(day: date | None, even_if_open: bool, dry_run: bool) -> int:
    """Compact a day, or every closed one that waits; 1 when one of them failed."""
    from lake.landing import utc_now

    settings = load_settings()
    found = compacting.waiting(settings, utc_now(), since=date.min)
    for one in found:
        if day in (None, one.day):
            say(
                f"arrival day {one.day} waits: {one.reason} ({thousands(one.compacted_ranges)} of"
                f" {thousands(one.ranges)} ranges are compacted)"
            )
    days = [one.day for one in found] if day is None else [day]
    if dry_run:
        say("nothing was changed")
        return 0
    if not days:
        say("no closed arrival day waits")
        return 0
    tags = {compacting.OPEN_TAG: "true"} if even_if_open else {}
    codes = [finish(run_job(settings, COMPACT, partition_key=one.isoformat(), tags=tags)) for one in days]
    return max(codes)


def clean_lake(dry_run: bool) -> int:
    """Remove what nothing names any more, or only say what."""

    settings = load_settings()
    store = open_lake(settings)
    removed = compacting.clean(settings, store, say, dry_run)
    size = mebibytes(sum(item.bytes for item in removed))
    say(f"{'would remove' if dry_run else 'removed'} {thousands(len(removed))} files, {size}")
    return 0
