{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['intervals'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

-- A day is the sum of its hours: an event and a minute lie in one hour each.
with totals as (
    select
        pet_id,
        event_date,
        sum(event_count) as event_count,
        sum(total_steps) as total_steps,
        sum(total_licks) as total_licks,
        sum(pulse_bpm_sum) as pulse_bpm_sum,
        sum(pulse_count) as pulse_count,
        sum(body_temp_c_sum) as body_temp_c_sum,
        sum(body_temp_count) as body_temp_count,
        sum(respiration_rpm_sum) as respiration_rpm_sum,
        sum(respiration_count) as respiration_count,
        min(battery_min_pct) as battery_min_pct,
        sum(observed_minutes) as observed_minutes,
        sum(worn_minutes) as worn_minutes
    from {{ ref('anl_telemetry_summary_hourly') }}
    where {{ date_in_days('event_date', days) }}
    group by pet_id, event_date
),

-- What hours do not add up to: a device counts in each of them.
devices as (
    select
        pet_id,
        event_date,
        count(distinct device_id) as device_count,
        min(event_ts) as first_event_ts,
        max(event_ts) as last_event_ts
    from {{ ref('anl_telemetry_events') }}
    where pet_id <> 'unknown' and {{ date_in_days('event_date', days) }}
    group by pet_id, event_date
)

select
    totals.pet_id,
    totals.event_date,
    cast(totals.event_count as bigint) as event_count,
    cast(devices.device_count as integer) as device_count,
    devices.first_event_ts,
    devices.last_event_ts,
    cast(totals.total_steps as bigint) as total_steps,
    cast(totals.total_licks as bigint) as total_licks,
    cast(totals.pulse_bpm_sum as decimal(18, 1)) as pulse_bpm_sum,
    cast(totals.pulse_count as bigint) as pulse_count,
    {{ mean_of('totals.pulse_bpm_sum', 'totals.pulse_count') }} as pulse_bpm_mean,
    cast(totals.body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(totals.body_temp_count as bigint) as body_temp_count,
    {{ mean_of('totals.body_temp_c_sum', 'totals.body_temp_count') }} as body_temp_c_mean,
    {{ mean_of('totals.respiration_rpm_sum', 'totals.respiration_count') }} as respiration_rpm_mean,
    totals.battery_min_pct,
    cast(totals.observed_minutes as integer) as observed_minutes,
    cast(totals.worn_minutes as integer) as worn_minutes
from totals
inner join devices
    on totals.pet_id = devices.pet_id and totals.event_date = devices.event_date
