"""The proof that nothing is left of what the redaction ledger covers: lake, warehouse, published copy.

Looks at what is physically there (every object, table and file, in force or not)
and trusts no pointer, mark or audit. What is found is reported, never removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from contracts.records import RECORD_KEYS
from contracts.registry import TELEMETRY_FEED
from lake import layout
from lake.landed import received_within, scan
from lake.redactions import Redactions, from_epoch_us
from lake.replacements import Replacements
from lake.sql_text import literal

if TYPE_CHECKING:
    import duckdb

    from lake.landing import Manifest
    from lake.store import ObjectStore

SCHEMAS = ("raw", "stg", "cur", "anl", "ml")


@dataclass(frozen=True)
class Leftover:
    """Rows in one place that a redaction covers. `place` is an object's key, a table or a published file;
    `kind` its prefix, schema or `published`; it names no person, pet or device."""

    kind: str
    place: str
    rows: int
    detail: str = "redacted rows"

    def __str__(self) -> str:
        return f"{self.place}: {self.rows} {self.detail}"


def due(redactions: Redactions, now: datetime) -> Redactions:
    """The entries whose deadline has passed."""
    return Redactions(tuple(entry for entry in redactions if entry.deadline <= now))


def lake_leftovers(
    store: ObjectStore,
    manifests: Iterable[Manifest],
    redactions: Redactions,
    replacements: Replacements,
    now: datetime | None = None,
) -> list[Leftover]:
    """Objects that hold rows of these entries, whether readers would open them or not.

    With `now`, what landed so recently that its own time is not up is left out:
    a source may state an erased household again long after the deadline.
    """
    if not redactions:
        return []
    allowed = max((entry.allowed for entry in redactions), default=timedelta(0))
    by_range = {m.range_key: m for m in manifests}
    of_original = {m.source_file: m for m in by_range.values()}
    stretches = [(low, high) for _, low, high in redactions.arrivals]

    def manifest_of(key: str) -> Manifest | None:
        if key.startswith(layout.REDACTED):
            return by_range.get(layout.redacted_of(key)[0])
        return of_original.get(key)

    by_feed: dict[str, list[str]] = {}
    for prefix in (layout.LANDING, layout.REDACTED, layout.COMPACTED):
        for info in store.list(prefix):
            feed = info.key.split("/")[1]
            manifest = manifest_of(info.key)
            if not redactions.covers_feed(feed):
                continue
            if manifest is not None:
                if now is not None and manifest.ingested_at + allowed > now:
                    continue
                if feed == TELEMETRY_FEED and not received_within(manifest, stretches):
                    continue
            by_feed.setdefault(feed, []).append(info.key)
    found = []
    for feed, keys in by_feed.items():
        from lake.landing import feed_schema

        columns = redactions.columns(feed, feed_schema(feed).names)
        for key, table in scan(store, keys, columns, redactions.filter(feed)):
            rows = int(redactions.rows(feed, table).sum())
            if rows:
                found.append(Leftover(key.split("/")[0], key, rows))
    return found + _reject_leftovers(store, redactions)


def _reject_leftovers(store: ObjectStore, redactions: Redactions) -> list[Leftover]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from governance.erasure.purge import mentions

    if not redactions.arrivals:
        return []
    found = []
    for info in store.list(layout.REJECTS):
        rows = int(mentions(redactions, pq.read_table(pa.BufferReader(store.get(info.key)))).sum())
        if rows:
            found.append(Leftover("_rejects", info.key, rows, "payloads that name a redacted device"))
    return found


def warehouse_leftovers(con: duckdb.DuckDBPyConnection, redactions: Redactions) -> list[Leftover]:
    """Tables that hold rows of these entries, and daily sums that count events which are gone."""
    if not redactions:
        return []
    register_covered(con, redactions)
    found = []
    columns_of: dict[str, list[str]] = {}
    for schema, table, column in con.execute(
        "select table_schema, table_name, column_name from information_schema.columns"
        " where table_catalog = current_database() and table_schema = any(?) order by all",
        [list(SCHEMAS)],
    ).fetchall():
        columns_of.setdefault(f"{schema}.{table}", []).append(column)
    for name, columns in columns_of.items():
        rows = covered_rows(con, name, name.split(".")[1], columns, redactions)
        if rows:
            found.append(Leftover(name.split(".")[0], name, rows))
    return found + _stale_sums(con, columns_of)


def _stale_sums(con: duckdb.DuckDBPyConnection, columns_of: dict[str, list[str]]) -> list[Leftover]:
    """Daily and hourly tables whose number of events is not that of the events there are."""
    found = []
    for name, columns in columns_of.items():
        if rows := _stale_rows(con, name, {*columns}, {*columns_of}):
            found.append(Leftover(name.split(".")[0], name, rows, "rows that count events which are gone"))
    return found


def _stale_rows(con: duckdb.DuckDBPyConnection, name: str, columns: set[str], tables: set[str]) -> int:
    if {"pet_id", "judged_at", "event_count"} <= columns:
        return _stale_hours(con, name)
    if not {"event_date", "event_count"} <= columns:
        return 0
    return sum(
        _stale_days(con, name, key, events)
        for key, events in (("device_id", "stg.telemetry_events"), ("pet_id", "anl.telemetry_events"))
        if key in columns and events in tables
    )


def _stale_days(con: duckdb.DuckDBPyConnection, name: str, key: str, events: str) -> int:
    """Devices' or pets' days with more events than there are; of days whose events are in cold storage, by day."""
    return _count(
        con,
        f"""
        with cold as (select event_date, row_count from raw.cold_days where table_name = '{events}'),

        sums as (
            select
                if(cold.event_date is null, {key}, '') as {key},
                daily.event_date,
                sum(daily.event_count) as event_count
            from {name} as daily
            left join cold on daily.event_date = cold.event_date
            group by all
        ),

        counts as (
            select {key}, event_date, count(*) as event_count from {events} group by all
            union all
            select '' as {key}, event_date, row_count as event_count from cold
        )

        select count(*)
        from sums
        left join counts on sums.{key} = counts.{key} and sums.event_date = counts.event_date
        where sums.event_count > coalesce(counts.event_count, 0)
        """,
    )


def _stale_hours(con: duckdb.DuckDBPyConnection, name: str) -> int:
    """Pets' hours with more events than all collars have that were ever said to be the pet's: which of them
    it wore was judged by what was known then, and may have been corrected since."""
    return _count(
        con,
        f"""
        with collars as (select distinct pet_id, device_id from stg.device_assignments),

        counts as (
            select collars.pet_id, date_trunc('hour', events.event_ts) as hour_ts, count(*) as event_count
            from stg.telemetry_events as events
            inner join collars on events.device_id = collars.device_id
            group by all
        )

        select count(*)
        from {name} as hours
        left join counts on hours.pet_id = counts.pet_id and hours.hour_ts = counts.hour_ts
        where hours.event_count > coalesce(counts.event_count, 0)
        """,
    )


def published_leftovers(folder: Path, redactions: Redactions) -> list[Leftover]:
    """Files of the published copy, of any version, that hold rows of these entries, or that are not in
    force and were written before one of them was requested."""
    import duckdb

    from warehouse.duckdb.publish import files_out_of_force

    if not redactions or not (folder / "tables").is_dir():
        return []
    stale = {*files_out_of_force(folder, max(entry.requested_at for entry in redactions))}
    found = []
    con = duckdb.connect()
    try:
        register_covered(con, redactions)
        for table in sorted((folder / "tables").iterdir()):
            for path in sorted(table.rglob("*.parquet")):
                place = str(path.relative_to(folder))
                if path in stale:
                    rows = _count(con, f"select count(*) from read_parquet({literal(path)})")
                    found.append(Leftover("published", place, rows, "rows of a version out of force"))
                    continue
                rows = _covered_in_file(con, str(path), table.name.split(".")[-1], redactions)
                if rows:
                    found.append(Leftover("published", place, rows))
    finally:
        con.close()
    return found


def cold_leftovers(store: ObjectStore, redactions: Redactions) -> list[Leftover]:
    """Files in cold storage, named by a statement or not, that hold rows of these entries."""
    from lake.sql import connect

    if not redactions:
        return []
    found = []
    with connect(store) as con:
        register_covered(con, redactions)
        for info in store.list(layout.COLD):
            table, _ = layout.cold_of(info.key)
            rows = _covered_in_file(con, store.uri(info.key), table.split(".")[-1], redactions)
            if rows:
                found.append(Leftover("cold", info.key, rows))
    return found


def _covered_in_file(con: duckdb.DuckDBPyConnection, path: str, table: str, redactions: Redactions) -> int:
    relation = f"read_parquet({literal(path)}, hive_partitioning = false)"
    columns = [row[0] for row in con.execute(f"describe select * from {relation}").fetchall()]
    return covered_rows(con, relation, table, columns, redactions)


def covered_rows(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    table: str,
    columns: Sequence[str],
    redactions: Redactions,
) -> int:
    """How many rows of a relation, shaped as `table`, the entries cover; `register_covered` comes first."""
    covered = _covered(table, columns, redactions)
    return _count(con, f"select count(*) from {relation} as kept where {covered}") if covered else 0


def _covered(table: str, columns: Sequence[str], redactions: Redactions) -> str:
    """SQL that is true for the rows of the alias `kept` that the entries cover; empty where nothing tells."""
    tests = [
        f"kept.{column} in (select value from temp.leftover_values where column_name = '{column}')"
        for column in covered_values(redactions)
        if column in columns
    ]
    if {"device_id", "arrival_ts", "event_id"} <= {*columns} and redactions.arrivals:
        tests.append(
            "exists (select 1 from temp.leftover_arrivals as gone where gone.device_id = kept.device_id"
            " and kept.arrival_ts >= gone.from_ts and kept.arrival_ts < gone.to_ts)"
        )
    if table == "record_duplicates":
        tests.append(
            "(kept.feed, kept.entity_id) in (select feed, value from temp.leftover_values where feed is not null)"
        )
    return " or ".join(f"coalesce({test}, false)" for test in tests)


def covered_values(redactions: Redactions) -> dict[str, tuple[str | None, frozenset[str]]]:
    """By column of an id: the feed it is the key of, and the ids of which nothing may be left."""
    values: dict[str, tuple[str | None, frozenset[str]]] = {
        column: (feed, redactions.business_keys(feed)) for feed, column in RECORD_KEYS.items()
    }
    values["owner_id"] = ("owners", values["owner_id"][1] | redactions.owner_ids)
    values["pet_id"] = ("pets", values["pet_id"][1] | redactions.pet_ids)
    return {column: found for column, found in values.items() if found[1]}


def register_covered(con: duckdb.DuckDBPyConnection, redactions: Redactions) -> None:
    """Put what the entries cover where `covered_rows` looks: temporary tables of this connection."""
    import pyarrow as pa

    values = pa.Table.from_pylist(
        [
            {"feed": feed, "column_name": column, "value": value}
            for column, (feed, ids) in covered_values(redactions).items()
            for value in sorted(ids)
        ],
        schema=pa.schema([(name, pa.string()) for name in ("feed", "column_name", "value")]),
    )
    arrivals = pa.Table.from_pylist(
        [
            {"device_id": device_id, "from_ts": from_epoch_us(low), "to_ts": from_epoch_us(high)}
            for device_id, low, high in redactions.arrivals
        ],
        schema=pa.schema(
            [("device_id", pa.string()), ("from_ts", pa.timestamp("us")), ("to_ts", pa.timestamp("us"))]
        ),
    )
    for name, table in (("leftover_values", values), ("leftover_arrivals", arrivals)):
        con.register(f"_{name}", table)
        con.execute(f"create or replace temp table {name} as from _{name}")
        con.unregister(f"_{name}")


def _count(con: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = con.execute(sql).fetchone()
    return int(row[0]) if row else 0
