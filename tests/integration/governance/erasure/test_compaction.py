"""Compaction and redaction together: a day compacted before, after and between."""

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from governance.erasure.leftovers import lake_leftovers
from governance.erasure.purge import purge
from governance.erasure.scope import request_erasure
from lake.compaction import compact_day
from lake.landing import list_manifests
from lake.redactions import load_redactions
from lake.replacements import load_replacements
from lake.settings import CompactionSettings
from lake.snapshots import latest_snapshot
from lake.upkeep import clean, prove_day
from warehouse.duckdb.lake_files import refresh_lake_files

from .conftest import DAY, NOW, START

Town = Any

SETTINGS = CompactionSettings()


def compact(town: Town, scratch: Path, **options: Any) -> Any:
    return compact_day(
        town.store,
        START.date(),
        SETTINGS,
        scratch,
        redactions=load_redactions(town.store).by_entry,
        in_force=load_replacements(town.store).stored_object_of,
        **options,
    )


def erase(town: Town, owner_id: str) -> None:
    store = town.store
    request_erasure(
        store,
        owner_id,
        "12",
        NOW,
        30,
        load_redactions(store),
        load_replacements(store),
        list_manifests(store),
    )


def devices_in(town: Town, snapshot: Any) -> Counter[str]:
    paths = [town.store.uri(file.key) for file in snapshot.files]
    with duckdb.connect() as con:
        return Counter(
            dict(
                con.execute(
                    "select device_id, count(*) from read_parquet(?) group by all", [paths]
                ).fetchall()
            )
        )


def left_in_compacted(town: Town) -> list[str]:
    store = town.store
    found = lake_leftovers(store, list_manifests(store), load_redactions(store), load_replacements(store))
    return [one.place for one in found if one.kind == "compacted"]


def test_a_day_is_compacted_again_without_the_redacted_rows(make_town: Any, tmp_path: Path) -> None:
    town = make_town(2)
    first = compact(town, tmp_path).snapshot
    erase(town, "o1")
    assert left_in_compacted(town) == [file.key for file in first.files]
    # The originals go first: the day is compacted from its own files and proven against replacements.
    purge(town.store, list_manifests(town.store), NOW, 60)
    second = compact(town, tmp_path).snapshot
    assert (second.rows, second.redacted_rows, first.rows) == (36, 12, 48)
    assert devices_in(town, second) == {"c2": 12, "c3": 12, "c4": 12}
    redactions = load_redactions(town.store)
    in_force = load_replacements(town.store).stored_object_of
    assert prove_day(town.store, START.date(), SETTINGS, tmp_path, redactions.by_entry, in_force).passed
    assert not compact(town, tmp_path).written
    # The superseded files stay for those who read them, for a day.
    assert left_in_compacted(town) == [file.key for file in first.files]
    clean(town.store, SETTINGS, second.created_at + 2 * DAY)
    assert left_in_compacted(town) == []
    assert latest_snapshot(town.store, START.date()) == second


def test_a_purged_range_is_compacted_from_its_replacement(make_town: Any, tmp_path: Path) -> None:
    town = make_town(2)
    erase(town, "o1")
    purge(town.store, list_manifests(town.store), NOW, 60)
    snapshot = compact(town, tmp_path, now=NOW).snapshot
    assert (snapshot.rows, snapshot.redacted_rows) == (36, 12)
    assert left_in_compacted(town) == []


def test_the_table_of_files_shows_the_objects_in_force(make_town: Any, tmp_path: Path) -> None:
    town = make_town(2)
    with duckdb.connect(str(tmp_path / "w.duckdb")) as con:
        con.execute("create schema raw")
        refresh_lake_files(con, town.store)
        erase(town, "o1")
        purge(town.store, list_manifests(town.store), NOW, 60)
        refresh_lake_files(con, town.store)
        shown = con.execute("select source_file, row_count, file_bytes from raw.lake_files").fetchall()
    assert {key: size for key, _, size in shown} == {
        info.key: info.size for prefix in ("landing/", "redacted/") for info in town.store.list(prefix)
    }
    assert sum(rows for key, rows, _ in shown if "telemetry" in key) == 72
