"""The emulator does what Snowflake does where fakesnow alone does otherwise."""

import socket
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from waiting import until

from infrastructure.snowflake_emulator import local


@pytest.fixture(scope="module")
def database(make_database, tmp_path_factory):
    return make_database(f"file://{tmp_path_factory.mktemp('lake')}/landing/")


@pytest.fixture
def cursor(emulator, database):
    with emulator.connect(database, "CUR") as con, con.cursor() as cursor:
        yield cursor


def answer(cursor, sql):
    return cursor.execute(sql).fetchall()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("null::timestamp_ntz(6)", None),
        ("'1969-12-31 23:59:59.5'::timestamp_ntz(6)", datetime(1969, 12, 31, 23, 59, 59, 500_000)),
        ("'0001-01-01 00:00:00.000001'::timestamp_ntz", datetime(1, 1, 1, 0, 0, 0, 1)),
        ("'2026-01-01 00:00:00.123456'::timestamp_ntz", datetime(2026, 1, 1, 0, 0, 0, 123_456)),
        ("try_cast('tomorrow' as timestamp_ntz)", None),
        ("sum(1.1::number(5, 2))", Decimal("1.10")),
        ("99999999999999999999999999999999999999::number(38, 0)", 10**38 - 1),
        ("to_number('FFFFFFFFFFFFFFFF', 'XXXXXXXXXXXXXXXX')", 2**64 - 1),
        ("regexp_count(to_char(4095, 'XXXXXXXXXXXXXXX'), 'F')", 3),
        ("bitand(6, 3) - bitand(bitand(6, 3), bitor(2, 4) - 1)", 2),
        ("""to_json(parse_json('{"b": 1, "a": [1, 2]}'))""", '{"a":[1,2],"b":1}'),
    ],
)
def test_values_are_those_of_snowflake(cursor, expression, value):
    assert answer(cursor, f"select {expression}") == [(value,)]


def test_an_error_is_the_statements_and_not_repeated(cursor):
    from snowflake.connector.errors import ProgrammingError

    with pytest.raises(ProgrammingError, match="NotImplementedError: for column type"):
        answer(cursor, "select list_value(1, 2)")
    with pytest.raises(ProgrammingError, match="TokenError"):
        answer(cursor, "select 'no end")
    with pytest.raises(ProgrammingError, match="does not exist"):
        answer(cursor, "select 1 from nowhere")


def test_merge_takes_expressions_of_both_sides_and_counts(cursor, database):
    answer(
        cursor, f"create or replace temporary table {database}.STG.given as select 1 as a union all select 2"
    )
    counts = answer(
        cursor,
        f"merge into {database}.STG.given as t using (select 1 as a, 3 as b union all select 9, 4) as s on t.a = s.a"
        " when matched then update set t.a = s.b when not matched then insert (a) values (s.a + s.b)",
    )
    assert counts == [(1, 1)]
    assert answer(cursor, f"select a from {database}.STG.given order by a") == [(2,), (3,), (13,)]


def test_keys_are_notes_and_not_null_is_not(cursor):
    from snowflake.connector.errors import ProgrammingError

    answer(cursor, "create or replace table keyed (a int primary key, b varchar not null)")
    answer(cursor, "insert into keyed values (1, 'a'), (1, 'b')")
    with pytest.raises(ProgrammingError, match="NOT NULL"):
        answer(cursor, "insert into keyed values (2, null)")


def test_statements_about_the_account_are_taken_down(cursor, emulator):
    before = len(emulator.acknowledged())
    answer(cursor, "create role reader")
    answer(cursor, "grant usage on schema raw to role reader")
    answer(cursor, "alter session set query_tag = 'x'")
    answer(cursor, "select 1")
    assert [one.split()[0] for one in emulator.acknowledged()[before:]] == ["create", "grant", "alter"]


COPY = (
    "copy into notes (id, doc, extra) from"
    " (select $1:id::number(10,0), parse_json($1:doc::varchar), $1:extra::varchar from @raw.landing/{path})"
    " file_format = (type = parquet) files = ({files})"
)
NOTES = pa.table({"id": pa.array([1, 2], pa.int32()), "doc": ['{"b":1,"a":2}', None]})
LOADED = [(1, '{"a":2,"b":1}', None), (2, None, None)]


def test_copy_loads_named_files_once_and_a_missing_column_is_null(emulator, make_database, tmp_path):
    folder = tmp_path / "landing" / "notes"
    folder.mkdir(parents=True)
    pq.write_table(NOTES, folder / "1.parquet")
    database = make_database(f"file://{tmp_path}/landing/")
    with emulator.connect(database, "CUR") as con, con.cursor() as cursor:
        answer(cursor, "create table notes (id number(10,0), doc variant, extra varchar)")
        copy = COPY.format(path="notes/", files="'1.parquet'")
        assert [row[1] for row in answer(cursor, copy)] == ["LOADED"]
        assert [row[1] for row in answer(cursor, copy)] == ["LOAD_SKIPPED"]
        assert answer(cursor, "select * from notes order by id") == LOADED


def test_copy_reads_s3(emulator, make_database, s3_store, tmp_path: Path):
    pq.write_table(NOTES, tmp_path / "1.parquet")
    s3_store.put_new("landing/notes/1.parquet", (tmp_path / "1.parquet").read_bytes())
    endpoint = s3_store._endpoint_url
    emulator.use_s3(endpoint, "k", "s")
    database = make_database(f"{s3_store.url}/landing/")
    with emulator.connect(database, "CUR") as con, con.cursor() as cursor:
        answer(cursor, "create table notes (id number(10,0), doc variant, extra varchar)")
        answer(cursor, COPY.format(path="notes/", files="'1.parquet'"))
        assert answer(cursor, "select * from notes order by id") == LOADED


def test_packages_that_cannot_be_had_are_an_error_that_names_them(monkeypatch, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-package-of-ours==1.0\n")
    monkeypatch.setattr(local, "REQUIREMENTS", requirements)
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(local.EmulatorUnavailableError, match="no-such-package-of-ours"):
        local.installed_python(tmp_path / "environment")


STARTS_ONE = """
import sys, time
from pathlib import Path
from infrastructure.snowflake_emulator.local import LocalEmulator
emulator = LocalEmulator(Path(sys.argv[1]))
emulator.start()
print(emulator._port, flush=True)
time.sleep(600)
"""


def test_the_server_ends_with_whoever_started_it_however_that_ends(emulator, tmp_path):
    # The fixture is asked for so that the environment is there.
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE, str(tmp_path)], stdout=subprocess.PIPE, cwd=local.REPOSITORY
    )
    try:
        address = (local.HOST, int(starter.stdout.readline()))
        socket.create_connection(address).close()
    finally:
        starter.kill()
        starter.wait()

    def is_gone() -> bool:
        try:
            socket.create_connection(address).close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_gone, "the end of the server, whose starter is gone")
