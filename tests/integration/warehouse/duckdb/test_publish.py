"""The published copy: what changed and nothing else is written, and readers never notice."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse.duckdb.publish import (
    CATALOGUE_NAME,
    DATABASE_NAME,
    ROW_GROUP_ROWS,
    PersonalDataFoundError,
    PublishedTable,
    PublishReport,
    publish,
    read_catalogue,
)

DAILY = PublishedTable("anl", "activity", ("event_date", "pet_id", "steps"), day_column="event_date")
WHOLE = PublishedTable("cur", "pets", ("pet_id", "species"))
TABLES = (DAILY, WHOLE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "published"


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A writable warehouse with a table by day, of three days, and one that is built whole."""
    con = duckdb.connect(str(tmp_path / "warehouse.duckdb"))
    con.execute("create schema anl")
    con.execute("create schema cur")
    con.execute(
        "create table cur.pets as select 'p1' as pet_id, 'dog' as species, 'Rex' as name,"
        " null::varchar as microchip_id"
    )
    con.execute(
        "create table anl.activity as select date '2026-06-01' + (i // 2)::integer as event_date,"
        " 'p' || i as pet_id, 100 * i as steps, 'secret' as note from range(6) t(i)"
    )
    yield con
    con.close()


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / DATABASE_NAME), read_only=True) as con:
        return con.execute(sql).fetchall()


def files(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file of the copy: time of its last change and digest."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_readers_get_the_named_columns_of_every_row(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    report = publish(warehouse, folder, TABLES)
    assert report == PublishReport(version=1, tables=2, files=2, files_written=2, days_changed=4)
    assert rows(folder, "describe anl.activity") == rows(
        folder,
        "describe select * from (values (date '2026-06-01', 'p', 1::bigint)) t(event_date, pet_id, steps)",
    )
    assert (
        rows(folder, "select * from anl.activity order by pet_id")
        == warehouse.execute("select event_date, pet_id, steps from anl.activity order by pet_id").fetchall()
    )
    assert rows(folder, "select * from cur.pets") == [("p1", "dog")]
    for path in folder.rglob("*.parquet"):
        names = {
            row[0]
            for row in duckdb.sql(
                f"describe select * from read_parquet('{path}', hive_partitioning = false)"
            ).fetchall()
        }
        assert not names & {"note", "name"}, path


@pytest.mark.parametrize("last", ["steps", "pet_id"])
@pytest.mark.parametrize(("sorted_rows", "files_of_day"), [(10_000_000, 1), (70_000, 3)])
def test_many_rows_are_kept_in_the_order_of_their_table(
    warehouse: duckdb.DuckDBPyConnection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    sorted_rows: int,
    files_of_day: int,
) -> None:
    monkeypatch.setattr("warehouse.duckdb.publish_layout.SORTED_ROWS", sorted_rows)
    many = 3 * ROW_GROUP_ROWS
    warehouse.execute(
        "insert into anl.activity select date '2026-06-02', nullif('p' || lpad((i % 50)::varchar, 2, '0'), 'p13'),"
        f" nullif(i, 77), 'secret' from range({many}) t(i)"
    )
    order = ("pet_id", last) if last == "steps" else ("pet_id",)
    publish(warehouse, folder, [replace(DAILY, sorted_by=order)])
    everything = "select event_date, pet_id, steps from anl.activity order by all"
    assert rows(folder, everything) == warehouse.execute(everything).fetchall()
    parts = read_catalogue(folder)["tables"]["anl.activity"]["2026-06-02"]["files"]
    assert len(parts) == files_of_day
    met = []
    for part in parts:
        file = f"'{folder / part}'"
        kept = duckdb.sql(f"select pet_id, coalesce(steps, {many}) from read_parquet({file})").fetchall()
        assert [row[: len(order)] for row in kept] == sorted(
            (row[: len(order)] for row in kept), key=lambda row: (row[0] is None, row)
        )
        groups = duckdb.sql(
            f"select stats_min_value, stats_max_value from parquet_metadata({file}) where path_in_schema = 'pet_id'"
        ).fetchall()
        # A pet's rows reach into two groups at most, however many there are; a group of nulls has no bounds.
        met.append(sum(first <= "p07" <= last_pet for first, last_pet in groups if first is not None))
    assert max(met) in (1, 2)


def test_nothing_new_means_no_new_version_and_no_write(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    publish(warehouse, folder, TABLES)
    before = files(folder)
    # The same rows in another order are the same content.
    warehouse.execute("create or replace table anl.activity as from anl.activity order by steps desc")
    report = publish(warehouse, folder, TABLES)
    assert report == PublishReport(version=1, tables=2, files=2, files_written=0, days_changed=0)
    assert not report.changed
    assert files(folder) == before


JUNE = "2026-06-01_to_2026-06-03.parquet"


@pytest.mark.parametrize(
    ("sorted_rows", "kept", "fresh"),
    [(6, JUNE, JUNE), (5, "2026-06-01.parquet", "2026-06-02.parquet")],
)
def test_only_what_changed_is_written(
    warehouse: duckdb.DuckDBPyConnection,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    sorted_rows: int,
    kept: str,
    fresh: str,
) -> None:
    """A month of few rows is one file, of more a file a day."""
    monkeypatch.setattr("warehouse.duckdb.publish_layout.SORTED_ROWS", sorted_rows)
    warehouse.execute("insert into anl.activity values (date '2026-07-01', 'p9', 1000, 'secret')")
    publish(warehouse, folder, TABLES)
    before = files(folder)
    version_1 = Path("tables") / "anl.activity" / "v000001"
    assert {str(version_1 / kept), str(version_1 / "2026-07-01.parquet")} < before.keys()
    warehouse.execute("update anl.activity set steps = 7 where pet_id = 'p2'")
    report = publish(warehouse, folder, TABLES)
    assert (report.version, report.files_written, report.days_changed) == (2, 1, 1)
    after = files(folder)
    written = {name for name in after if name.endswith(".parquet") and after[name] != before.get(name)}
    assert written == {str(Path("tables") / "anl.activity" / "v000002" / fresh)}
    assert {n: s for n, s in after.items() if "v000001" in n}.items() <= before.items()
    assert rows(folder, "select steps from anl.activity where pet_id = 'p2'") == [(7,)]
    assert rows(folder, "select count(*) from anl.activity") == [(7,)]


def test_a_settled_week_is_kept_by_pet(
    folder: Path, warehouse: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a month with more rows than one file has; what is not settled stays by day."""
    monkeypatch.setattr("warehouse.duckdb.publish_layout.SORTED_ROWS", 20)
    warehouse.execute("delete from anl.activity")
    warehouse.execute(
        "insert into anl.activity select date '2026-06-01' + (i // 6)::integer, 'it''s p' || i % 6, i, 'secret'"
        " from range(96) t(i)"
    )
    table = replace(DAILY, sorted_by=("pet_id", "steps"))
    for _ in range(2):
        report = publish(warehouse, folder, [table])
    assert not report.changed
    parts = read_catalogue(folder)["tables"]["anl.activity"]
    week = parts["2026-06-01"]["files"]
    assert [Path(file).name for file in week] == [
        f"2026-06-01_to_2026-06-07_{number}.parquet" for number in range(3)
    ]
    assert all(parts[f"2026-06-{day:02}"]["files"] == week for day in range(1, 8))
    assert [Path(file).name for file in parts["2026-06-08"]["files"]] == ["2026-06-08.parquet"]
    for file in week:
        kept = duckdb.sql(f"select pet_id, steps from read_parquet('{folder / file}')").fetchall()
        assert kept == sorted(kept)
        assert len({pet_id for pet_id, _ in kept}) <= 3
    everything = "select event_date, pet_id, steps from anl.activity order by all"
    assert rows(folder, everything) == warehouse.execute(everything).fetchall()
    # A late event of one day brings its week, and nothing else.
    warehouse.execute("insert into anl.activity values (date '2026-06-03', 'it''s p1', 5000, 'secret')")
    late = publish(warehouse, folder, [table], rebuilt={"anl.activity": frozenset({date(2026, 6, 3)})})
    assert (late.files_written, late.days_changed) == (3, 1)
    assert rows(folder, everything) == warehouse.execute(everything).fetchall()


def kept_together(folder: Path) -> dict[frozenset[tuple[str, str]], tuple[str, ...]]:
    """By the parts that share files, with their fingerprints: these files."""
    parts = read_catalogue(folder).get("tables", {}).get("anl.activity", {})
    of_files: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for part, one in parts.items():
        of_files.setdefault(tuple(one["files"]), set()).add((part, one["fingerprint"]))
    return {frozenset(found): files for files, found in of_files.items()}


DAYS = st.dates(date(2026, 5, 28), date(2026, 6, 12))


@settings(max_examples=settings.default.max_examples // 3)
@given(
    builds=st.lists(st.dictionaries(DAYS, st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=5),
    sorted_rows=st.integers(1, 9),
    merged_rows=st.integers(1, 20),
    settled_days=st.integers(1, 4),
    order=st.sampled_from([(), ("pet_id",), ("pet_id", "steps")]),
)
def test_whatever_was_built_readers_get_each_row_once(
    tmp_path_factory: pytest.TempPathFactory,
    builds: list[dict[date, int]],
    sorted_rows: int,
    merged_rows: int,
    settled_days: int,
    order: tuple[str, ...],
) -> None:
    """Each build replaces days by so many rows; months grow over what one file may hold, settle, shrink and empty."""
    folder = tmp_path_factory.mktemp("published")
    everything = "select event_date, pet_id, steps from anl.activity order by all"
    con = duckdb.connect()
    con.execute("create schema anl")
    con.execute("create table anl.activity (event_date date, pet_id varchar, steps bigint)")
    table = replace(DAILY, sorted_by=order)
    with pytest.MonkeyPatch.context() as patched, con:
        patched.setattr("warehouse.duckdb.publish_layout.SORTED_ROWS", sorted_rows)
        patched.setattr("warehouse.duckdb.publish_layout.MERGED_ROWS", merged_rows)
        patched.setattr("warehouse.duckdb.publish_layout.SETTLED_DAYS", settled_days)
        for number, days in enumerate(builds):
            before = kept_together(folder)
            for day, count in days.items():
                con.execute("delete from anl.activity where event_date = ?", [day])
                con.execute(
                    "insert into anl.activity select ?, 'p' || i, ? from range(?) t(i)", [day, number, count]
                )
            publish(con, folder, [table], rebuilt={"anl.activity": frozenset(days)})
            assert rows(folder, everything) == con.execute(everything).fetchall()
            # What is kept together and has not changed stays in the files it was in.
            after = kept_together(folder)
            assert all(after[parts] == before[parts] for parts in after.keys() & before.keys())
            # What a look at every day would find is what the catalogue says.
            again = publish(con, folder, [table])
            assert (again.changed, again.files_written) == (False, 0)


def test_a_column_that_is_not_published_changes_nothing(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute("update anl.activity set note = 'other'")
    assert not publish(warehouse, folder, TABLES).changed


def test_another_set_of_columns_is_written_anew(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    publish(warehouse, folder, TABLES)
    wider = PublishedTable("cur", "pets", ("pet_id", "species", "name"))
    assert publish(warehouse, folder, [DAILY, wider]).days_changed == 1
    assert rows(folder, "select * from cur.pets") == [("p1", "dog", "Rex")]


@pytest.mark.parametrize(
    "change",
    [
        # Sums over a day stay the same; what the rows say does not.
        "update anl.activity set steps = case pet_id when 'p2' then 300 else 200 end where pet_id in ('p2', 'p3')",
        "update anl.activity set pet_id = 'p9' where pet_id = 'p2'",
        "update anl.activity set steps = null where pet_id = 'p2'",
        "insert into anl.activity from anl.activity where pet_id = 'p2'",
        "delete from anl.activity where pet_id = 'p2'",
    ],
)
def test_every_change_of_content_is_seen(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, change: str
) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute(change)
    report = publish(warehouse, folder, TABLES)
    assert (report.files_written, report.days_changed) == (1, 1)
    same = "select event_date, pet_id, steps from anl.activity order by all"
    assert rows(folder, same) == warehouse.execute(same).fetchall()


def test_a_removed_day_is_gone_for_readers(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute("delete from anl.activity where event_date = date '2026-06-02'")
    report = publish(warehouse, folder, TABLES)
    assert (report.version, report.files_written, report.days_changed, report.files) == (2, 1, 1, 2)
    assert rows(folder, "select distinct event_date::varchar from anl.activity order by 1") == [
        ("2026-06-01",),
        ("2026-06-03",),
    ]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.full_name)
def test_an_empty_table_has_its_columns(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, table: PublishedTable
) -> None:
    warehouse.execute(f"create table kept as from {table.full_name}")
    warehouse.execute(f"delete from {table.full_name}")
    publish(warehouse, folder, TABLES)
    described = f"select column_name, column_type from (describe {table.full_name})"
    empty = rows(folder, described)
    assert [row[0] for row in empty] == list(table.columns)
    assert rows(folder, f"select count(*) from {table.full_name}") == [(0,)]
    assert not publish(warehouse, folder, TABLES).changed
    # Filled, and emptied again.
    warehouse.execute(f"insert into {table.full_name} from kept")
    assert publish(warehouse, folder, TABLES).changed
    assert rows(folder, described) == empty
    assert rows(folder, f"select count(*) > 0 from {table.full_name}") == [(True,)]
    warehouse.execute(f"delete from {table.full_name}")
    assert publish(warehouse, folder, TABLES).changed
    assert rows(folder, f"select count(*) from {table.full_name}") == [(0,)]


def test_tables_that_are_not_mentioned_stay(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    publish(warehouse, folder, [DAILY])
    assert publish(warehouse, folder, [WHOLE]).tables == 2
    assert rows(folder, "select count(*) from anl.activity") == [(6,)]
    assert rows(folder, "select count(*) from cur.pets") == [(1,)]
    assert publish(warehouse, folder, [WHOLE]).version == 2


def test_a_reader_with_the_old_database_open_reads_on(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    publish(warehouse, folder, TABLES)
    with duckdb.connect(str(folder / DATABASE_NAME), read_only=True) as reader:
        before = reader.execute("select * from anl.activity order by all").fetchall()
        warehouse.execute("update anl.activity set steps = steps + 1")
        publish(warehouse, folder, TABLES)
        assert reader.execute("select * from anl.activity order by all").fetchall() == before
    assert rows(folder, "select sum(steps) from anl.activity") == [(1506,)]


def test_files_of_versions_before_the_last_are_removed(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    for _ in range(3):
        warehouse.execute("update anl.activity set steps = steps + 1")
        publish(warehouse, folder, TABLES)
    kept = {path.name for path in (folder / "tables" / "anl.activity").iterdir()}
    assert kept == {"v000002", "v000003"}
    # Never changed, so still the first.
    assert {path.name for path in (folder / "tables" / "cur.pets").iterdir()} == {"v000001"}


def test_another_process_reads_while_the_warehouse_is_written(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, tmp_path: Path
) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute("begin")
    warehouse.execute("update anl.activity set steps = 0")
    client = textwrap.dedent(
        """
        import sys, duckdb
        print(duckdb.connect(sys.argv[1], read_only=True).execute("select sum(steps) from anl.activity").fetchone()[0])
        """
    )

    def read(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", client, str(path)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    answer = read(folder / DATABASE_NAME)
    assert answer.stdout.strip() == "1500", answer.stderr
    # The lock is real: the warehouse itself refuses the client.
    assert read(tmp_path / "warehouse.duckdb").returncode != 0
    warehouse.execute("commit")


@pytest.mark.parametrize("moment", ["first", "second"])
def test_a_crash_between_database_and_catalogue_heals(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, moment: str
) -> None:
    """The database is switched first: readers are right, and the next publication catches up."""
    catalogue = folder / CATALOGUE_NAME
    if moment == "second":
        publish(warehouse, folder, TABLES)
    old = catalogue.read_bytes() if catalogue.exists() else None
    warehouse.execute("update anl.activity set steps = 1")
    publish(warehouse, folder, TABLES)
    catalogue.unlink()
    if old is not None:
        catalogue.write_bytes(old)
    assert rows(folder, "select sum(steps) from anl.activity") == [(6,)]
    report = publish(warehouse, folder, TABLES)
    assert report.changed
    assert report.version > json.loads(old or b'{"version": 0}')["version"] + 1
    assert rows(folder, "select sum(steps), count(*) from anl.activity") == [(6, 6)]
    assert read_catalogue(folder)["version"] == report.version
    assert not publish(warehouse, folder, TABLES).changed
    for parts in read_catalogue(folder)["tables"].values():
        assert all((folder / file).exists() for part in parts.values() for file in part["files"])


def test_personal_data_is_found_before_readers_get_it_and_the_copy_stays(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    warehouse.execute("create table cur.owners (name varchar, contact_phone varchar, address varchar)")
    warehouse.execute("insert into cur.owners values ('Ada Abel', null, 'Birken Lane 3')")
    noted = replace(DAILY, columns=(*DAILY.columns, "note"))
    publish(warehouse, folder, [noted, WHOLE])
    before = files(folder)
    # A column that nobody tagged, in two tables: one by day, one whole.
    warehouse.execute("update anl.activity set note = 'ask ada@example.org' where steps > 300")
    warehouse.execute("update cur.pets set species = 'dog of Abel, Ada'")

    with pytest.raises(PersonalDataFoundError) as raised:
        publish(warehouse, folder, [noted, WHOLE])

    message = str(raised.value)
    assert "anl.activity.note: 2 x e-mail address" in message
    assert "cur.pets.species: 1 x person's name" in message
    assert "readers keep version 1" in message
    assert not [value for value in ("ada", "Abel", "example.org") if value in message]
    assert files(folder) == before
    assert rows(folder, "select distinct note from anl.activity") == [("secret",)]

    warehouse.execute("update anl.activity set note = 'ask the clinic'")
    warehouse.execute("update cur.pets set species = 'cat'")
    assert publish(warehouse, folder, [noted, WHOLE]).version == 2
    assert rows(folder, "select species from cur.pets") == [("cat",)]


def test_a_first_publication_with_personal_data_leaves_no_copy_and_no_file(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    warehouse.execute("create schema raw")
    warehouse.execute("create table raw.hash_salt as select 'the salt of the tests' as salt")
    warehouse.execute("update cur.pets set species = 'dog; the salt of the tests'")
    with pytest.raises(PersonalDataFoundError, match=r"no published copy yet.* cur\.pets\.species: 1 x salt"):
        publish(warehouse, folder, TABLES)
    assert files(folder) == {}


@pytest.mark.parametrize("moment", ["exported", "database built"])
def test_a_crash_before_the_switch_leaves_the_old_copy_and_heals(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    from warehouse.duckdb import publish as module

    publish(warehouse, folder, TABLES)
    warehouse.execute("update anl.activity set steps = 1")
    before = files(folder)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        if moment == "exported":
            broken.setattr(module, "_switch", crash)
        else:
            broken.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            publish(warehouse, folder, TABLES)
    assert rows(folder, "select sum(steps) from anl.activity") == [(1500,)]
    assert before.items() <= files(folder).items()
    assert publish(warehouse, folder, TABLES).changed
    assert rows(folder, "select sum(steps) from anl.activity") == [(6,)]
    # What the crash left behind goes with the next publication.
    warehouse.execute("update anl.activity set steps = 2")
    publish(warehouse, folder, TABLES)
    assert len(list((folder / "tables" / "anl.activity").iterdir())) == 2
    assert {path.name for path in folder.iterdir()} == {"tables", DATABASE_NAME, CATALOGUE_NAME}


def test_a_copy_that_was_moved_says_where_its_files_were(
    warehouse: duckdb.DuckDBPyConnection, folder: Path, tmp_path: Path
) -> None:
    publish(warehouse, folder, TABLES)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(duckdb.IOException, match="published"):
        rows(tmp_path / "elsewhere", "select * from cur.pets")


def test_only_rebuilt_days_are_looked_at(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    warehouse.execute("update anl.activity set event_date = date '2026-05-31' where pet_id = 'p0'")
    publish(warehouse, folder, TABLES)
    warehouse.execute("update anl.activity set steps = 7 where pet_id in ('p0', 'p2')")
    report = publish(warehouse, folder, TABLES, rebuilt={"anl.activity": frozenset({date(2026, 6, 2)})})
    assert report.days_changed == 1
    # The change of May was not announced, which no build does.
    assert rows(folder, "select pet_id from anl.activity where steps = 7") == [("p2",)]
    assert not publish(warehouse, folder, TABLES, rebuilt={}).changed
    assert publish(warehouse, folder, TABLES, rebuilt={"anl.activity": None}).days_changed == 1
    assert rows(folder, "select count(*) from anl.activity where steps = 7") == [(2,)]


def test_a_change_by_hand_is_published_with_the_days_it_shares_a_file_with(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute("delete from anl.activity where event_date = date '2026-06-01'")
    warehouse.execute("update anl.activity set steps = 7")
    report = publish(warehouse, folder, TABLES, rebuilt={"anl.activity": frozenset({date(2026, 6, 2)})})
    assert (report.days_changed, report.files_written) == (3, 1)
    assert rows(folder, "select distinct event_date::varchar, steps from anl.activity order by all") == [
        ("2026-06-02", 7),
        ("2026-06-03", 7),
    ]
    assert not publish(warehouse, folder, TABLES).changed


def test_a_rebuilt_day_without_rows_disappears(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    publish(warehouse, folder, TABLES)
    for day, left in (("2026-06-02", 4), ("2026-06-01", 2), ("2026-06-03", 0)):
        warehouse.execute(f"delete from anl.activity where event_date = date '{day}'")
        rebuilt = {"anl.activity": frozenset({date.fromisoformat(day)})}
        assert publish(warehouse, folder, TABLES, rebuilt=rebuilt).changed
        assert rows(folder, "select count(*) from anl.activity") == [(left,)]
    warehouse.execute("insert into anl.activity values (date '2026-06-04', 'p1', 3, 'secret')")
    publish(warehouse, folder, TABLES, rebuilt={"anl.activity": frozenset({date(2026, 6, 4)})})
    assert rows(folder, "from anl.activity") == [(date(2026, 6, 4), "p1", 3)]
    assert read_catalogue(folder)["tables"]["anl.activity"].keys() == {"2026-06-04"}


def test_what_was_never_published_or_has_other_columns_is_taken_whole(
    warehouse: duckdb.DuckDBPyConnection, folder: Path
) -> None:
    assert publish(warehouse, folder, TABLES, rebuilt={}).files_written == 2
    narrower = PublishedTable("anl", "activity", ("event_date", "pet_id"), day_column="event_date")
    assert publish(warehouse, folder, [narrower], rebuilt={}).days_changed == 3
    assert len(rows(folder, "from anl.activity")[0]) == 2


def test_tables_built_whole_are_always_looked_at(warehouse: duckdb.DuckDBPyConnection, folder: Path) -> None:
    publish(warehouse, folder, TABLES)
    warehouse.execute("update cur.pets set species = 'cat'")
    assert publish(warehouse, folder, TABLES, rebuilt={}).days_changed == 1
