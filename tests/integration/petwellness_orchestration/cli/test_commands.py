"""What a person at the command line gets: help, one clear line for what is wrong, results."""

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import pytest

from petwellness_orchestration.cli import main
from warehouse.duckdb.publish import PublishedTable, publish

# A command that hangs is a failure; a busy machine is none.
PATIENCE_S = 300


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def petwellness(*arguments: str, **settings: str) -> Ended:
    """The command in this process, which has imported already what a process of its own takes a second for."""
    # Binary underneath, as the streams of a process are.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: Any = None
    with (
        patch.dict(os.environ, settings),
        patch.object(sys, "argv", ["petwellness", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    shown, complained = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Ended(0 if code is None else int(code), shown, complained)


def petwellness_as_a_process(*arguments: str, **settings: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "petwellness_orchestration.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def fails_with_one_line(*arguments: str, **settings: str) -> str:
    """The one line of a command that fails, and leaves no traceback."""
    return one_line(petwellness(*arguments, **settings))


def one_line(failed: Ended) -> str:
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr + failed.stdout, failed.stderr
    lines = failed.stderr.strip().splitlines()
    assert len(lines) == 1, failed.stderr
    assert lines[0].startswith("petwellness: ")
    return lines[0]


def test_help_is_quick_and_touches_nothing(tmp_path: Path) -> None:
    shown = petwellness_as_a_process("--help", PETWELLNESS_HOME=str(tmp_path / "home"))
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in ("demo", "collect", "query"))
    assert not (tmp_path / "home").exists()


def test_a_broker_that_does_not_answer(tmp_path: Path) -> None:
    line = one_line(
        petwellness_as_a_process(
            "simulate",
            PETWELLNESS_HOME=str(tmp_path),
            PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1",
            PETWELLNESS_KAFKA_CONNECT_TIMEOUT_S="1",
        )
    )
    assert "127.0.0.1:1" in line
    assert "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS" in line


def test_a_collector_without_a_broker(tmp_path: Path) -> None:
    line = fails_with_one_line("collect", "--forever", PETWELLNESS_HOME=str(tmp_path))
    assert "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS" in line


def test_an_s3_that_does_not_answer(tmp_path: Path) -> None:
    line = fails_with_one_line(
        "simulate",
        PETWELLNESS_HOME=str(tmp_path),
        PETWELLNESS_LAKE_URL="s3://lake/x",
        PETWELLNESS_LAKE_ENDPOINT_URL="http://127.0.0.1:1",
        PETWELLNESS_LAKE_ACCESS_KEY_ID="k",
        PETWELLNESS_LAKE_SECRET_ACCESS_KEY="hidden",
    )
    assert "s3://lake/x" in line
    assert "http://127.0.0.1:1" in line
    assert "PETWELLNESS_LAKE_ENDPOINT_URL" in line
    assert "hidden" not in line


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    # A file where the folder should be: permissions do not stop root.
    (tmp_path / "lake").write_text("")
    line = fails_with_one_line(
        "simulate", PETWELLNESS_HOME=str(tmp_path / "home"), PETWELLNESS_LAKE_URL=str(tmp_path / "lake")
    )
    assert str(tmp_path / "lake") in line
    assert "PETWELLNESS_LAKE_URL" in line


def test_an_address_that_is_no_lake(tmp_path: Path) -> None:
    line = fails_with_one_line(
        "status", PETWELLNESS_HOME=str(tmp_path), PETWELLNESS_LAKE_URL="ftp://host/lake"
    )
    assert "ftp://host/lake" in line
    assert "PETWELLNESS_LAKE_URL" in line


@pytest.mark.parametrize("arguments", [["replay"], ["extract", "--data"], ["demo", "--data"]])
def test_a_data_folder_that_is_missing(tmp_path: Path, arguments: list[str]) -> None:
    missing = tmp_path / "nowhere"
    line = fails_with_one_line(*arguments, str(missing), PETWELLNESS_HOME=str(tmp_path / "home"))
    assert str(missing) in line
    assert not any((tmp_path / "home").rglob("*.parquet"))


def test_an_unknown_environment(tmp_path: Path) -> None:
    line = fails_with_one_line("status", PETWELLNESS_HOME=str(tmp_path), PETWELLNESS_ENVIRONMENT="staging")
    assert "PETWELLNESS_ENVIRONMENT='staging'" in line


def test_a_value_that_is_no_number(tmp_path: Path) -> None:
    line = fails_with_one_line("status", PETWELLNESS_HOME=str(tmp_path), PETWELLNESS_FLEET_DAYS="many")
    assert "fleet_days" in line


def test_a_warehouse_that_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)):
        line = one_line(petwellness_as_a_process("status", PETWELLNESS_HOME=str(tmp_path)))
    assert str(path) in line
    assert "PETWELLNESS_HOME" in line


def test_nothing_to_rebuild(tmp_path: Path) -> None:
    line = fails_with_one_line("rebuild", PETWELLNESS_HOME=str(tmp_path))
    assert str(tmp_path / "warehouse.duckdb") in line


@pytest.fixture(scope="module")
def published_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("published")
    con = duckdb.connect()
    con.execute("create schema anl")
    con.execute(
        "create table anl.steps as select 'p' || i as pet_id, date '2026-06-01' as event_date,"
        " (i * 1.5)::decimal(4, 1) as steps from range(3) t(i)"
    )
    publish(con, home / "published", [PublishedTable("anl", "steps", ("pet_id", "event_date", "steps"))])
    con.close()
    return home


def query(home: Path, *arguments: str) -> Ended:
    return petwellness("query", *arguments, PETWELLNESS_HOME=str(home))


SQL = "select pet_id, event_date, steps from anl.steps order by pet_id"


def test_a_query_as_a_table_is_for_people(published_home: Path) -> None:
    shown = query(published_home, SQL)
    assert shown.returncode == 0
    assert all(text in shown.stdout for text in ("pet_id", "p0", "p2", "3.0", "2026-06-01"))


def test_a_query_as_csv_and_json_is_for_programs(published_home: Path) -> None:
    as_csv = query(published_home, SQL, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.stdout)))
    assert [row["pet_id"] for row in rows] == ["p0", "p1", "p2"]
    assert [float(row["steps"]) for row in rows] == [0, 1.5, 3]
    as_json = query(published_home, SQL, "--format", "json")
    lines = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(line["pet_id"], line["event_date"], float(line["steps"])) for line in lines] == [
        ("p0", "2026-06-01", 0.0),
        ("p1", "2026-06-01", 1.5),
        ("p2", "2026-06-01", 3.0),
    ]


def test_without_sql_the_tables_are_listed(published_home: Path) -> None:
    shown = query(published_home, "--format", "json")
    assert [json.loads(line) for line in shown.stdout.splitlines()] == [
        {"schema": "anl", "name": "steps", "columns": 3}
    ]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select nothing from anl.steps", "nothing"),
        ("selec 1", "selec"),
        ("select * from anl.absent", "absent"),
        ("create table t as select 1", "read-only"),
        ("drop view anl.steps", "read-only"),
        ("insert into anl.steps values ('p9', null, 1)", "steps"),
    ],
)
def test_sql_that_fails_or_writes_is_one_line(published_home: Path, sql: str, words: str) -> None:
    line = fails_with_one_line("query", sql, PETWELLNESS_HOME=str(published_home))
    assert words.lower() in line.lower()


@pytest.fixture
def published_telemetry(tmp_path: Path) -> Path:
    """Two events of one pet, a day apart."""
    con = duckdb.connect()
    con.execute("create schema anl")
    con.execute(
        "create table anl.telemetry_events as select 'p1' as pet_id, event_ts, event_ts::date as event_date,"
        " event_ts + interval 5 second as arrival_ts, steps as step_count from (values"
        " (timestamp '2026-06-03 06:00', 40::bigint), (timestamp '2026-06-04 06:00', 90)) as events (event_ts, steps)"
    )
    con.execute("create schema ml")
    con.execute(
        "create table ml.feature_catalogue as select"
        " 'steps_delta_24h' as feature_name, 'current' as status, 1 / 1440 as min_coverage"
    )
    columns = ("pet_id", "event_ts", "event_date", "arrival_ts", "step_count")
    tables = [
        PublishedTable("anl", "telemetry_events", columns, "event_date"),
        PublishedTable("ml", "feature_catalogue", ("feature_name", "status", "min_coverage")),
    ]
    publish(con, tmp_path / "published", tables)
    con.close()
    return tmp_path


def test_a_saved_analysis_runs_on_the_published_copy_as_of_its_newest_event(
    published_telemetry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from petwellness_orchestration.cli.query import run_query

    monkeypatch.setenv("PETWELLNESS_HOME", str(published_telemetry))
    run_query(None, "json", 50, saved="activity_delta_24h")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # Five seconds after the second event: 90 steps in the last 24 hours, 40 in the 24 hours before.
    assert [(row["pet_id"], row["steps_24h"], row["activity_delta_24h"]) for row in rows] == [
        ("p1", 90, 1.25)
    ]


def test_a_saved_analysis_that_is_not_there_lists_those_that_are(published_home: Path) -> None:
    line = fails_with_one_line("query", "--saved", "rates", PETWELLNESS_HOME=str(published_home))
    assert "activity_delta_24h, no_show_rate_90d, pet_overview" in line


def test_an_unknown_format_lists_the_known(published_home: Path) -> None:
    line = fails_with_one_line("query", SQL, "--format", "xml", PETWELLNESS_HOME=str(published_home))
    assert "table, csv, json" in line


def test_nothing_published_yet(tmp_path: Path) -> None:
    line = fails_with_one_line("query", "select 1", PETWELLNESS_HOME=str(tmp_path))
    assert str(tmp_path / "published") in line
    assert "make demo" in line


def test_costs_are_an_accounts(tmp_path: Path) -> None:
    line = fails_with_one_line("costs", PETWELLNESS_HOME=str(tmp_path))
    assert "'embedded' has no Snowflake account" in line
    assert "PETWELLNESS_ENVIRONMENT" in line
    assert "choose table or json" in petwellness("costs", "--format", "xml").stderr
