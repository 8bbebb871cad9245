"""A state folder whose name holds what SQL, addresses and shells give a meaning."""

import ast
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from lake.sql import connect, telemetry_sql
from lake.sql_text import literal, literals
from petwellness_orchestration.instance import prepare_dagster_home
from petwellness_orchestration.settings import load_settings
from warehouse.builds.sessions import carry_over
from warehouse.duckdb.publish import DATABASE_NAME, PublishedTable, publish
from warehouse.duckdb.raw import open_warehouse, rewrite_warehouse
from warehouse.environments import EnvironmentSettingError

BY_ITSELF = ("attach '{", "read_parquet('{", "read_csv('{", ") to '{")
PETS = PublishedTable("cur", "pets", ("pet_id",))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "O'Brien's state, 100% of it"
    folder.mkdir()
    return folder


def test_a_warehouse_is_published_rewritten_and_carried_over(home: Path) -> None:
    path = home / "warehouse.duckdb"
    with open_warehouse(path) as con:
        con.execute("create schema cur")
        con.execute("create table cur.pets as select 'p1' as pet_id, null::varchar as microchip_id")
        publish(con, home / "published", [PETS])
    rewrite_warehouse(path)
    with open_warehouse(path, read_only=True) as con:
        assert con.execute("select pet_id from cur.pets").fetchall() == [("p1",)]
    with duckdb.connect(str(home / "published" / DATABASE_NAME), read_only=True) as readers:
        assert readers.execute("from cur.pets").fetchall() == [("p1",)]
    assert carry_over(path, home / "fresh.duckdb") == 0


def test_what_landed_is_read(home: Path, land_telemetry) -> None:
    from lake.store import LocalStore

    store = LocalStore(home / "lake")
    manifest = land_telemetry(store)
    with connect(store, scratch=home / "scratch") as con:
        sql = telemetry_sql(con, [store.uri(manifest.source_file)])
        assert con.execute(f"select count(*) from ({sql})").fetchone() == (manifest.rows,)


def test_dagster_keeps_its_runs_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(home))
    monkeypatch.setenv("DAGSTER_HOME", "")
    folder = prepare_dagster_home(load_settings())

    @dg.asset
    def one() -> None: ...

    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([one], instance=instance).success
    assert {path.name for path in folder.rglob("*.db")} >= {"runs.db", "event_log.db"}


@pytest.mark.parametrize("name", ["100%20", "what?"])
def test_a_folder_that_dagster_cannot_name_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / name))
    with pytest.raises(EnvironmentSettingError, match=r"PETWELLNESS_HOME=.*choose another folder"):
        prepare_dagster_home(load_settings())


def test_a_literal_reads_back_as_what_it_was() -> None:
    texts = ["", "'", "''", "a'b", "100 %20", 'x"y', "back\\slash", "new\nline"]
    assert duckdb.sql(f"select [{literals(texts)}]").fetchall() == [(texts,)]
    assert literal(Path("/a'b")) == "'/a''b'"


def test_no_sql_puts_a_path_between_apostrophes_by_itself(repository: Path) -> None:
    """f"... '{path}' ..." in a statement that reads, writes or attaches files."""
    found = []
    ours = {path.parent.name for path in repository.glob("*/__init__.py")} - {"verification"}
    for folder in (*sorted(ours), "verification/chaos", "verification/parity"):
        for file in sorted((repository / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.JoinedStr):
                    text = "".join(
                        part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
                    ).lower()
                    if any(start in text for start in BY_ITSELF):
                        found.append(f"{file.relative_to(repository)}:{node.lineno}")
    assert found == []
