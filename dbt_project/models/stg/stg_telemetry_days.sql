{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    tags=['daily'],
    meta={'daily': true}
) }}

select
    event_date,
    count(*) as event_count,
    count(distinct device_id) as device_count
from {{ ref('stg_telemetry_events') }}
where {{ date_in_days('event_date', model_days()) }}
group by event_date
