{{ config(meta={'dagster': {'ref': {'name': 'anl_telemetry_events'}}}) }}
-- anl has exactly the events of stg: the join to assignments neither adds nor
-- drops one. Days in cold storage count as they were moved. Returns the days that differ.
{% set days = tested_days() %}
with counts as (
    select
        event_date,
        count(*) as staged_rows,
        0 as analytic_rows
    from {{ ref('stg_telemetry_events') }}
    where {{ date_in_days('event_date', days) }}
    group by event_date
    union all
    select
        event_date,
        0 as staged_rows,
        count(*) as analytic_rows
    from {{ ref('anl_telemetry_events') }}
    where {{ date_in_days('event_date', days) }}
    group by event_date
    union all
    select
        event_date,
        0 as staged_rows,
        row_count as analytic_rows
    from {{ source('raw', 'cold_days') }}
    where table_name = 'anl.telemetry_events' and {{ date_in_days('event_date', days) }}
)

select
    event_date,
    sum(staged_rows) as staged_rows,
    sum(analytic_rows) as analytic_rows
from counts
group by event_date
having sum(staged_rows) <> sum(analytic_rows)
