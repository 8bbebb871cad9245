"""The lake on S3 over HTTP brings the same rows as a local directory."""

from collections.abc import Callable
from pathlib import Path

from lake.landing import Manifest, list_manifests
from lake.store import LocalStore, ObjectStore, S3Store
from warehouse.compare import compare_tables
from warehouse.duckdb.raw import load_pending, open_warehouse, table_row_counts


def test_s3_and_local_lakes_load_the_same_rows(
    s3_store: S3Store,
    store: LocalStore,
    tmp_path: Path,
    land_telemetry: Callable[..., Manifest],
    land_clinics: Callable[..., Manifest],
) -> None:
    def load(lake: ObjectStore, path: Path) -> None:
        land_telemetry(lake, 0, 7, rejected=2)
        land_telemetry(lake, 9, 5)
        land_clinics(lake, "day-1", 3)
        with open_warehouse(path, lake) as con:
            report = load_pending(con, lake, list_manifests(lake))
            assert report.rows_by_feed == {"clinics": 3, "telemetry_events": 12}
            assert load_pending(con, lake, list_manifests(lake)).ranges == 0

    on_s3, local = tmp_path / "s3.duckdb", tmp_path / "local.duckdb"
    load(s3_store, on_s3)
    load(store, local)
    # Extracts are claimed when they land; the telemetry claims above have a time of their own.
    claimed = {"clinics": ["ingested_at"], "extracts": ["claimed_at"], "load_history": ["loaded_at"]}
    with open_warehouse(on_s3) as con, open_warehouse(local) as other:
        for table in table_row_counts(other, "raw"):
            excluded = claimed.get(table, [])
            assert compare_tables(con, f"raw.{table}", other, f"raw.{table}", exclude=excluded) == []
