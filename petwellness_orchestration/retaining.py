"""Retention tiers under the current settings: which tables have a limit, what is due, moving and restoring.

How it is done is `governance.archive`; here it meets the dbt manifest, the state folder
and the lake.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from governance.archive.policy import TieredTable
from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    import duckdb

    from governance.archive.archive import DueDay, RetainReport
    from lake.store import ObjectStore

RETENTION_META = "retention"
TIERS = ("hot", "warm")

Say = Callable[[str], None]


class RetentionPolicyError(ValueError):
    """A model's retention cannot be kept as stated; the message names the model and what to change."""


def tiered_tables(manifest: Mapping[str, Any]) -> list[TieredTable]:
    """The tables whose models state a limit (`meta: {retention: {tier, days}}`), in name order.

    Raises RetentionPolicyError for a limit that is not well formed, on a table that is
    not kept by day, or on one that another model could read a moved day of.
    """
    nodes = {name: props for name, props in manifest["nodes"].items() if props["resource_type"] == "model"}
    limited = {name: props for name, props in nodes.items() if props["config"]["meta"].get(RETENTION_META)}
    for props in nodes.values():
        for parent in props["depends_on"]["nodes"]:
            if parent in limited:
                _check_reader(props, limited[parent])
    return sorted((_tiered(props) for props in limited.values()), key=lambda table: table.full_name)


def limited_tables() -> list[TieredTable]:
    """The project's own tables with a limit. Raises RetentionPolicyError."""
    from petwellness_orchestration.defs.warehouse.manifest import read_manifest

    return tiered_tables(read_manifest())


def plan(settings: PlatformSettings, store: ObjectStore) -> tuple[list[DueDay], str]:
    """Days that are due, and why none of them may move now (empty when they may)."""
    from governance.archive.archive import due_days, why_waiting
    from warehouse.duckdb.raw import data_time, open_warehouse

    with open_warehouse(settings.warehouse_path, store) as con:
        return due_days(con, limited_tables(), data_time(con)), why_waiting(con, store)


def retain(
    con: duckdb.DuckDBPyConnection,
    settings: PlatformSettings,
    store: ObjectStore,
    tables: Collection[TieredTable],
    only: Iterable[date] | None,
    say: Say,
) -> RetainReport:
    """Move the days that are due (of `only`, where given) to cold storage."""
    from governance.archive import archive
    from lake.landing import utc_now
    from warehouse.duckdb.raw import data_time

    return archive.retain(
        con,
        store,
        [*tables],
        data_time(con),
        utc_now(),
        settings.state.scratch_dir,
        only,
        say,
    )


def restore(
    settings: PlatformSettings, store: ObjectStore, tables: Iterable[TieredTable], day: date, keep_days: int
) -> dict[str, int]:
    """Bring a day of some tables back and keep it for so many days of the data's present; rows by table.

    A table without rows of the day is left out, where another has some. Raises RestoreError and
    TierProofError; tables before the one that cannot be restored stay restored.
    """
    from governance.archive.restore import RestoreError, UnknownDayError, restore_day
    from warehouse.duckdb.raw import data_time, open_warehouse

    with open_warehouse(settings.warehouse_path, store) as con:
        present = data_time(con)
        if present is None:
            raise RestoreError("the warehouse is empty; `petwellness load` and `petwellness build` fill it")
        until = present.date() + timedelta(days=keep_days)
        restored: dict[str, int] = {}
        unknown: list[UnknownDayError] = []
        for table in tables:
            try:
                restored[table.full_name] = restore_day(
                    con, store, table, day, until, settings.state.scratch_dir
                )
            except UnknownDayError as error:
                unknown.append(error)
    if not restored:
        raise unknown[0]
    return restored


def release(settings: PlatformSettings, tables: Iterable[TieredTable], day: date) -> list[str]:
    """Let the next run move a day that was kept on purpose; names of the tables in which it was."""
    from governance.archive.restore import release_day
    from warehouse.duckdb.raw import open_warehouse

    with open_warehouse(settings.warehouse_path) as con:
        return [table.full_name for table in tables if release_day(con, table, day)]


def cold_problems(settings: PlatformSettings, store: ObjectStore) -> dict[str, list[str]]:
    """By table: days that are in cold storage only and whose files are not there as stated."""
    from governance.archive.archive import find_problems
    from warehouse.duckdb.raw import open_warehouse

    with open_warehouse(settings.warehouse_path, store) as con:
        return find_problems(con, store)


def withdraw_outdated(settings: PlatformSettings, store: ObjectStore, say: Say, dry_run: bool) -> int:
    """Remove files of cold storage of days that have come back with other rows; number of files.

    Does nothing while something waits to be built: what has come back is not known yet.
    """
    from governance.archive import archive
    from governance.archive.cold import load_cold_days, unnamed_files
    from lake.landing import utc_now
    from warehouse.duckdb.raw import open_warehouse

    in_force = load_cold_days(store)
    if not in_force or not settings.warehouse_path.exists():
        return 0
    with open_warehouse(settings.warehouse_path, store) as con:
        if waiting := archive.why_waiting(con, store):
            say(f"cold storage is left as it is: {waiting}")
            return 0
        tables = limited_tables()
        if dry_run:
            outdated = archive.outdated_days(con, tables, in_force)
            return len(unnamed_files(store, in_force.values())) + sum(len(one.files) for one in outdated)
        archive.withdraw_outdated(con, store, tables, in_force, utc_now())
        return archive.remove_unnamed(store, in_force.values())


def report_metadata(report: RetainReport, table: TieredTable) -> dict[str, Any]:
    """One table's figures of a run as plain values."""
    days = report.days.get(table.full_name, [])
    return {
        "tier": table.tier,
        "limit_days": table.days,
        "moved_days": len(days),
        "moved_rows": report.rows.get(table.full_name, 0),
        "first_day": days[0].isoformat() if days else "none",
        "last_day": days[-1].isoformat() if days else "none",
        **({"waiting": report.waiting} if report.waiting else {}),
    }


def _tiered(props: Mapping[str, Any]) -> TieredTable:
    stated = props["config"]["meta"][RETENTION_META]
    days, tier = stated.get("days"), stated.get("tier")
    if not isinstance(days, int) or days < 1 or tier not in TIERS or set(stated) != {"days", "tier"}:
        raise RetentionPolicyError(
            f"model {props['name']}: retention {stated} is not understood; give {{tier: {' or '.join(TIERS)},"
            " days: a number of days}}"
        )
    if "daily" not in props["tags"]:
        raise RetentionPolicyError(
            f"model {props['name']} is not kept by day, so no day of it can move: tag it daily or take its"
            " retention away"
        )
    return TieredTable(
        schema=props["schema"],
        name=props["alias"],
        tier=tier,
        days=days,
        order=tuple(_list(props["config"].get("cluster_by"))),
        model=props["checksum"]["checksum"],
        day_column=props["config"]["meta"].get("day_column", "event_date"),
    )


def _check_reader(reader: Mapping[str, Any], limited: Mapping[str, Any]) -> None:
    """A reader is built day by day; then the days it needs come back first (macros/days/tiers.sql)."""
    window_days = reader["config"]["meta"].get("window_days", 1)
    if "daily" not in reader["tags"]:
        problem = "is built from all days"
    elif window_days != 1:
        problem = f"reads {window_days} days for one"
    else:
        return
    raise RetentionPolicyError(
        f"model {reader['name']} {problem}, and {limited['name']}, which it reads, has a retention limit: it"
        " would miss what is in cold storage. Read a table without a limit, day by day"
    )


def _list(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else value or []
