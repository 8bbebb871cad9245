"""Whole builds: increments equal a rebuild, and features know nothing later than their end."""

from datetime import datetime

import pytest
from seeded_raw import DAY, FIRST_DAY, merged, small_world, split_into_batches

from warehouse.compare import compare_tables
from petwellness_orchestration.defs.warehouse.manifest import read_manifest
from petwellness_orchestration.defs.warehouse.translator import is_daily

DAYS = 9
END = FIRST_DAY + (DAYS + 4) * DAY


def as_of(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


@pytest.fixture(scope="module")
def world():
    return small_world(seed=7, days=DAYS)


@pytest.fixture(scope="module")
def rebuilt(whole_world):
    return whole_world()


def assert_same_tables(warehouse_a, warehouse_b, tables=None):
    """All tables, of which both have the same, or those named."""
    if tables is None:
        tables = warehouse_a.tables()
        assert tables == warehouse_b.tables()
    with warehouse_a.connect() as con_a, warehouse_b.connect() as con_b:
        differences = [
            str(difference) for table in tables for difference in compare_tables(con_a, table, con_b, table)
        ]
    assert differences == []


@pytest.mark.parametrize(
    "in_short", [True, pytest.param(False, marks=pytest.mark.full)], ids=["2_batches", "4_batches"]
)
def test_increments_in_any_order_equal_a_rebuild(make_warehouse, rebuilt, world, in_short):
    incremental = make_warehouse({})
    batches = split_into_batches(world, seed=3, first_days=[0, 5], straggling_day=2)
    if in_short:
        # Late records and the events of a straggling day come with the second half of the days.
        batches[1:] = [merged(batches[1:])]
    # The last run brings nothing: days only become complete as time passes.
    ends = [FIRST_DAY + 4 * DAY, *[FIRST_DAY + 8 * DAY] * (len(batches) - 1), END]
    for batch, known in zip([*batches, {}], ends, strict=True):
        incremental.load(batch)
        dirty = sorted({f"{row['event_ts']:%Y-%m-%d}" for row in batch.get("telemetry_events", [])})
        # dbt's tests passed on the other, which is the same in the end.
        incremental.build(
            variables={"dirty_days": dirty, "as_of_ts": as_of(known)}, without=("unit_test", "test")
        )
    assert_same_tables(rebuilt, incremental)


# Kept by day, and read others that are; a person may build them without those.
LEAVES = (
    "anl_pet_daily_summary",
    "anl_clinic_daily_collars",
    "anl_wellness_transitions",
    "ml_computed_features",
)


def test_models_built_alone_leave_to_the_next_whole_build_what_is_its(make_warehouse, rebuilt, world):
    first, *later = split_into_batches(world, seed=3, first_days=[0, 5], straggling_day=2)
    whole = ("--select", *(f"+{name}" for name in LEAVES))
    warehouse = make_warehouse(first)
    known = as_of(FIRST_DAY + 4 * DAY)
    warehouse.build(*whole, variables={"as_of_ts": known}, without=("unit_test", "test"))
    for batch in later:
        warehouse.load(batch)
    # All that is kept whole takes in what is new, then the leaves are built of what they read as it was.
    nodes = read_manifest()["nodes"].values()
    others = sorted(node["name"] for node in nodes if is_daily(node) and node["name"] not in LEAVES)
    warehouse.build(
        *(*whole, "--exclude", *others),
        variables={"dirty_days": [f"{FIRST_DAY + DAY:%Y-%m-%d}"], "as_of_ts": known},
        without=("unit_test", "test"),
    )
    events = [row for batch in later for row in batch.get("telemetry_events", [])]
    dirty = sorted({f"{row['event_ts']:%Y-%m-%d}" for row in events})
    warehouse.build(
        *whole, variables={"dirty_days": dirty, "as_of_ts": as_of(END)}, without=("unit_test", "test")
    )
    # Other models than these have bookkeeping, too, in the one that was built of everything.
    built = [table for table in warehouse.tables() if table != "cur.applied_inputs"]
    assert_same_tables(rebuilt, warehouse, built)


# Whose clocks a night follows is known by what records say now: a visit that is told late moves it (decision 048).
OF_THE_NIGHT = (
    "night_steps",
    "night_steps_ratio_24h",
    "night_rest_minutes",
    "night_rest_ratio",
    "night_longest_rest_minutes",
    "night_interruption_rate",
    "night_rest_ratio_delta_7d",
    "day_lick_rate",
    "night_lick_rate",
    "night_rest_respiration",
)


def test_features_are_the_same_when_nothing_later_is_known(make_warehouse, rebuilt, world):
    end_ts = FIRST_DAY + 6 * DAY
    known = {
        name: [row for row in rows if row["arrival_ts"] <= end_ts]
        for name, rows in world.items()
        if name != "extracts"
    }
    streams = {row["stream_id"] for row in known["clinic_visits"]}
    known["extracts"] = [row for row in world["extracts"] if row["stream_id"] in streams]
    truncated = make_warehouse(known)
    truncated.build(
        *("--select", "+ml_computed_features"),
        variables={"as_of_ts": as_of(end_ts)},
        without=("unit_test", "test"),
    )
    for warehouse in (rebuilt, truncated):
        with warehouse.connect() as con:
            con.execute(
                "create or replace table known_features as select * from ml.computed_features "
                f"where end_ts = '{as_of(end_ts)}' and not list_contains({[*OF_THE_NIGHT]}, feature_name)"
            )
    with rebuilt.connect() as con_a, truncated.connect() as con_b:
        assert con_a.execute("select count(value) from known_features").fetchone()[0] > 40
        assert compare_tables(con_a, "known_features", con_b, "known_features", ["feature_id"]) == []
        con_a.execute("drop table known_features")
