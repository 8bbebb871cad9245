{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['expectations', 'device_contexts'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with contexts as (
    select
        spans.device_id,
        spans.clinic_id,
        spans.valid_from,
        spans.valid_to
    from {{ ref('cur_device_contexts') }} as spans
    where {{ span_in_days('spans.valid_from', 'spans.valid_to', days) }}
),

-- The clinic at the day's last moment, as in pet_daily_summary.
collars as (
    select
        coalesce(contexts.clinic_id, heartbeats.clinic_id) as clinic_id,
        heartbeats.event_date,
        heartbeats.event_count,
        heartbeats.heard_event_count,
        heartbeats.expected_events
    from {{ ref('anl_device_daily_heartbeat') }} as heartbeats
    left join contexts
        on
            heartbeats.device_id = contexts.device_id
            and {{ midnight_after('heartbeats.event_date') }} > contexts.valid_from
            and (contexts.valid_to is null or contexts.valid_to >= {{ midnight_after('heartbeats.event_date') }})
    where {{ date_in_days('heartbeats.event_date', days) }}
)

select
    clinic_id,
    event_date,
    cast(sum(case when event_count > 0 then 1 else 0 end) as bigint) as active_collar_count,
    cast(sum(case when event_count = 0 then 1 else 0 end) as bigint) as silent_collar_count,
    cast(sum(expected_events) as bigint) as expected_events,
    cast(sum(heard_event_count) as bigint) as heard_event_count
from collars
group by clinic_id, event_date
