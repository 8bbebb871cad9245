{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['expectations'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

select
    clinic_id,
    event_date,
    count(*) as device_count,
    cast(sum(case when event_count = 0 then 1 else 0 end) as bigint) as silent_device_count,
    cast(sum(expected_events) as bigint) as expected_events,
    cast(sum(heard_event_count) as bigint) as heard_event_count,
    {{ ratio_of('sum(heard_event_count)', 'sum(expected_events)') }} as heartbeat_ratio
from {{ ref('anl_device_daily_heartbeat') }}
where {{ date_in_days('event_date', days) }}
group by clinic_id, event_date
