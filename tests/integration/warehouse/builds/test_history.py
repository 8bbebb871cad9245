"""The history of builds in a real warehouse file: written once, compared with the build before."""

from datetime import date, datetime, timedelta

import duckdb
import pytest

from petwellness_orchestration.observing import duckdb_ops, keep_history, observe
from warehouse.builds.history import Build, ModelRun, TestRun, compared_columns, present_columns, record_build
from warehouse.builds.sessions import DuckDBOps, carry_over

START = datetime(2026, 6, 1, 3, 0)


def build(run_id, hours=0, day_count=1, is_full=False, seconds=2.0, status="pass", **more):
    started_at = START + timedelta(hours=hours)
    return Build(
        run_id=run_id,
        started_at=started_at,
        duration_s=10.0,
        succeeded=status == "pass",
        day_count=day_count,
        is_full=is_full,
        models=[ModelRun("anl.events", "success", started_at, seconds, 100)],
        tests=[TestRun("events_key_is_unique", status, started_at, 0.1, 0 if status == "pass" else 3)],
        **{"as_of_ts": None, **more},
    )


@pytest.fixture
def con(tmp_path):
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        connection.execute("create schema anl")
        connection.execute("create table anl.events (event_id varchar, steps integer)")
        yield connection


def asked(con):
    return lambda sql: con.execute(sql).fetchall()


def record(con, one):
    return record_build(DuckDBOps(con), one, present_columns(asked(con)))


def observed(con, run_id=None):
    return observe(DuckDBOps(con), run_id)


def count(con, table):
    return con.execute(f"select count(*) from ops.{table}").fetchone()[0]


def test_one_row_per_build_model_test_and_day_and_the_same_build_again_replaces_it(con):
    volumes = {"anl.events": {date(2026, 6, 1): 7, date(2026, 6, 2): 0}}
    for _ in range(2):
        record(con, build("a", volumes=volumes))
    assert {name: count(con, name) for name in ("builds", "model_runs", "test_results", "table_volumes")} == {
        "builds": 1,
        "model_runs": 1,
        "test_results": 1,
        "table_volumes": 2,
    }
    assert con.execute("select table_name, status, duration_s, row_count from ops.model_runs").fetchall() == [
        ("anl.events", "success", 2.0, 100)
    ]


def test_columns_that_come_go_and_change_are_told_once_with_their_names(con):
    assert record(con, build("a")) == []
    con.execute("alter table anl.events add column licks bigint")
    con.execute("alter table anl.events drop column event_id")
    con.execute("alter table anl.events alter steps type bigint")
    con.execute("create table anl.more (x integer)")
    expected = [
        "anl.events.event_id removed",
        "anl.events.licks added (BIGINT)",
        "anl.events.steps was INTEGER and is BIGINT",
    ]
    assert [str(change) for change in record(con, build("b", 1))] == expected
    # The same build written again finds the same.
    assert [str(change) for change in record(con, build("b", 1))] == expected
    assert record(con, build("c", 2)) == []
    assert observed(con, "b").column_changes == expected
    assert observed(con, "c").column_changes == observed(con).column_changes == []
    con.execute("drop table anl.more")
    assert [str(change) for change in record(con, build("d", 3))] == ["anl.more.x removed"]


def test_compared_columns_names_each_kind_of_change():
    before = {"a": {"x": "int", "y": "int"}, "gone": {"z": "int"}}
    now = {"a": {"x": "text", "w": "int"}, "new": {"v": "int"}}
    assert [(one.table_name, one.column_name, one.change) for one in compared_columns(before, now)] == [
        ("a", "w", "added"),
        ("a", "x", "changed"),
        ("a", "y", "removed"),
        ("gone", "z", "removed"),
        ("new", "v", "first"),
    ]


def test_times_are_compared_with_builds_of_about_as_many_days(con):
    for number in range(5):
        record(con, build(f"small-{number}", number, seconds=2.0))
        record(con, build(f"large-{number}", number, day_count=30, seconds=60.0))
        record(con, build(f"first-{number}", number, is_full=True, seconds=90.0))
    record(con, build("slow", 10, seconds=61.0))
    (time,) = observed(con, "slow").times
    assert (time.usual_s, time.is_slow) == (2.0, True)
    record(con, build("large", 11, day_count=40, seconds=61.0))
    (time,) = observed(con).times
    assert (time.usual_s, time.is_slow) == (60.0, False)


def test_a_failing_test_is_told_with_its_history_and_volumes_as_last_counted(con):
    day = date(2026, 6, 8)
    usual = {day - timedelta(days=back): 100 for back in range(8)}
    as_of = datetime(2026, 6, 9, 12)
    record(con, build("a", volumes={"anl.events": {**usual, day: 3}}, as_of_ts=as_of))
    record(con, build("b", 1, status="fail", volumes={"anl.events": {day: 100}}, as_of_ts=as_of))
    first, second = observed(con, "a"), observed(con, "b")
    assert first.failing_tests == {}
    assert second.failing_tests == {"events_key_is_unique": ["pass", "fail"]}
    assert not second.succeeded
    # Monday 8 June; the five weekdays before it have 100 each.
    monday = next(one for one in second.volumes if one.event_date == day)
    assert (monday.row_count, monday.usual, monday.is_anomaly) == (100, 100, False)
    assert [(one.newest, one.is_stale) for one in second.freshness] == [(day, False)]


def test_old_builds_go_and_columns_stay_known(con):
    record(con, build("old"))
    record(con, build("new", hours=24 * 401))
    assert con.execute("select run_id from ops.builds").fetchall() == [("new",)]
    assert count(con, "test_results") == 1
    assert record(con, build("next", hours=24 * 402)) == []


def test_what_cannot_be_written_is_said_and_undoes_nothing(con):
    record(con, build("a"))
    con.execute("alter table ops.test_results drop column status")
    said = []
    keep_history(duckdb_ops(con), asked(con), build("b", 1), said.append)
    assert said
    assert "could not be written" in said[0]
    assert con.execute("select run_id from ops.builds").fetchall() == [("a",)]
    assert observed(con, "b") is None


def test_a_rebuild_carries_the_history_over(con, tmp_path):
    record(con, build("a", volumes={"anl.events": {date(2026, 6, 1): 7}}))
    con.close()
    assert carry_over(tmp_path / "warehouse.duckdb", tmp_path / "fresh.duckdb") == 1
    with duckdb.connect(str(tmp_path / "fresh.duckdb")) as fresh:
        assert observed(fresh).run_id == "a"
        assert count(fresh, "table_volumes") == 1
        assert fresh.execute(
            "select count(*) from information_schema.tables where table_schema = 'anl'"
        ).fetchone() == (0,)
