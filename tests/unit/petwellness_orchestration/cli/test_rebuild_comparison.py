"""`petwellness rebuild --compare`: what it says of two warehouses, on small ones."""

from pathlib import Path

import duckdb
import pytest

from petwellness_orchestration.cli.steps import finish_comparison

TABLES = """
create schema raw; create schema cur; create schema anl;
create table raw.owners (owner_id varchar, email varchar);
create table raw.load_history (load_seq bigint);
create table cur.owners (owner_id varchar, email varchar);
create table anl.visit_risk_scores (pet_id varchar);
insert into raw.owners values ('o1', 'anna@example.org');
insert into cur.owners values ('o1', 'anna@example.org');
"""


def warehouse(path: Path, *changes: str) -> Path:
    with duckdb.connect(str(path)) as con:
        for statement in (TABLES, *changes):
            con.execute(statement)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("update cur.owners set email = 'eve@example.org'", "cur.owners differs in rows"),
        ("delete from raw.owners", "raw.owners differs in rows"),
        ("drop table cur.owners", "cur.owners differs in being there"),
        ("create table anl.pets (pet_id varchar)", "anl.pets differs in being there"),
        ("alter table cur.owners add column phone varchar", "cur.owners differs in its columns"),
    ],
)
def test_a_table_that_differs_is_named_and_no_value_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, said: str
) -> None:
    before, after = warehouse(tmp_path / "before.duckdb"), warehouse(tmp_path / "after.duckdb", change)
    assert finish_comparison(before, after) == 1
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert "example.org" not in shown.out + shown.err


def test_ledgers_and_scores_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = warehouse(tmp_path / "before.duckdb", "insert into anl.visit_risk_scores values ('p1')")
    after = warehouse(tmp_path / "after.duckdb", "insert into raw.load_history values (1)")
    assert finish_comparison(before, after) == 0
    assert "2 tables are what they were" in capsys.readouterr().out
