{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['assignment_cuts'], 'window_days': 1},
    post_hook=['{{ forget_applied_inputs() }}', '{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with events as (
    select
        events.device_id,
        -- Before a device's first cut nobody wears it.
        coalesce(cuts.valid_from, timestamp '0001-01-01 00:00:00') as segment_from,
        events.event_date,
        events.event_ts,
        -- The first day at whose end the event was known.
        greatest(events.event_date, {{ known_date('events.arrival_ts') }}) as known_date,
        events.step_count,
        events.lick_count,
        events.pulse_bpm,
        events.body_temp_c,
        events.weight_kg,
        events.battery_pct
    from {{ ref('stg_telemetry_events') }} as events
    left join {{ ref('cur_assignment_cuts') }} as cuts
        on
            events.device_id = cuts.device_id
            and events.event_ts >= cuts.valid_from
            and (cuts.valid_to is null or events.event_ts < cuts.valid_to)
    where {{ date_in_days('events.event_date', days) }}
),

totals as (
    select
        device_id,
        segment_from,
        event_date,
        known_date,
        count(*) as event_count,
        sum(step_count) as steps,
        sum(case when extract(hour from event_ts) < 6 then step_count end) as night_steps,
        sum(lick_count) as licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        count(pulse_bpm) as pulse_count,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        sum(weight_kg) as weight_kg_sum,
        count(weight_kg) as weight_count,
        min(battery_pct) as battery_min_pct
    from events
    group by device_id, segment_from, event_date, known_date
),

-- Minutes of what was known at the day's own end. A minute belongs to the
-- segment of its first event, so that cuts do not count it twice.
minutes as (
    select
        device_id,
        event_date,
        date_trunc('minute', event_ts) as minute_ts,
        min(segment_from) as segment_from,
        sum(step_count) as steps,
        max(case when pulse_bpm is not null or body_temp_c is not null then 1 else 0 end) as is_worn
    from events
    where known_date = event_date
    group by device_id, event_date, minute_ts
),

minute_totals as (
    select
        device_id,
        segment_from,
        event_date,
        count(*) as observed_minutes,
        sum(is_worn) as worn_minutes,
        count(steps) as step_minutes,
        sum(case when steps = 0 then 1 else 0 end) as rest_minutes
    from minutes
    group by device_id, segment_from, event_date
)

select
    totals.device_id,
    totals.segment_from,
    totals.event_date,
    totals.known_date,
    cast(totals.event_count as bigint) as event_count,
    cast(totals.steps as bigint) as steps,
    cast(totals.night_steps as bigint) as night_steps,
    cast(totals.licks as bigint) as licks,
    cast(totals.pulse_bpm_sum as decimal(18, 1)) as pulse_bpm_sum,
    cast(totals.pulse_count as bigint) as pulse_count,
    cast(totals.body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(totals.body_temp_count as bigint) as body_temp_count,
    cast(totals.weight_kg_sum as decimal(18, 3)) as weight_kg_sum,
    cast(totals.weight_count as bigint) as weight_count,
    totals.battery_min_pct,
    cast(minute_totals.observed_minutes as integer) as observed_minutes,
    cast(minute_totals.worn_minutes as integer) as worn_minutes,
    cast(minute_totals.step_minutes as integer) as step_minutes,
    cast(minute_totals.rest_minutes as integer) as rest_minutes
from totals
left join minute_totals
    on
        totals.device_id = minute_totals.device_id
        and totals.segment_from = minute_totals.segment_from
        and totals.event_date = minute_totals.event_date
        and totals.known_date = totals.event_date
