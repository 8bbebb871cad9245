"""Costs, budget alerts and the access audit, executed on the emulator over views of account usage made for the test.

The views have the columns that Snowflake's documentation names (those that are asked
for, and what tells rows apart); their rows are ours. What an account writes there, and
when, is unverified.
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import dagster as dg
import pytest

from governance.account_usage.costs import asset_name, totals
from infrastructure.snowflake_emulator.local import LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database
from lake.landing import utc_now
from petwellness_orchestration.account_usage import operations_session, read_costs, write_audit
from petwellness_orchestration.cli import main
from petwellness_orchestration.settings import load_settings

DATABASE = "DEV__PETWELLNESS"
DAY = date(2026, 11, 26)
PETS = '{"app": "dbt", "asset": "anl/pets", "node": "model.petwellness.anl_pets", "run": "r1"}'
MANIFEST = {
    "nodes": {
        "a": {
            "resource_type": "model",
            "schema": "cur",
            "alias": "owners",
            "columns": {"name": {"config": {"meta": {"pii": True}}}, "district": {}},
        }
    }
}

VIEWS = {
    "warehouse_metering_history": (
        "start_time timestamp_ltz, end_time timestamp_ltz, warehouse_id number, warehouse_name varchar,"
        " credits_used number(38, 9), credits_used_compute number(38, 9),"
        " credits_used_cloud_services number(38, 9), credits_attributed_compute_queries number(38, 9)"
    ),
    "query_attribution_history": (
        "query_id varchar, warehouse_name varchar, query_tag varchar, user_name varchar, start_time timestamp_ltz,"
        " end_time timestamp_ltz, credits_attributed_compute float"
    ),
    "query_history": (
        "query_id varchar, session_id number, role_name varchar, warehouse_name varchar, query_tag varchar,"
        " user_name varchar, start_time timestamp_ltz, total_elapsed_time number, bytes_scanned number"
    ),
    "automatic_clustering_history": (
        "start_time timestamp_ltz, end_time timestamp_ltz, credits_used number(38, 9), table_name varchar,"
        " schema_name varchar, database_name varchar"
    ),
    "pipe_usage_history": (
        "pipe_id number, pipe_name varchar, start_time timestamp_ltz, end_time timestamp_ltz,"
        " credits_used number(38, 9)"
    ),
    "pipes": "pipe_id number, pipe_name varchar, pipe_schema varchar, pipe_catalog varchar",
    "table_storage_metrics": (
        "table_catalog varchar, table_schema varchar, table_name varchar, active_bytes number,"
        " time_travel_bytes number, failsafe_bytes number, retained_for_clone_bytes number, deleted boolean"
    ),
    "access_history": (
        "query_id varchar, query_start_time timestamp_ltz, user_name varchar, direct_objects_accessed variant,"
        " base_objects_accessed variant"
    ),
    "sessions": "session_id number, login_event_id number, user_name varchar",
    "login_history": (
        "event_id number, event_timestamp timestamp_ltz, user_name varchar, client_ip varchar,"
        " reported_client_type varchar, first_authentication_factor varchar"
    ),
}

Write = Callable[..., None]


@pytest.fixture(scope="module")
def account(start_emulator: Callable[[], AbstractContextManager[LocalEmulator]]) -> Iterator[LocalEmulator]:
    """An account with an environment `dev` and empty views of account usage.

    In an emulator of its own: that others have no such views is in parity's list of limits, and no statement of the
    emulator takes a database away again.
    """
    with start_emulator() as emulator:
        with emulator.connect() as con, con.cursor() as cursor:
            create_database(con, DATABASE, "file:///nowhere/landing/")
            cursor.execute("create database snowflake")
            cursor.execute("create schema snowflake.account_usage")
            for view, columns in VIEWS.items():
                cursor.execute(f"create table snowflake.account_usage.{view} ({columns})")
        yield emulator


@pytest.fixture
def write(account: LocalEmulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """`write(view, "expressions")` adds a row; the views and the audit begin empty. Settings are the account's."""
    for name, value in account.dbt_environment(DATABASE).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "dev")
    with account.connect() as con, con.cursor() as cursor:
        for view in VIEWS:
            cursor.execute(f"delete from snowflake.account_usage.{view}")
        cursor.execute(f"delete from {DATABASE}.ops.access_audit")

        def add(view: str, row: str) -> None:
            cursor.execute(f"insert into snowflake.account_usage.{view} select {row}")

        yield add


def at(day: date, time: str) -> str:
    return f"'{day} {time} +0000'::timestamp_tz"


def meter(write: Write, day: date, warehouse: str, compute: str, services: str = "0") -> None:
    write(
        "warehouse_metering_history",
        f"{at(day, '23:00:00')}, {at(day, '23:59:59')}, 1, '{warehouse}', {compute} + {services}, {compute},"
        f" {services}, 0",
    )


def statement(write: Write, day: date, warehouse: str, user: str, tag: str, credits: str) -> None:
    times = f"{at(day, '23:10:00')}, {at(day, '23:11:00')}"
    write("query_attribution_history", f"'q', '{warehouse}', '{tag}', '{user}', {times}, {credits}")


def test_a_report_is_of_one_environment_and_of_whole_utc_days(write: Write) -> None:
    for day in (DAY - timedelta(days=2), DAY - timedelta(days=1), DAY, DAY + timedelta(days=1)):
        meter(write, day, "DEV__TRANSFORMING_WH", "2", "0.5")
    meter(write, DAY, "PROD__TRANSFORMING_WH", "100")
    meter(write, DAY, "DEVELOPERS_WH", "100")
    statement(write, DAY, "DEV__TRANSFORMING_WH", "DBT_SERVICE", PETS, "0.1")
    statement(write, DAY, "DEV__TRANSFORMING_WH", "DBT_SERVICE", PETS, "0.2")
    for person in ("ANNA", "BERT"):
        statement(write, DAY, "DEV__TRANSFORMING_WH", person, "", "0.25")
    statement(write, DAY, "PROD__TRANSFORMING_WH", "DBT_SERVICE", PETS, "50")
    write(
        "query_history",
        f"'q', 1, 'R', 'DEV__TRANSFORMING_WH', '{PETS}', 'DBT_SERVICE', {at(DAY, '23:10:00')}, 1500, 10",
    )
    times = f"{at(DAY, '01:00:00')}, {at(DAY, '02:00:00')}"
    for database in (DATABASE, "PROD__PETWELLNESS"):
        write("automatic_clustering_history", f"{times}, 0.125, 'PETS', 'ANL', '{database}'")
    write("pipes", f"1, 'PETS', 'RAW', '{DATABASE}'")
    write("pipes", "2, 'PETS', 'RAW', 'PROD__PETWELLNESS'")
    for pipe_id in (1, 1, 2):
        write("pipe_usage_history", f"{pipe_id}, 'PETS', {times}, 0.25")
    write("table_storage_metrics", f"'{DATABASE}', 'ANL', 'PETS', 1, 2, 3, 4, false")
    write("table_storage_metrics", "'PROD__PETWELLNESS', 'ANL', 'PETS', 1000, 0, 0, 0, false")
    settings = load_settings()
    with operations_session(settings, "test", "run") as con:
        report = read_costs(settings, con, DAY, days=2)
    assert {total.name: total.credits for total in totals(report.lines, asset_name)} == {
        "anl/pets": Decimal("0.425"),
        "raw/pets": Decimal("0.5"),
        "(people)": Decimal("0.5"),
        "(idle)": Decimal("3.2"),
        "(cloud services)": Decimal(1),
    }
    [pets] = [line for line in report.lines if line.node]
    assert (pets.statements, pets.seconds, pets.bytes_scanned) == (1, Decimal("1.5"), 10)
    [table] = report.storage
    assert (table.schema, table.table, table.active_bytes, table.kept_bytes) == ("anl", "pets", 1, 9)


def read(write: Write, query: str, day: date, time: str, user: str, table: str, columns: list[str]) -> None:
    objects = json.dumps(
        [
            {"objectDomain": "Stage", "objectName": "X"},
            {
                "objectDomain": "Table",
                "objectName": table,
                "columns": [{"columnName": one} for one in columns],
            },
        ]
    )
    write(
        "access_history", f"'{query}', {at(day, time)}, '{user}', parse_json('[]'), parse_json('{objects}')"
    )


def test_the_audit_has_who_read_personal_columns_on_the_day_however_often_it_is_written(write: Write) -> None:
    owners = f"{DATABASE}.CUR.OWNERS"
    read(write, "q1", DAY, "00:00:00", "ANNA", owners, ["NAME", "DISTRICT"])
    read(write, "q2", DAY, "23:59:59", "DBT_SERVICE", owners, ["NAME"])
    read(write, "q3", DAY, "12:00:00", "ANNA", owners, ["DISTRICT"])
    read(write, "q4", DAY, "12:00:00", "ANNA", "PROD__PETWELLNESS.CUR.OWNERS", ["NAME"])
    read(write, "q5", DAY + timedelta(days=1), "00:00:00", "ANNA", owners, ["NAME"])
    write("query_history", f"'q1', 7, 'DATA_PROTECTION', 'W', '', 'ANNA', {at(DAY, '00:00:00')}, 1, 1")
    write("sessions", "7, 70, 'ANNA'")
    write("login_history", f"70, {at(DAY, '00:00:00')}, 'ANNA', '192.0.2.1', 'PYTHON_DRIVER', 'RSA_KEYPAIR'")
    settings = load_settings()
    now = datetime(2026, 12, 1)
    with operations_session(settings, "test", "run") as con:
        assert write_audit(settings, con, MANIFEST, DAY + timedelta(days=1), now) == 1
        assert [write_audit(settings, con, MANIFEST, DAY, now) for _ in range(2)] == [2, 2]
        rows = con.cursor().execute(f"select * from {DATABASE}.ops.access_audit order by query_id").fetchall()
    assert [row[:7] for row in rows] == [
        (DAY, datetime(2026, 11, 26), "q1", "ANNA", "DATA_PROTECTION", owners, "NAME"),
        (DAY, datetime(2026, 11, 26, 23, 59, 59), "q2", "DBT_SERVICE", None, owners, "NAME"),
        (DAY + timedelta(days=1), datetime(2026, 11, 27), "q5", "ANNA", None, owners, "NAME"),
    ]
    assert [row[8:] for row in rows] == [
        ("PYTHON_DRIVER", "192.0.2.1", "RSA_KEYPAIR"),
        (None, None, None),
        (None, None, None),
    ]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Texts that were posted to the alerts' address."""
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("PETWELLNESS_ALERT_WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/x")
    yield posted
    server.shutdown()
    thread.join()


def test_each_level_of_a_day_is_told_once_by_the_asset(write: Write, webhook: list[str]) -> None:
    from petwellness_orchestration.defs.operations.account_usage import costs
    from petwellness_orchestration.resources import PlatformResource

    today = utc_now().date()
    with dg.DagsterInstance.ephemeral() as instance:

        def report() -> dict[str, Any]:
            done = dg.materialize([costs], instance=instance, resources={"platform": PlatformResource()})
            assert done.success
            [event] = done.asset_materializations_for_node("operations__costs")
            return {key: value.value for key, value in event.metadata.items()}

        # 20 dollars a day in dev, 2 a credit: 7.9, 8.5 and 11 credits.
        meter(write, today, "DEV__TRANSFORMING_WH", "7.9")
        assert report()["told"] == {}
        meter(write, today, "DEV__TRANSFORMING_WH", "0.6")
        assert [report()["told"] for _ in range(2)] == [{today.isoformat(): 1}] * 2
        meter(write, today, "DEV__TRANSFORMING_WH", "2.5")
        metadata = [report() for _ in range(2)][-1]
    assert metadata["told"] == {today.isoformat(): 2}
    assert metadata["dollars_by_day"] == {today.isoformat(): 22.0}
    warning, alert = webhook
    assert f"dev: {today} is near its budget, 17.00 of 20.00 dollars (85 %)" in warning
    assert f"dev: {today} is over its budget, 22.00 of 20.00 dollars (110 %)" in alert


def test_the_command_reports_and_fails_over_the_budget(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*arguments: str) -> tuple[int, str]:
        """Exit code and output of the command, in this process."""
        monkeypatch.setattr(sys, "argv", ["petwellness", "costs", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out

    today = utc_now().date()
    meter(write, today, "DEV__TRANSFORMING_WH", "4", "0.5")
    statement(write, today, "DEV__TRANSFORMING_WH", "DBT_SERVICE", PETS, "3")
    code, shown = command("--days", "2", "--format", "json")
    assert code == 0
    report = json.loads(shown)
    assert Decimal(report["dollars"]) == 9
    assert [(one["name"], Decimal(one["credits"])) for one in report["assets"]] == [
        ("anl/pets", 3),
        ("(idle)", 1),
        ("(cloud services)", Decimal("0.5")),
    ]
    meter(write, today, "DEV__TRANSFORMING_WH", "6")
    code, shown = command("--days", "1")
    assert code == 1
    assert "10.500 credits, 21.00 dollars at 2 a credit" in shown
    assert "20.00 exceeded" in shown
    assert "model.petwellness.anl_pets" in shown
