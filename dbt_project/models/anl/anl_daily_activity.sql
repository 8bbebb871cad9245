{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['intervals'], 'window_days': 1},
    post_hook=['{{ forget_applied_inputs() }}', '{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with minutes as (
    select
        pet_id,
        event_date,
        date_trunc('minute', event_ts) as minute_ts,
        max(case when pulse_bpm is not null or body_temp_c is not null then 1 else 0 end) as is_worn
    from {{ ref('anl_telemetry_events') }}
    where pet_id is not null and {{ date_in_days('event_date', days) }}
    group by pet_id, event_date, minute_ts
),

minute_totals as (
    select
        pet_id,
        event_date,
        count(*) as observed_minutes,
        sum(is_worn) as worn_minutes
    from minutes
    group by pet_id, event_date
),

totals as (
    select
        pet_id,
        event_date,
        count(*) as event_count,
        count(distinct device_id) as device_count,
        min(event_ts) as first_event_ts,
        max(event_ts) as last_event_ts,
        sum(step_count) as total_steps,
        sum(lick_count) as total_licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        count(pulse_bpm) as pulse_count,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        sum(respiration_rpm) as respiration_rpm_sum,
        count(respiration_rpm) as respiration_count,
        min(battery_pct) as battery_min_pct
    from {{ ref('anl_telemetry_events') }}
    where pet_id is not null and {{ date_in_days('event_date', days) }}
    group by pet_id, event_date
)

select
    totals.pet_id,
    totals.event_date,
    cast(totals.event_count as bigint) as event_count,
    cast(totals.device_count as integer) as device_count,
    totals.first_event_ts,
    totals.last_event_ts,
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
    cast(minute_totals.observed_minutes as integer) as observed_minutes,
    -- A device without a contact sensor cannot say whether it is worn.
    case
        when totals.pulse_count + totals.body_temp_count > 0 then cast(minute_totals.worn_minutes as integer)
    end as wear_minutes
from totals
inner join minute_totals
    on totals.pet_id = minute_totals.pet_id and totals.event_date = minute_totals.event_date
