{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'pet_id'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['intervals'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with totals as (
    select
        pet_id,
        date_trunc('hour', event_ts) as hour_ts,
        event_date,
        count(*) as event_count,
        count(distinct device_id) as device_count,
        {{ distinct_minutes('event_ts') }} as observed_minutes,
        {{ distinct_minutes('event_ts', 'pulse_bpm is not null or body_temp_c is not null') }} as worn_minutes,
        sum(step_count) as total_steps,
        sum(lick_count) as total_licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        count(pulse_bpm) as pulse_count,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        max(body_temp_c) as body_temp_c_max,
        sum(respiration_rpm) as respiration_rpm_sum,
        count(respiration_rpm) as respiration_count,
        min(battery_pct) as battery_min_pct
    from {{ ref('anl_telemetry_events') }}
    where pet_id <> 'unknown' and {{ date_in_days('event_date', days) }}
    group by pet_id, date_trunc('hour', event_ts), event_date
)

select
    pet_id,
    hour_ts,
    event_date,
    cast(event_count as bigint) as event_count,
    cast(device_count as integer) as device_count,
    cast(observed_minutes as integer) as observed_minutes,
    -- A device without a contact sensor cannot say whether it is worn; one that measured at any hour of the day has it.
    case
        when sum(pulse_count + body_temp_count) over (partition by pet_id, event_date) > 0
            then cast(worn_minutes as integer)
    end as worn_minutes,
    cast(total_steps as bigint) as total_steps,
    cast(total_licks as bigint) as total_licks,
    cast(pulse_bpm_sum as decimal(18, 1)) as pulse_bpm_sum,
    cast(pulse_count as bigint) as pulse_count,
    {{ mean_of('pulse_bpm_sum', 'pulse_count') }} as pulse_bpm_mean,
    cast(body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(body_temp_count as bigint) as body_temp_count,
    {{ mean_of('body_temp_c_sum', 'body_temp_count') }} as body_temp_c_mean,
    body_temp_c_max,
    cast(respiration_rpm_sum as decimal(18, 1)) as respiration_rpm_sum,
    cast(respiration_count as bigint) as respiration_count,
    battery_min_pct
from totals
