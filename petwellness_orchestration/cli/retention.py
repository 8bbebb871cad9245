"""`petwellness retain` and `restore`: days of tables to cold storage and back.

What is done is in `governance.archive`; moves are recorded as runs, like those of the schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING

from petwellness_orchestration import retaining
from petwellness_orchestration.cli.console import mebibytes, say, thousands
from petwellness_orchestration.cli.runs import RETAIN, run_job
from petwellness_orchestration.cli.steps import finish
from petwellness_orchestration.lake_access import reach_lake
from petwellness_orchestration.settings import load_settings

if TYPE_CHECKING:
    from governance.archive.archive import DueDay
    from governance.archive.policy import TieredTable


class UnknownTableError(ValueError):
    """No table of that name has a retention limit; the message lists those that have."""


def retain_days(dry_run: bool) -> int:
    """Move what is due, or say what is; 1 when the run failed."""
    settings = load_settings()
    due, waiting = retaining.plan(settings, reach_lake(settings))
    _print_plan(due)
    if waiting:
        say(f"nothing can move yet: {waiting}")
    if dry_run:
        say("nothing was changed; leave out --dry-run to do it")
        return 0
    outcome = run_job(settings, RETAIN)
    for name, found in sorted(outcome.metadata.items()):
        say(f"{name}: {thousands(found['moved_days'])} days, {thousands(found['moved_rows'])} rows moved")
    return finish(outcome)


def restore_day(day: date, table: str | None, keep_days: int) -> int:
    """Bring a day back into its tables and keep it there."""
    settings = load_settings()
    tables = _chosen(table)
    for name, rows in retaining.restore(settings, reach_lake(settings), tables, day, keep_days).items():
        say(
            f"{name} {day}: "
            + (f"{thousands(rows)} rows are back" if rows else "is in the warehouse already")
            + f"; it stays for {keep_days} days of the data's present, or until `restore {day} --release`"
        )
    say("`petwellness publish` shows it to readers")
    return 0


def release_day(day: date, table: str | None) -> int:
    """Let the next run move a day that was restored."""
    released = retaining.release(load_settings(), _chosen(table), day)
    for name in released:
        say(f"{name} {day}: the next `petwellness retain` moves it when it is past the limit")
    if not released:
        say(f"{day} was not kept on purpose; nothing was changed")
    return 0


def _chosen(table: str | None) -> list[TieredTable]:
    tables = retaining.limited_tables()
    chosen = [one for one in tables if table in (None, one.full_name)]
    if not chosen:
        names = ", ".join(one.full_name for one in tables)
        raise UnknownTableError(f"no table '{table}' has a retention limit; choose one of: {names}")
    return chosen


def _print_plan(due: Sequence[DueDay]) -> None:
    if not due:
        print("no day is past its table's limit")
        return
    print(
        f"{'table':<32} {'tier':<5} {'limit':>6} {'days':>6} {'first':<10} {'last':<10} {'rows':>13} {'size':>13}"
    )
    for table, days in groupby(due, key=lambda one: one.table):
        found = [*days]
        print(
            f"{table.full_name:<32} {table.tier:<5} {table.days:>6} {thousands(len(found)):>6}"
            f" {found[0].day} {found[-1].day} {thousands(sum(one.rows for one in found)):>13}"
            f" {mebibytes(sum(one.bytes for one in found)):>13}"
        )
