{{ config(meta={'dagster': {'ref': {'name': 'stg_telemetry_events'}}}) }}
-- Every raw telemetry record is in stg or set aside as a duplicate, day by day
-- and to the row. Returns the days that do not add up.
{% set days = tested_days() %}
with counts as (
    select
        cast(event_ts as date) as event_date,
        count(*) as raw_rows,
        0 as staged_rows,
        0 as duplicate_rows
    from {{ source('raw', 'telemetry_events') }}
    where {{ ts_in_days('event_ts', days) }}
    group by cast(event_ts as date)
    union all
    select
        event_date,
        0 as raw_rows,
        count(*) as staged_rows,
        0 as duplicate_rows
    from {{ ref('stg_telemetry_events') }}
    where {{ date_in_days('event_date', days) }}
    group by event_date
    union all
    select
        event_date,
        0 as raw_rows,
        0 as staged_rows,
        count(*) as duplicate_rows
    from {{ ref('stg_telemetry_duplicates') }}
    where {{ date_in_days('event_date', days) }}
    group by event_date
)

select
    event_date,
    sum(raw_rows) as raw_rows,
    sum(staged_rows) as staged_rows,
    sum(duplicate_rows) as duplicate_rows
from counts
group by event_date
having sum(raw_rows) <> sum(staged_rows) + sum(duplicate_rows)
