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
        date_trunc('minute', events.event_ts) as minute_ts,
        -- The first day at whose end the event was known.
        greatest(events.event_date, {{ known_date('events.arrival_ts') }}) as known_date,
        events.step_count,
        events.lick_count,
        events.pulse_bpm,
        events.body_temp_c,
        events.respiration_rpm,
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
        sum(case when {{ is_night('event_ts') }} then step_count end) as night_steps,
        sum(lick_count) as licks,
        sum(case when {{ is_night('event_ts') }} then lick_count end) as night_licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        sum(pulse_bpm * pulse_bpm) as pulse_bpm_square_sum,
        count(pulse_bpm) as pulse_count,
        min(pulse_bpm) as pulse_bpm_min,
        max(pulse_bpm) as pulse_bpm_max,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        max(body_temp_c) as body_temp_c_max,
        sum(respiration_rpm) as respiration_rpm_sum,
        count(respiration_rpm) as respiration_count,
        sum(weight_kg) as weight_kg_sum,
        count(weight_kg) as weight_count,
        min(battery_pct) as battery_min_pct
    from events
    group by device_id, segment_from, event_date, known_date
),

-- Minutes of what was known at the day's own end. A minute that a cut divides
-- belongs to the span in which it began, so that cuts do not count it twice.
minutes as (
    select
        device_id,
        segment_from,
        event_date,
        minute_ts,
        sum(step_count) as steps,
        sum(lick_count) as licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        count(pulse_bpm) as pulse_count,
        max(body_temp_c) as body_temp_c_max,
        sum(respiration_rpm) as respiration_rpm_sum,
        count(respiration_rpm) as respiration_count
    from events
    where known_date = event_date and segment_from <= minute_ts
    group by device_id, segment_from, event_date, minute_ts
),

-- A minute of the night counts when the collar was worn (a pulse or a
-- temperature) and counted steps: the proxy of sleep is that it counted none.
marked_minutes as (
    select
        device_id,
        segment_from,
        event_date,
        minute_ts,
        steps,
        licks,
        pulse_bpm_sum,
        pulse_count,
        body_temp_c_max,
        respiration_rpm_sum,
        respiration_count,
        pulse_count > 0 or body_temp_c_max is not null as is_worn,
        {{ is_night('minute_ts') }} as is_night,
        {{ is_night('minute_ts') }} and steps is not null and (pulse_count > 0 or body_temp_c_max is not null)
            as is_night_minute
    from minutes
),

minute_totals as (
    select
        device_id,
        segment_from,
        event_date,
        count(*) as observed_minutes,
        sum(case when is_worn then 1 else 0 end) as worn_minutes,
        count(steps) as step_minutes,
        sum(case when steps = 0 then 1 else 0 end) as rest_minutes,
        count(case when is_night then steps end) as night_step_minutes,
        count(licks) as lick_minutes,
        count(case when is_night then licks end) as night_lick_minutes,
        sum(case when licks > 0 then 1 else 0 end) as licking_minutes,
        sum(case when licks >= {{ lick_burst_from() }} then 1 else 0 end) as lick_burst_minutes,
        count(pulse_bpm_sum) as pulse_minutes,
        sum(case when steps = 0 then pulse_bpm_sum end) as rest_pulse_bpm_sum,
        sum(case when steps = 0 then pulse_count else 0 end) as rest_pulse_count,
        count(case when steps = 0 then pulse_bpm_sum end) as rest_pulse_minutes,
        count(body_temp_c_max) as body_temp_minutes,
        sum(case when body_temp_c_max >= {{ fever_from_c() }} then 1 else 0 end) as fever_minutes,
        count(respiration_rpm_sum) as respiration_minutes,
        sum(case when is_night_minute then 1 else 0 end) as night_minutes,
        sum(case when is_night_minute and steps = 0 then 1 else 0 end) as night_rest_minutes,
        sum(case when is_night_minute and steps = 0 then respiration_rpm_sum end) as night_respiration_rpm_sum,
        sum(case when is_night_minute and steps = 0 then respiration_count else 0 end) as night_respiration_count,
        count(case when is_night_minute and steps = 0 then respiration_rpm_sum end) as night_respiration_minutes
    from marked_minutes
    group by device_id, segment_from, event_date
),

night_minutes as (
    select
        device_id,
        segment_from,
        event_date,
        steps,
        extract(hour from minute_ts) * 60 + extract(minute from minute_ts) as minute_of_day
    from marked_minutes
    where is_night_minute
),

night_sequence as (
    select
        device_id,
        segment_from,
        event_date,
        minute_of_day,
        steps = 0 as is_rest,
        -- Whether the minute right before was one of rest.
        coalesce(
            lag(steps) over (
                partition by device_id, segment_from, event_date
                order by minute_of_day
            ) = 0
            and lag(minute_of_day) over (
                partition by device_id, segment_from, event_date
                order by minute_of_day
            ) = minute_of_day - 1,
            false
        ) as follows_rest
    from night_minutes
),

night_bouts as (
    select
        device_id,
        segment_from,
        event_date,
        is_rest,
        follows_rest,
        sum(case when is_rest and not follows_rest then 1 else 0 end) over (
            partition by device_id, segment_from, event_date
            order by minute_of_day
            rows between unbounded preceding and current row
        ) as bout_number
    from night_sequence
),

bout_totals as (
    select
        device_id,
        segment_from,
        event_date,
        sum(case when is_rest then 1 else 0 end) as rest_minutes,
        sum(case when follows_rest and not is_rest then 1 else 0 end) as interruption_count
    from night_bouts
    group by device_id, segment_from, event_date, bout_number
),

nights as (
    select
        device_id,
        segment_from,
        event_date,
        max(rest_minutes) as night_longest_rest_minutes,
        sum(interruption_count) as night_interruption_count
    from bout_totals
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
    cast(totals.night_licks as bigint) as night_licks,
    cast(totals.pulse_bpm_sum as decimal(18, 1)) as pulse_bpm_sum,
    cast(totals.pulse_bpm_square_sum as decimal(22, 2)) as pulse_bpm_square_sum,
    cast(totals.pulse_count as bigint) as pulse_count,
    totals.pulse_bpm_min,
    totals.pulse_bpm_max,
    cast(totals.body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(totals.body_temp_count as bigint) as body_temp_count,
    totals.body_temp_c_max,
    cast(totals.respiration_rpm_sum as decimal(18, 1)) as respiration_rpm_sum,
    cast(totals.respiration_count as bigint) as respiration_count,
    cast(totals.weight_kg_sum as decimal(18, 3)) as weight_kg_sum,
    cast(totals.weight_count as bigint) as weight_count,
    totals.battery_min_pct,
    cast(minute_totals.observed_minutes as integer) as observed_minutes,
    cast(minute_totals.worn_minutes as integer) as worn_minutes,
    cast(minute_totals.step_minutes as integer) as step_minutes,
    cast(minute_totals.rest_minutes as integer) as rest_minutes,
    cast(minute_totals.night_step_minutes as integer) as night_step_minutes,
    cast(minute_totals.lick_minutes as integer) as lick_minutes,
    cast(minute_totals.night_lick_minutes as integer) as night_lick_minutes,
    cast(minute_totals.licking_minutes as integer) as licking_minutes,
    cast(minute_totals.lick_burst_minutes as integer) as lick_burst_minutes,
    cast(minute_totals.pulse_minutes as integer) as pulse_minutes,
    cast(minute_totals.rest_pulse_bpm_sum as decimal(18, 1)) as rest_pulse_bpm_sum,
    cast(minute_totals.rest_pulse_count as bigint) as rest_pulse_count,
    cast(minute_totals.rest_pulse_minutes as integer) as rest_pulse_minutes,
    cast(minute_totals.body_temp_minutes as integer) as body_temp_minutes,
    cast(minute_totals.fever_minutes as integer) as fever_minutes,
    cast(minute_totals.respiration_minutes as integer) as respiration_minutes,
    cast(minute_totals.night_minutes as integer) as night_minutes,
    cast(minute_totals.night_rest_minutes as integer) as night_rest_minutes,
    cast(nights.night_longest_rest_minutes as integer) as night_longest_rest_minutes,
    cast(nights.night_interruption_count as integer) as night_interruption_count,
    cast(minute_totals.night_respiration_rpm_sum as decimal(18, 1)) as night_respiration_rpm_sum,
    cast(minute_totals.night_respiration_count as bigint) as night_respiration_count,
    cast(minute_totals.night_respiration_minutes as integer) as night_respiration_minutes
from totals
left join minute_totals
    on
        totals.device_id = minute_totals.device_id
        and totals.segment_from = minute_totals.segment_from
        and totals.event_date = minute_totals.event_date
        and totals.known_date = totals.event_date
left join nights
    on
        totals.device_id = nights.device_id
        and totals.segment_from = nights.segment_from
        and totals.event_date = nights.event_date
        and totals.known_date = totals.event_date
