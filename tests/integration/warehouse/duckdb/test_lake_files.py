"""The table of the lake's files follows landings, compactions and nothing else."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from lake.compaction import compact_day
from lake.landing import Manifest
from lake.settings import CompactionSettings
from lake.snapshots import latest_snapshot
from lake.store import LocalStore
from warehouse.duckdb.lake_files import refresh_lake_files
from warehouse.duckdb.raw import fetch_rows, open_warehouse

DAY = date(2026, 6, 5)
NOW = datetime(2026, 6, 7)


def test_the_table_says_what_each_file_holds(
    tmp_path: Path, land_telemetry: Callable[..., Manifest], land_clinics: Callable[..., Manifest]
) -> None:
    store, path = LocalStore(tmp_path / "lake"), tmp_path / "warehouse.duckdb"
    landed = [land_telemetry(store), land_telemetry(store, 5, 20), land_clinics(store, "x1", 2)]

    def refreshed() -> tuple[Any, list[dict[str, Any]]]:
        with open_warehouse(path) as con:
            report = refresh_lake_files(con, store)
            return report, fetch_rows(con, "select * from raw.lake_files order by kind, source_file")

    def compacted() -> Any:
        return compact_day(store, DAY, CompactionSettings(), tmp_path / "scratch", now=NOW).snapshot

    report, rows = refreshed()
    assert (report.landing_files, report.compacted_files, report.added) == (3, 0, 3)
    found = {row["source_file"]: row for row in rows}
    for manifest in landed:
        row = found[manifest.source_file]
        assert (row["kind"], row["feed"], row["snapshot_n"]) == ("landing", manifest.feed, None)
        assert (row["stream_id"], row["kafka_partition"]) == (manifest.stream_id, manifest.partition)
        assert (row["start_offset"], row["end_offset"]) == (manifest.start, manifest.end)
        assert (row["row_count"], row["file_bytes"]) == (manifest.rows, manifest.bytes)
        assert (row["min_event_ts"], row["max_event_ts"]) == (manifest.min_event_ts, manifest.max_event_ts)
        assert (row["arrival_date"], row["compression"]) == (manifest.ingested_at.date(), "zstd")
    assert refreshed()[0].added == 0

    first = compacted()
    report, rows = refreshed()
    assert (report.landing_files, report.compacted_files, report.added) == (3, 1, 1)
    [row] = [row for row in rows if row["kind"] == "compacted"]
    [file] = first.files
    assert (row["source_file"], row["snapshot_n"], row["row_count"]) == (file.key, 1, 25)
    assert (row["file_bytes"], row["arrival_date"]) == (file.bytes, DAY)
    assert refreshed()[0].added == 0

    land_telemetry(store, 25, 30)
    compacted()
    report, rows = refreshed()
    newest = latest_snapshot(store, DAY)
    assert newest is not None and newest.n == 2
    # The superseded file left the table.
    assert [r["source_file"] for r in rows if r["kind"] == "compacted"] == [f.key for f in newest.files]
    telemetry = [r for r in rows if r["feed"] == "telemetry_events"]
    by_kind = {
        kind: sum(r["row_count"] for r in telemetry if r["kind"] == kind) for kind in ("landing", "compacted")
    }
    assert by_kind == {"landing": 55, "compacted": 55}
