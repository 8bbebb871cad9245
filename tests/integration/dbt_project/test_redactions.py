"""Rows that a redaction takes out of raw leave every model that was built from them."""

from datetime import timedelta
from typing import Any

import pytest
from seeded_raw import DAY, FIRST_DAY, small_world

from warehouse.compare import compare_tables

DAYS = 9
END = f"{FIRST_DAY + (DAYS + 4) * DAY:%Y-%m-%d %H:%M:%S}"

# What is redacted: collar d1 from the middle of day 3 to the middle of day 5, and pet p3 with its collar d3 as a whole.
FROM, TO = FIRST_DAY + 3 * DAY + timedelta(hours=11), FIRST_DAY + 5 * DAY + timedelta(hours=11)
ERASED = {
    "pets": "pet_id",
    "device_assignments": "pet_id",
    "clinic_visits": "pet_id",
    "visit_documents": "pet_id",
}
ERASED_RECORDS = {feed: f"{column} = 'p3'" for feed, column in ERASED.items()}


def is_redacted(feed: str, row: dict[str, Any]) -> bool:
    if feed == "telemetry_events":
        return row["device_id"] == "d3" or (row["device_id"] == "d1" and FROM <= row["arrival_ts"] < TO)
    return feed in ERASED and row[ERASED[feed]] == "p3"


def redacted_ranges(gone: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the loader counts: redacted rows of each extract."""
    counts: dict[tuple[str, str], int] = {}
    for feed, rows in gone.items():
        for row in rows:
            counts[feed, row["stream_id"]] = counts.get((feed, row["stream_id"]), 0) + 1
    return [
        {"stream_id": stream, "kafka_partition": 0, "start_offset": 0, "feed": feed, "redacted_count": count}
        for (feed, stream), count in counts.items()
        if feed != "telemetry_events"
    ]


def test_after_a_redaction_the_touched_days_equal_a_warehouse_that_never_had_the_rows(
    make_warehouse, whole_world
):
    world = small_world(seed=7, days=DAYS)
    gone = {feed: [row for row in rows if is_redacted(feed, row)] for feed, rows in world.items()}
    left = {feed: [row for row in rows if row not in gone[feed]] for feed, rows in world.items()}
    assert min(len(gone[feed]) for feed in ("telemetry_events", *ERASED)) > 0

    never_had = make_warehouse({**left, "redacted_ranges": redacted_ranges(gone)})
    never_had.build(variables={"as_of_ts": END}, without=("unit_test", "test"))

    had = whole_world()
    events = (
        f"device_id = 'd3' or (device_id = 'd1'"
        f" and arrival_ts >= timestamp '{FROM}' and arrival_ts < timestamp '{TO}')"
    )
    had.redact({"telemetry_events": events, **ERASED_RECORDS})
    had.load({"redacted_ranges": redacted_ranges(gone)})
    dirty = sorted({f"{row['event_ts']:%Y-%m-%d}" for row in gone["telemetry_events"]})
    had.build(variables={"dirty_days": dirty, "as_of_ts": END})

    tables = never_had.tables()
    assert tables == had.tables()
    with never_had.connect() as con_a, had.connect() as con_b:
        differences = [
            str(difference) for table in tables for difference in compare_tables(con_a, table, con_b, table)
        ]
    assert differences == []


# With what they read: models of pets, of their assignments, visits and documents, by day and as they are.
OF_THE_ERASED = ("+anl_pet_daily_summary", "+anl_documents_to_review")


@pytest.mark.parametrize(
    "models",
    [("--select", *OF_THE_ERASED), pytest.param((), marks=pytest.mark.full)],
    ids=["models_of_the_erased", "every_model"],
)
def test_a_redaction_of_records_alone_reaches_the_models(make_warehouse, whole_world, models):
    world = small_world(seed=7, days=DAYS)
    gone = {feed: [row for row in world[feed] if is_redacted(feed, row)] for feed in ERASED}
    left = {feed: [row for row in rows if row not in gone.get(feed, [])] for feed, rows in world.items()}
    never_had = make_warehouse({**left, "redacted_ranges": redacted_ranges(gone)})
    never_had.build(*models, variables={"as_of_ts": END}, without=("unit_test", "test"))
    had = whole_world()
    had.redact(ERASED_RECORDS)
    had.build(*models, variables={"dirty_days": [], "as_of_ts": END}, without=("unit_test", "test"))
    # The note on inputs has a row for each model.
    compared = [table for table in never_had.tables() if not models or table != "cur.applied_inputs"]
    assert "anl.documents_to_review" in compared
    with never_had.connect() as con_a, had.connect() as con_b:
        for table in compared:
            assert compare_tables(con_a, table, con_b, table) == [], table
