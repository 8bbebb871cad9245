"""What real input has to get right, counted over the platform's own tables.

One query for each figure; the same figures computed straight from the files, by
other code, are in `tests/realdata_reference.py`. Sources are told apart by
`source_system`.
"""

from __future__ import annotations

from typing import Any

from petwellness_orchestration.settings import PlatformSettings

REGISTRY = "zurich-registry"
TRACKER = "campusiot"
CATS = "movebank"
SHELTER = "longbeach-shelter"

# A frame is late when it reached the server more than this after its report.
LATE_S = 60

REGISTRY_CHANGES_SQL = f"""
with versions as (
    select
        owner_id,
        cast(valid_from as date) as snapshot_date,
        district,
        is_deleted,
        lag(district) over previous as previous_district,
        lag(is_deleted) over previous as previous_is_deleted
    from cur.owners
    where source_system = '{REGISTRY}'
    window previous as (partition by owner_id order by valid_from)
)
select
    cast(snapshot_date as varchar) as snapshot,
    count(*) filter (
        not is_deleted and not previous_is_deleted and district <> previous_district
    ) as district_changed,
    count(*) filter (is_deleted and not previous_is_deleted) as owners_left,
    count(*) filter (not is_deleted and coalesce(previous_is_deleted, true)) as owners_came,
    count(*) filter (not is_deleted and previous_is_deleted) as owners_returned
from versions
where snapshot_date > (select min(snapshot_date) from versions)
group by snapshot
order by snapshot
"""

REGISTRY_ROWS_SQL = f"""
select
    cast(cast(owners.extracted_at as date) as varchar) as snapshot,
    count(distinct owners.owner_id) as owners,
    any_value(dogs.dogs) as dogs,
    any_value(dogs.impossible_birth_years) as impossible_birth_years
from raw.owners as owners
inner join (
    select extracted_at, count(*) as dogs, count(*) filter (birth_year is null) as impossible_birth_years
    from raw.pets
    where source_system = '{REGISTRY}'
    group by extracted_at
) as dogs on dogs.extracted_at = owners.extracted_at
where owners.source_system = '{REGISTRY}'
group by snapshot
order by snapshot
"""

# One row per frame received, however often its wave was published.
TRACKER_SQL = f"""
with received as (
    select distinct device_id, event_id, event_ts, arrival_ts, gps_lat
    from raw.telemetry_events
    where source_system = '{TRACKER}'
),
ordered as (
    select
        *,
        max(event_ts) over (
            partition by device_id order by arrival_ts
            rows between unbounded preceding and 1 preceding
        ) as newest_before
    from received
)
select
    count(*) as frames,
    count(*) - count(distinct (device_id, event_id)) as repeated,
    count(*) filter (arrival_ts - event_ts > interval {LATE_S} second) as late,
    count(*) filter (event_ts < newest_before) as out_of_order,
    count(*) filter (gps_lat is null) as without_fix
from ordered
"""

TRACKERS_WITHOUT_PET_SQL = f"""
select count(distinct device_id) as trackers_without_pet
from stg.telemetry_events as events
where
    source_system = '{TRACKER}'
    and not exists (
        select 1 from cur.device_assignments as assignments
        where assignments.device_id = events.device_id and not assignments.is_deleted
    )
"""

CATS_SQL = f"""
select
    count(*) as fixes,
    count(*) filter (quality_score = 0) as flagged_outliers,
    count(*) filter (pet_id <> 'unknown') as fixes_on_a_cat,
    count(distinct pet_id) filter (pet_id <> 'unknown') as cats
from anl.telemetry_events
where source_system = '{CATS}'
"""

SHELTER_SQL = f"""
with animals as (
    select
        pet_id,
        count(*) as visits,
        count(distinct visit_ts) filter (status is distinct from 'cancelled') as days_in
    from cur.clinic_visits
    where source_system = '{SHELTER}' and is_current and not is_deleted
    group by pet_id
)
select
    count(*) as animals,
    cast(sum(visits) as bigint) as visits,
    count(*) filter (visits > 1) as animals_with_several_visits,
    count(*) filter (days_in > 1) as animals_that_return
from animals
"""

EVENT_DAYS_SQL = """
select
    count(distinct event_date) as event_days,
    cast(min(event_date) as varchar) as first_event_day,
    cast(max(event_date) as varchar) as last_event_day
from stg.telemetry_events
"""


def compute(settings: PlatformSettings) -> dict[str, Any]:
    """Figures by subject; the registry's by date of snapshot. Needs the tables of a finished build."""
    from warehouse.duckdb.raw import fetch_rows, open_warehouse

    with open_warehouse(settings.warehouse_path, read_only=True) as con:
        registry = fetch_rows(con, REGISTRY_ROWS_SQL)
        changes = {row["snapshot"]: row for row in fetch_rows(con, REGISTRY_CHANGES_SQL)}
        figures: dict[str, Any] = {
            f"registry_{row['snapshot']}": _without_snapshot({**row, **changes.get(row["snapshot"], {})})
            for row in registry
        }
        figures["tracker"] = {
            **fetch_rows(con, TRACKER_SQL)[0],
            **fetch_rows(con, TRACKERS_WITHOUT_PET_SQL)[0],
        }
        figures["cats"] = fetch_rows(con, CATS_SQL)[0]
        figures["shelter"] = fetch_rows(con, SHELTER_SQL)[0]
        figures["event_days"] = fetch_rows(con, EVENT_DAYS_SQL)[0]
    for snapshot, count in _duplicate_rows(settings).items():
        figures[f"registry_{snapshot}"]["exact_duplicate_rows"] = count
    return figures


def _duplicate_rows(settings: PlatformSettings) -> dict[str, int]:
    """Registry rows that repeat another of their snapshot, set aside before landing."""
    import csv
    import re

    from petwellness_orchestration.sources import PROBLEMS_NAME

    found: dict[str, int] = {}
    with (settings.state.home / PROBLEMS_NAME).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = re.match(r"registry/zurich_(\d{4})(\d{2})(\d{2})_", row["file"])
            if name and row["reason"] == "duplicate_row":
                snapshot = "-".join(name.groups())
                found[snapshot] = found.get(snapshot, 0) + 1
    return found


def _without_snapshot(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "snapshot"}
