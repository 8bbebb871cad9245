"""Builds over a warehouse whose old events are in cold storage give what a warehouse without tiers gives."""

from datetime import date
from pathlib import Path

import pytest
from seeded_raw import DAY, FIRST_DAY, merged, small_world, split_into_batches

from lake.store import LocalStore
from warehouse.compare import compare_tables
from warehouse.duckdb.raw import WAREHOUSE_MARK, latest_load_seq, open_warehouse, set_build_mark
from governance.archive.cold import load_cold_days
from governance.archive.archive import find_problems, retain
from governance.archive.policy import TieredTable

DAYS = 9
END = FIRST_DAY + (DAYS + 4) * DAY
# Of the nine days the first seven are past the limit at the end.
EVENTS = TieredTable("anl", "telemetry_events", "hot", 7, order=("event_date", "pet_id"))
# The models that read them.
READERS = ("anl_telemetry_summary_hourly", "anl_daily_activity", "anl_pet_daily_summary")


def variables(dirty, known):
    return {"dirty_days": dirty, "as_of_ts": f"{known:%Y-%m-%d %H:%M:%S}"}


def move(warehouse, store, known, scratch: Path):
    with open_warehouse(warehouse.path) as con:
        # What was loaded was built, as the asset notes it; nothing moves before.
        set_build_mark(con, WAREHOUSE_MARK, latest_load_seq(con))
        return retain(con, store, [EVENTS], known, END, scratch)


def cold_dates(warehouse):
    return [row["event_date"] for row in warehouse.rows("select event_date from raw.cold_days order by 1")]


def differences(straight, tiered, store, in_short):
    """Of every table, in short of every one that `tiered` has; the events of a tiered warehouse are those it holds
    and those in cold storage."""
    tables = tiered.tables()
    if in_short:
        # The note on inputs has a row for each model, and the other warehouse has models more.
        tables.remove("cur.applied_inputs")
        assert {*tables} >= {name.replace("_", ".", 1) for name in READERS}
    else:
        assert tables == straight.tables()
    cold = load_cold_days(store)
    with straight.connect() as con_a, tiered.connect() as con_b:
        con_b.execute("create or replace table raw.whole as from anl.telemetry_events")
        for (day,) in con_b.execute("select event_date from raw.cold_days").fetchall():
            for file in cold["anl.telemetry_events", day].files:
                con_b.execute(
                    "insert into raw.whole select * from read_parquet(?, hive_partitioning = false)",
                    [store.uri(file.key)],
                )
        found = [
            str(one)
            for table in tables
            for one in compare_tables(
                con_a, table, con_b, "raw.whole" if table == "anl.telemetry_events" else table
            )
        ]
        con_b.execute("drop table raw.whole")
    return found


@pytest.fixture(scope="module")
def world():
    return small_world(seed=7, days=DAYS)


@pytest.fixture(scope="module")
def straight(whole_world):
    return whole_world()


@pytest.fixture(
    scope="module",
    params=[True, pytest.param(False, marks=pytest.mark.full)],
    ids=["2_batches", "4_batches"],
)
def in_short(request):
    """Whether all corrections come with the second half of the days, for the tables that read the events alone."""
    return request.param


@pytest.fixture(scope="module")
def models(in_short):
    """What is built: the table that has tiers and every reader of it, or everything."""
    return (
        ("--select", *(f"+{name}" for name in READERS), "--indirect-selection", "cautious")
        if in_short
        else ()
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory, in_short):
    return LocalStore(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def tiered(make_warehouse, world, store, tmp_path_factory, in_short, models):
    """Increments with late events and corrections for days that have moved; days move after each of them."""
    scratch = tmp_path_factory.mktemp("scratch")
    warehouse = make_warehouse({})
    batches = split_into_batches(world, seed=3, first_days=[0, 5], straggling_day=2)
    if in_short:
        batches[1:] = [merged(batches[1:])]
    came_back = set()
    for batch in [*batches, {}]:
        moved = set(cold_dates(warehouse))
        warehouse.load(batch)
        dirty = sorted({f"{row['event_ts']:%Y-%m-%d}" for row in batch.get("telemetry_events", [])})
        last = not batch
        warehouse.build(
            *models,
            variables=variables(dirty, END),
            without=("unit_test",) if last else ("unit_test", "test"),
        )
        came_back |= moved - set(cold_dates(warehouse))
        move(warehouse, store, END, scratch)
    # The straggling day at least, or this shows nothing.
    assert date(2026, 6, 3) in came_back
    return warehouse


def test_increments_over_moved_days_equal_a_warehouse_without_tiers(straight, tiered, store, in_short):
    assert cold_dates(tiered) == [date(2026, 6, day) for day in range(1, 8)]
    with open_warehouse(tiered.path) as con:
        assert find_problems(con, store) == {"anl.telemetry_events": []}
        assert con.execute("select min(event_date) from anl.telemetry_events").fetchone()[0] == date(
            2026, 6, 8
        )
    assert differences(straight, tiered, store, in_short) == []


def build_activity_alone(warehouse, dirty, *args):
    """dbt's message on anl.daily_activity, without building the events it reads."""
    run = warehouse.invoke("run", "--select", "anl_daily_activity", *args, variables=variables(dirty, END))
    [result] = run.result.results
    return str(result.status), " ".join((result.message or "").split())


def test_a_table_is_not_built_from_days_that_are_elsewhere(tiered):
    before = tiered.rows("select * from anl.daily_activity order by all")
    status, message = build_activity_alone(tiered, ["2026-06-02", "2026-06-08"])
    assert status == "error"
    assert "without 1 days of anl.telemetry_events that are in cold storage, from 2026-06-02 on" in message
    status, message = build_activity_alone(tiered, None, "--full-refresh")
    assert status == "error"
    assert "without 7 days of anl.telemetry_events that are in cold storage, from 2026-06-01 on" in message
    # A day that is in the warehouse can be.
    assert build_activity_alone(tiered, ["2026-06-08"])[0] == "success"
    assert tiered.rows("select * from anl.daily_activity order by all") == before


def test_a_day_that_only_a_reader_builds_comes_back_for_it(
    straight, tiered, store, models, in_short, tmp_path
):
    """As when an input changes that the summary has and the events have not."""
    with tiered.connect() as con:
        con.execute(
            "delete from cur.applied_inputs where model_name = 'anl.daily_activity' and event_date = '2026-06-04'"
        )
        con.execute("delete from anl.daily_activity where event_date = '2026-06-04'")
    tiered.build(*models, variables=variables([], END), without=("unit_test", "test"))
    assert date(2026, 6, 4) not in cold_dates(tiered)
    assert len(cold_dates(tiered)) == 6
    assert differences(straight, tiered, store, in_short) == []
    assert move(tiered, store, END, tmp_path).reused_days == 1


def test_a_rebuild_of_everything_brings_all_days_back_and_they_move_again_as_they_are(
    straight, tiered, store, models, tmp_path
):
    before = load_cold_days(store)
    tiered.build(*models, variables=variables(None, END), without=("unit_test", "test"))
    assert cold_dates(tiered) == []
    with straight.connect() as con_a, tiered.connect() as con_b:
        assert compare_tables(con_a, "anl.telemetry_events", con_b, "anl.telemetry_events") == []
    report = move(tiered, store, END, tmp_path)
    assert (report.reused_days, report.written_bytes) == (7, 0)
    assert load_cold_days(store) == before
