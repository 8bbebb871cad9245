{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'pet_id', 'event_ts'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['device_contexts'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

-- A device's contexts do not overlap, so an event meets at most one and the
-- join neither adds nor drops rows.
with contexts as (
    select
        spans.device_id,
        spans.pet_id,
        spans.pet_resolution,
        spans.owner_id,
        spans.clinic_id,
        spans.valid_from,
        coalesce(spans.valid_to, timestamp '9999-12-31 00:00:00') as valid_to
    from {{ ref('cur_device_contexts') }} as spans
    where {{ span_in_days('spans.valid_from', 'spans.valid_to', days) }}
)

select
    events.event_id,
    events.device_id,
    coalesce(contexts.pet_id, 'unknown') as pet_id,
    coalesce(contexts.pet_resolution, 'unassigned') as pet_resolution,
    coalesce(contexts.owner_id, 'unknown') as owner_id,
    -- Before the pet's first visit, and without a pet, the clinic stamped at capture stands in.
    coalesce(contexts.clinic_id, events.capture_clinic_id, 'unknown') as clinic_id,
    case
        when contexts.clinic_id is not null then 'visit'
        when events.capture_clinic_id is not null then 'capture'
        else 'unknown'
    end as clinic_resolution,
    events.event_ts,
    events.event_date,
    events.arrival_ts,
    events.accel_x_g,
    events.accel_y_g,
    events.accel_z_g,
    events.step_count,
    events.lick_count,
    cast(round(events.gps_lat, 2) as decimal(4, 2)) as gps_lat,
    cast(round(events.gps_long, 2) as decimal(5, 2)) as gps_long,
    events.battery_pct,
    events.pulse_bpm,
    events.body_temp_c,
    events.respiration_rpm,
    events.weight_kg,
    events.firmware_version,
    events.quality_score,
    events.capture_clinic_id,
    events.source_system
from {{ ref('stg_telemetry_events') }} as events
left join contexts
    on
        events.device_id = contexts.device_id
        and events.event_ts >= contexts.valid_from
        and events.event_ts < contexts.valid_to
where {{ date_in_days('events.event_date', days) }}
