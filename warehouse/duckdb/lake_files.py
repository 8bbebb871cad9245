"""`raw.lake_files`: the catalogue of Parquet files as a table, one row per file that holds landed rows.

Landing files come from the manifests, compacted ones from the snapshots in force.
Unlike other raw tables it describes the lake as it is now: a superseded compacted
file leaves it, and a range that was redacted shows the object in force. The bounds
of time stay those of what landed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from lake import layout
from lake.landing import COMPRESSION, Manifest, list_manifests
from lake.replacements import load_replacements
from lake.snapshots import Snapshot, read_snapshot
from lake.store import ObjectStore

if TYPE_CHECKING:
    import duckdb

LANDING = "landing"
COMPACTED = "compacted"

_COLUMNS = {
    "source_file": "varchar not null",
    "kind": "varchar not null",
    "feed": "varchar not null",
    "arrival_date": "date not null",
    "stream_id": "varchar",
    "kafka_partition": "integer",
    "start_offset": "bigint",
    "end_offset": "bigint",
    "snapshot_n": "integer",
    "row_count": "bigint not null",
    "file_bytes": "bigint not null",
    "compression": "varchar not null",
    "min_event_ts": "timestamp",
    "max_event_ts": "timestamp",
    "min_arrival_ts": "timestamp",
    "max_arrival_ts": "timestamp",
    "ingested_at": "timestamp",
}


@dataclass(frozen=True)
class LakeFilesReport:
    """Rows of the table by kind after a refresh, and how many the refresh added."""

    landing_files: int
    compacted_files: int
    added: int


def refresh_lake_files(
    con: duckdb.DuckDBPyConnection, store: ObjectStore, say: Callable[[str], None] = lambda _: None
) -> LakeFilesReport:
    """Bring the table up to the lake: new landing files, and the files of each day's newest snapshot."""
    columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    con.execute(f"create table if not exists raw.lake_files ({columns})")
    known = {
        (stream_id, partition, start)
        for stream_id, partition, start in con.execute(
            "select stream_id, kafka_partition, start_offset from raw.lake_files where kind = ?", [LANDING]
        ).fetchall()
    }
    manifests = list_manifests(store, known)
    changed = _changed_snapshots(con, store)
    con.execute("begin transaction")
    try:
        _insert(con, (_landing_row(m) for m in manifests))
        for snapshot in changed:
            con.execute(
                "delete from raw.lake_files where kind = ? and arrival_date = ?", [COMPACTED, snapshot.day]
            )
            _insert(con, _compacted_rows(snapshot))
        _show_replacements(con, store)
        con.execute("commit")
    except BaseException:
        con.execute("rollback")
        raise
    added = len(manifests) + sum(len(snapshot.files) for snapshot in changed)
    say(f"raw.lake_files: {added:,} files new")
    counts = dict(con.execute("select kind, count(*) from raw.lake_files group by all").fetchall())
    return LakeFilesReport(counts.get(LANDING, 0), counts.get(COMPACTED, 0), added)


def _show_replacements(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> None:
    for pointers in load_replacements(store).by_range.values():
        after = pointers[-1].after
        con.execute(
            "update raw.lake_files set source_file = ?, row_count = ?, file_bytes = ?"
            " where kind = ? and stream_id = ? and kafka_partition = ? and start_offset = ? and source_file <> ?",
            [after.key, after.rows, after.bytes, LANDING, *pointers[-1].range_key, after.key],
        )


def _changed_snapshots(con: duckdb.DuckDBPyConnection, store: ObjectStore) -> list[Snapshot]:
    """The newest snapshot of each day where the table has another one or none."""
    newest: dict[date, str] = {}
    for info in store.list(layout.SNAPSHOTS):
        newest[layout.snapshot_of(info.key)[0]] = info.key
    in_table = dict(
        con.execute(
            "select arrival_date, max(snapshot_n) from raw.lake_files where kind = ? group by all",
            [COMPACTED],
        ).fetchall()
    )
    return [
        read_snapshot(store, key)
        for day, key in sorted(newest.items())
        if in_table.get(day) != layout.snapshot_of(key)[1]
    ]


def _landing_row(manifest: Manifest) -> list[Any]:
    return [
        manifest.source_file,
        LANDING,
        manifest.feed,
        manifest.ingested_at.date(),
        manifest.stream_id,
        manifest.partition,
        manifest.start,
        manifest.end,
        None,
        manifest.rows,
        manifest.bytes,
        COMPRESSION,
        manifest.min_event_ts,
        manifest.max_event_ts,
        manifest.min_arrival_ts,
        manifest.max_arrival_ts,
        manifest.ingested_at,
    ]


def _compacted_rows(snapshot: Snapshot) -> Iterable[list[Any]]:
    for file in snapshot.files:
        yield [
            file.key,
            COMPACTED,
            snapshot.feed,
            snapshot.day,
            None,
            None,
            None,
            None,
            snapshot.n,
            file.rows,
            file.bytes,
            COMPRESSION,
            file.min_event_ts,
            file.max_event_ts,
            file.min_arrival_ts,
            file.max_arrival_ts,
            None,
        ]


def _insert(con: duckdb.DuckDBPyConnection, rows: Iterable[list[Any]]) -> None:
    """Append rows; through Arrow, as a statement per row takes a second for some thousands."""
    import pyarrow as pa

    types = {
        "varchar": pa.string(),
        "date": pa.date32(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "timestamp": pa.timestamp("us"),
    }
    columns = [*zip(*rows, strict=True)]
    if not columns:
        return
    arrays = [
        pa.array(values, types[kind.split()[0]])
        for values, kind in zip(columns, _COLUMNS.values(), strict=True)
    ]
    table = pa.table(arrays, names=[*_COLUMNS])
    con.register("new_lake_files", table)
    con.execute("insert into raw.lake_files select * from new_lake_files")
    con.unregister("new_lake_files")
