"""Planted leftovers are found wherever they are: lake, warehouse, published copy."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from governance.erasure.leftovers import lake_leftovers, published_leftovers, warehouse_leftovers
from governance.erasure.purge import purge
from governance.erasure.scope import request_erasure
from lake.landing import list_manifests
from lake.redactions import Redactions, load_redactions
from lake.replacements import load_replacements
from petwellness_orchestration import erasing
from petwellness_orchestration.settings import load_settings
from warehouse.duckdb.publish import PublishedTable, files_out_of_force, publish, retire
from warehouse.duckdb.raw import (
    WAREHOUSE_MARK,
    needs_rewriting,
    open_warehouse,
    rewrite_warehouse,
    set_build_mark,
)
from warehouse.snowflake.session import SettingsMissingError

from .conftest import DAY, NOW, START

Town = Any


@pytest.fixture
def erased(town: Town) -> Town:
    """A town from which o1 was erased and purged; `before` holds what its lake was."""
    town.before = {info.key: town.store.get(info.key) for info in town.store.list("")}
    request_erasure(
        town.store, "o1", "12", NOW, 30, load_redactions(town.store), load_replacements(town.store),
        list_manifests(town.store),
    )  # fmt: skip
    purge(town.store, list_manifests(town.store), NOW, 60)
    return town


def in_lake(town: Town, now: datetime | None = None) -> list[tuple[str, int]]:
    found = lake_leftovers(
        town.store,
        list_manifests(town.store),
        load_redactions(town.store),
        load_replacements(town.store),
        now,
    )
    return [(one.place, one.rows) for one in found]


def warehouse(path: Path, *statements: str) -> list[str]:
    con = duckdb.connect(str(path))
    try:
        for statement in statements:
            con.execute(statement)
    finally:
        con.close()
    return []


def test_nothing_is_left_after_a_purge(erased: Town) -> None:
    assert in_lake(erased) == []


def test_originals_put_back_are_found(erased: Town) -> None:
    gone = [key for key in erased.before if key.startswith("landing/") and key not in keys(erased)]
    assert len(gone) == 9
    for key in gone:
        erased.store.put_new(key, erased.before[key])
        assert [place for place, _ in in_lake(erased)] == [key]
        erased.store.delete(key)


def keys(town: Town) -> set[str]:
    return {info.key for info in town.store.list("")}


def test_payloads_of_dead_letters_put_back_are_found(erased: Town) -> None:
    [key, *_] = sorted(
        key for key in erased.before if key.startswith("_rejects/") and key not in keys(erased)
    )
    erased.store.put_new(key, erased.before[key])
    assert in_lake(erased) == [(key, 1)]


def test_compacted_files_and_stray_objects_are_looked_into(erased: Town) -> None:
    table = pa.table(
        {
            "device_id": ["c1", "c1", "c2"],
            "arrival_ts": pa.array([START + DAY, START + 6 * DAY, START + DAY], pa.timestamp("us")),
        }
    )
    stray = ["compacted/telemetry_events/date=2026-06-02/x.parquet", "landing/telemetry_events/stray.parquet"]
    for key in stray:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        erased.store.put_new(key, sink.getvalue().to_pybytes())
    assert sorted(in_lake(erased)) == [(key, 1) for key in stray]


def test_what_has_just_landed_has_its_own_time(erased: Town) -> None:
    erased.land_records("owners", [{"owner_id": "o1", "name": "Person 1"}], NOW + 100 * DAY)
    assert in_lake(erased, NOW + 120 * DAY) == []
    assert len(in_lake(erased, NOW + 131 * DAY)) == 1
    assert len(in_lake(erased)) == 1


@pytest.mark.parametrize(
    ("table", "columns", "row"),
    [
        ("raw.owners", "owner_id varchar, business_key varchar", "'o1', 'o1'"),
        ("stg.pets", "pet_id varchar, owner_id varchar", "'p7', 'o1'"),
        ("stg.record_duplicates", "feed varchar, entity_id varchar", "'clinic_visits', 'v1-1'"),
        ("cur.device_assignments", "assignment_id varchar", "'a1'"),
        ("cur.clinic_visits", "visit_id varchar", "'v1-4'"),
        ("cur.visit_documents", "document_id varchar, visit_id varchar", "'d', 'v1-4'"),
        ("anl.documents_to_review", "pet_id varchar", "'p1'"),
        ("anl.owner_engagement", "owner_id varchar", "'o1'"),
        ("anl.telemetry_events", "event_id varchar, device_id varchar, arrival_ts timestamp",
         "'e', 'c1', timestamp '2026-06-03 04:00:00'"),
        ("anl.visit_risk_scores", "pet_id varchar", "'p1'"),
        ("ml.computed_features", "pet_id varchar", "'p1'"),
    ],
)  # fmt: skip
def test_a_planted_row_is_found_in_its_table(
    erased: Town, tmp_path: Path, table: str, columns: str, row: str
) -> None:
    schema = table.split(".")[0]
    path = tmp_path / "w.duckdb"
    warehouse(path, f"create schema {schema}", f"create table {table} ({columns})")
    redactions = load_redactions(erased.store)
    with duckdb.connect(str(path)) as con:
        assert warehouse_leftovers(con, redactions) == []
        con.execute(f"insert into {table} values ({row})")
        [found] = warehouse_leftovers(con, redactions)
    assert (found.place, found.rows) == (table, 1)


def test_a_row_of_another_household_is_no_leftover(erased: Town, tmp_path: Path) -> None:
    erased.load(tmp_path / "w.duckdb")
    with open_warehouse(tmp_path / "w.duckdb") as con:
        assert con.execute("select count(*) from raw.telemetry_events").fetchall() == [(276,)]
        assert warehouse_leftovers(con, load_redactions(erased.store)) == []


def test_sums_that_count_events_which_are_gone_are_found(erased: Town, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    warehouse(
        path,
        "create schema raw",
        "create table raw.cold_days (table_name varchar, event_date date, row_count bigint)",
        "create schema stg",
        "create schema ml",
        "create table stg.telemetry_events as"
        " select 'c2' as device_id, date '2026-06-02' as event_date from range(3)",
        "create table ml.device_day_measures as select * from (values"
        " ('c2', date '2026-06-02', 3), ('c1', date '2026-06-02', 12)) as t(device_id, event_date, event_count)",
    )
    with duckdb.connect(str(path)) as con:
        [found] = warehouse_leftovers(con, load_redactions(erased.store))
        assert str(found) == "ml.device_day_measures: 1 rows that count events which are gone"
        con.execute("delete from ml.device_day_measures where device_id = 'c1'")
        assert warehouse_leftovers(con, load_redactions(erased.store)) == []


def test_hours_that_count_events_which_are_gone_are_found_whoever_wears_the_collar_now(
    erased: Town, tmp_path: Path
) -> None:
    """Of the collar that p8 and, once, p9 were said to wear three events are there: no hour can count a fourth."""
    path = tmp_path / "w.duckdb"
    warehouse(
        path,
        "create schema stg",
        "create schema anl",
        "create table stg.telemetry_events as"
        " select 'c2' as device_id, timestamp '2026-06-02 10:20:00' as event_ts from range(3)",
        "create table stg.device_assignments as"
        " select * from (values ('c2', 'p8'), ('c2', 'p9')) as t(device_id, pet_id)",
        "create table anl.wellness_hours as"
        " select pet_id, timestamp '2026-06-02 10:00:00' as hour_ts, date '2026-06-02' as event_date,"
        " timestamp '2026-06-02 11:10:00' as judged_at, n as event_count"
        " from (values ('p8', 3), ('p9', 4)) as t(pet_id, n)",
    )
    with duckdb.connect(str(path)) as con:
        [found] = warehouse_leftovers(con, load_redactions(erased.store))
        assert str(found) == "anl.wellness_hours: 1 rows that count events which are gone"
        con.execute("delete from anl.wellness_hours where pet_id = 'p9'")
        assert warehouse_leftovers(con, load_redactions(erased.store)) == []


@pytest.fixture
def pets_by_day(tmp_path: Path) -> tuple[Path, Path]:
    """A warehouse with one daily table, and the folder it is published to."""
    path = tmp_path / "p.duckdb"
    warehouse(
        path,
        "create schema anl",
        "create table anl.daily_activity as select 'p' || i as pet_id, date '2026-06-30' + d::integer as event_date"
        " from range(1, 3) t(i), range(2) u(d)",
    )
    return path, tmp_path / "published"


def published(path: Path, folder: Path) -> None:
    with duckdb.connect(str(path)) as con:
        publish(
            con, folder, [PublishedTable("anl", "daily_activity", ("pet_id", "event_date"), "event_date")]
        )


def test_published_files_in_force_and_out_of_force_are_looked_into(
    erased: Town, pets_by_day: tuple[Path, Path]
) -> None:
    path, folder = pets_by_day
    redactions = load_redactions(erased.store)
    published(path, folder)
    # Written before the request, as they were in truth.
    for file in folder.rglob("*.parquet"):
        os.utime(file, (0, 0))
    assert [one.rows for one in published_leftovers(folder, redactions)] == [1, 1]
    warehouse(path, "delete from anl.daily_activity where pet_id = 'p1'")
    published(path, folder)
    out_of_force = published_leftovers(folder, redactions)
    assert {one.detail for one in out_of_force} == {"rows of a version out of force"}
    assert len(out_of_force) == 2
    retire(files_out_of_force(folder, NOW))
    assert published_leftovers(folder, redactions) == []
    with duckdb.connect(str(folder / "petwellness.duckdb"), read_only=True) as con:
        assert con.execute("select count(*) from anl.daily_activity").fetchone() == (2,)


def test_only_part_of_a_version_out_of_force_is_retired(pets_by_day: tuple[Path, Path]) -> None:
    path, folder = pets_by_day
    published(path, folder)
    warehouse(path, "delete from anl.daily_activity where pet_id = 'p1' and event_date = date '2026-07-01'")
    published(path, folder)
    for file in folder.rglob("*.parquet"):
        os.utime(file, (0, 0))
    assert len(files_out_of_force(folder, NOW)) == 1
    retire(files_out_of_force(folder, NOW))
    with duckdb.connect(str(folder / "petwellness.duckdb"), read_only=True) as con:
        assert con.execute("select count(*) from anl.daily_activity").fetchone() == (3,)


def test_the_warehouse_file_is_rewritten_without_what_was_deleted(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    # Long texts that do not repeat are stored as they are, so that they can be looked for in the file.
    secret = "".join(chr(33 + (7 * n * n + n) % 90) for n in range(3000)).replace("\\", "/").replace('"', "'")
    town.land_records(
        "owners", [{"owner_id": "o1", "name": "Person 1", "payload": json.dumps({"t": secret})}], START + DAY
    )
    town.load(path)
    assert secret[:200].encode() in path.read_bytes()
    request_erasure(
        town.store, "o1", "12", NOW, 30, load_redactions(town.store), load_replacements(town.store),
        list_manifests(town.store),
    )  # fmt: skip
    report = town.load(path)
    with open_warehouse(path) as con:
        assert not needs_rewriting(con), "the tables after raw are not built yet"
        set_build_mark(con, WAREHOUSE_MARK, report.load_seq)
        assert needs_rewriting(con)
        before = con.execute("select * from raw.telemetry_events order by all").fetchall()
    rewrite_warehouse(path)
    assert secret[:200].encode() not in path.read_bytes()
    with open_warehouse(path) as con:
        assert not needs_rewriting(con)
        assert con.execute("select * from raw.telemetry_events order by all").fetchall() == before
    assert [*tmp_path.glob(".w*")] == []


def test_without_redactions_nothing_is_looked_for(town: Town, tmp_path: Path) -> None:
    none = Redactions()
    assert lake_leftovers(town.store, list_manifests(town.store), none, load_replacements(town.store)) == []
    assert published_leftovers(tmp_path, none) == []


def test_what_an_account_holds_is_asked_of_it_and_never_taken_for_nothing(
    erased: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "ci")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PETWELLNESS_SNOWFLAKE_ACCOUNT", raising=False)
    with pytest.raises(SettingsMissingError, match="PETWELLNESS_SNOWFLAKE_ACCOUNT"):
        erasing.places(load_settings(), erased.store, load_redactions(erased.store))
