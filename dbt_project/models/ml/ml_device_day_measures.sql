{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['assignment_cuts', 'device_timezones'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}
{# What an event can say of its minute. #}
{% set flags = {
    'worn': 'pulse_bpm is not null or body_temp_c is not null',
    'step': 'step_count is not null',
    'active': 'step_count > 0',
    'lick': 'lick_count is not null',
    'licking': 'lick_count > 0',
    'lick_burst': 'lick_count >= ' ~ lick_burst_from(),
    'pulse': 'pulse_bpm is not null',
    'rest_pulse': 'rest_pulse_bpm is not null',
    'body_temp': 'body_temp_c is not null',
    'fever': 'body_temp_c >= ' ~ fever_from_c(),
    'respiration': 'respiration_rpm is not null',
    'rest_respiration': 'rest_respiration_rpm is not null',
} %}
{% set night_counts = {
    'night_step_minutes': 'step_bits',
    'night_lick_minutes': 'lick_bits',
    'night_respiration_minutes': 'rest_respiration_bits',
} %}

with dates as (
    select event_date
    from {{ ref('stg_telemetry_days') }}
    where {{ date_in_days('event_date', days) }}
),

device_timezones as (
    {{ device_timezones() | indent(4) }}
),

-- The part of each day that a collar was between two cuts, where the collar has a zone of its own.
segment_days as (
    select
        cuts.device_id,
        cuts.valid_from as segment_from,
        dates.event_date,
        least(
            coalesce(cuts.valid_to, {{ midnight_after('dates.event_date') }}), {{ midnight_after('dates.event_date') }}
        ) as part_to
    from {{ ref('cur_assignment_cuts') }} as cuts
    inner join dates
        on
            cuts.valid_from < {{ midnight_after('dates.event_date') }}
            and (cuts.valid_to is null or cuts.valid_to > cast(dates.event_date as timestamp))
    where cuts.device_id in (select device_timezones.device_id from device_timezones)
),

-- The zone at the part's last moment is that of all of it.
zoned_days as (
    select
        segment_days.device_id,
        segment_days.segment_from,
        segment_days.event_date,
        device_timezones.timezone
    from segment_days
    inner join device_timezones
        on
            segment_days.device_id = device_timezones.device_id
            and segment_days.part_to > device_timezones.valid_from
            and (device_timezones.valid_to is null or device_timezones.valid_to >= segment_days.part_to)
),

zone_days as (
    select
        timezone,
        event_date
    from zoned_days
    union
    select
        {{ home_timezone() }} as timezone,
        event_date
    from dates
),

-- A UTC date has moments of two local dates, and so of two nights.
local_dates as (
    select
        timezone,
        event_date,
        cast(event_date as timestamp) as start_ts,
        {{ midnight_after('event_date') }} as end_ts,
        {{ local_date('cast(event_date as timestamp)', 'timezone') }} as first_date
    from zone_days
),

local_nights as (
    select
        timezone,
        event_date,
        start_ts,
        end_ts,
        first_date,
        {{ next_date('first_date') }} as second_date,
        {{ utc_ts('cast(first_date as timestamp)', 'timezone') }} as first_from,
        {{ utc_ts(hours_after('cast(first_date as timestamp)', hours_per_night()), 'timezone') }} as first_to,
        {{ utc_ts(midnight_after('first_date'), 'timezone') }} as second_from,
        {{ utc_ts(hours_after(midnight_after('first_date'), hours_per_night()), 'timezone') }} as second_to
    from local_dates
),

timed_nights as (
    select
        timezone,
        event_date,
        first_date,
        second_date,
        first_from,
        first_to,
        second_from,
        second_to,
        -- 360, but where clocks change in the night.
        greatest(0, {{ minutes_between('greatest(first_from, start_ts)', 'least(first_to, end_ts)') }})
        + greatest(0, {{ minutes_between('greatest(second_from, start_ts)', 'least(second_to, end_ts)') }})
            as night_length_minutes
    from local_nights
),

events as (
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

-- Which minute of its hour an event speaks for, as a bit: only what was known at
-- the day's own end does. A minute that a cut divides belongs to the span in
-- which it began, so that cuts do not count it twice.
timed as (
    select
        events.device_id,
        events.segment_from,
        events.event_date,
        events.known_date,
        extract(hour from events.event_ts) as hour_of_day,
        -- The local date of the night; null by day.
        case
            when events.event_ts >= nights.first_from and events.event_ts < nights.first_to then nights.first_date
            when events.event_ts >= nights.second_from and events.event_ts < nights.second_to then nights.second_date
        end as night_date,
        nights.night_length_minutes,
        case
            when events.known_date = events.event_date and events.segment_from <= events.minute_ts
                then {{ minute_bit('events.event_ts') }}
        end as minute_bit,
        events.step_count,
        events.lick_count,
        events.pulse_bpm,
        events.body_temp_c,
        events.respiration_rpm,
        case when events.step_count = 0 then events.pulse_bpm end as rest_pulse_bpm,
        case when events.step_count = 0 then events.respiration_rpm end as rest_respiration_rpm,
        events.weight_kg,
        events.battery_pct
    from events
    left join zoned_days
        on
            events.device_id = zoned_days.device_id
            and events.segment_from = zoned_days.segment_from
            and events.event_date = zoned_days.event_date
    inner join timed_nights as nights
        on {{ timezone_of('zoned_days') }} = nights.timezone and events.event_date = nights.event_date
),

-- Minutes as the bits of an hour: sets of minutes without a row for each.
hours as (
    select
        device_id,
        segment_from,
        event_date,
        known_date,
        hour_of_day,
        night_date,
        max(night_length_minutes) as night_length_minutes,
        count(*) as event_count,
        sum(step_count) as steps,
        sum(lick_count) as licks,
        sum(pulse_bpm) as pulse_bpm_sum,
        sum(pulse_bpm * pulse_bpm) as pulse_bpm_square_sum,
        count(pulse_bpm) as pulse_count,
        min(pulse_bpm) as pulse_bpm_min,
        max(pulse_bpm) as pulse_bpm_max,
        sum(rest_pulse_bpm) as rest_pulse_bpm_sum,
        count(rest_pulse_bpm) as rest_pulse_count,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        max(body_temp_c) as body_temp_c_max,
        sum(respiration_rpm) as respiration_rpm_sum,
        count(respiration_rpm) as respiration_count,
        sum(rest_respiration_rpm) as rest_respiration_rpm_sum,
        count(rest_respiration_rpm) as rest_respiration_count,
        sum(weight_kg) as weight_kg_sum,
        count(weight_kg) as weight_count,
        min(battery_pct) as battery_min_pct,
        {%- for name, condition in flags.items() %}
        coalesce({{ bits_or('case when ' ~ condition ~ ' then minute_bit end') }}, 0) as {{ name }}_bits,
        {%- endfor %}
        {{ bits_or('minute_bit') }} as observed_bits
    from timed
    group by device_id, segment_from, event_date, known_date, hour_of_day, night_date
),

totals as (
    select
        device_id,
        segment_from,
        event_date,
        known_date,
        max(night_length_minutes) as night_length_minutes,
        sum(event_count) as event_count,
        sum(steps) as steps,
        sum(case when night_date is not null then steps end) as night_steps,
        sum(licks) as licks,
        sum(case when night_date is not null then licks end) as night_licks,
        sum(pulse_bpm_sum) as pulse_bpm_sum,
        sum(pulse_bpm_square_sum) as pulse_bpm_square_sum,
        sum(pulse_count) as pulse_count,
        min(pulse_bpm_min) as pulse_bpm_min,
        max(pulse_bpm_max) as pulse_bpm_max,
        sum(rest_pulse_bpm_sum) as rest_pulse_bpm_sum,
        sum(rest_pulse_count) as rest_pulse_count,
        sum(body_temp_c_sum) as body_temp_c_sum,
        sum(body_temp_count) as body_temp_count,
        max(body_temp_c_max) as body_temp_c_max,
        sum(respiration_rpm_sum) as respiration_rpm_sum,
        sum(respiration_count) as respiration_count,
        sum(case when night_date is not null then rest_respiration_rpm_sum end) as night_respiration_rpm_sum,
        sum(case when night_date is not null then rest_respiration_count else 0 end) as night_respiration_count,
        sum(weight_kg_sum) as weight_kg_sum,
        sum(weight_count) as weight_count,
        min(battery_min_pct) as battery_min_pct,
        {%- for name in flags %}
        sum(case when observed_bits is not null then {{ bit_count(name ~ '_bits') }} end) as {{ name }}_minutes,
        {%- endfor %}
        {%- for name, bits in night_counts.items() %}
        sum(case when night_date is not null and observed_bits is not null then {{ bit_count(bits) }} end)
            as {{ name }},
        {%- endfor %}
        sum({{ bit_count('observed_bits') }}) as observed_minutes
    from hours
    group by device_id, segment_from, event_date, known_date
),

-- A minute of the night counts when the collar was worn (a pulse or a
-- temperature) and counted steps: the proxy of sleep is that it counted none.
night_hours as (
    select
        device_id,
        segment_from,
        event_date,
        night_date,
        hour_of_day,
        {{ bits_and('worn_bits', 'step_bits') }} as night_bits,
        {{ bits_and('worn_bits', 'step_bits') }} - {{ bits_and(bits_and('worn_bits', 'step_bits'), 'active_bits') }}
            as rest_bits
    from hours
    where night_date is not null and observed_bits is not null
),

night_rests as (
    select
        device_id,
        segment_from,
        event_date,
        night_date,
        hour_of_day,
        rest_bits,
        {{ bit_count('night_bits') }} as night_minutes,
        {{ bit_count('rest_bits') }} as rest_minutes,
        coalesce(sum({{ bit_count('rest_bits') }}) over (
            partition by device_id, segment_from, event_date, night_date
            order by hour_of_day
            rows between unbounded preceding and 1 preceding
        ), 0) as rest_minutes_before
    from night_hours
),

night_totals as (
    select
        device_id,
        segment_from,
        event_date,
        night_date,
        sum(night_minutes) as night_minutes,
        sum(rest_minutes) as night_rest_minutes
    from night_rests
    group by device_id, segment_from, event_date, night_date
),

-- Minutes of the night with steps, and how much rest the night had before each.
night_moves as (
    select distinct
        device_id,
        segment_from,
        event_date,
        night_date,
        hour_of_day,
        minute_bit
    from timed
    where night_date is not null and step_count > 0 and minute_bit is not null
),

timed_moves as (
    select
        night_moves.device_id,
        night_moves.segment_from,
        night_moves.event_date,
        night_moves.night_date,
        night_moves.hour_of_day,
        night_moves.minute_bit,
        night_rests.rest_minutes_before
        + {{ bit_count(bits_and('night_rests.rest_bits', '(night_moves.minute_bit - 1)')) }} as rest_minutes_before
    from night_moves
    inner join night_rests
        on
            night_moves.device_id = night_rests.device_id
            and night_moves.segment_from = night_rests.segment_from
            and night_moves.event_date = night_rests.event_date
            and night_moves.night_date = night_rests.night_date
            and night_moves.hour_of_day = night_rests.hour_of_day
),

-- A bout is the rest between two minutes with steps. Minutes without a report
-- do not count in it and do not end it: messages get lost.
night_bouts as (
    select
        device_id,
        segment_from,
        event_date,
        night_date,
        rest_minutes_before,
        rest_minutes_before - coalesce(lag(rest_minutes_before) over (
            partition by device_id, segment_from, event_date, night_date
            order by hour_of_day, minute_bit
        ), 0) as rest_minutes
    from timed_moves
),

ended_bouts as (
    select
        device_id,
        segment_from,
        event_date,
        night_date,
        max(rest_minutes) as longest_rest_minutes,
        max(rest_minutes_before) as rest_minutes_before_last,
        sum(case when rest_minutes > 0 then 1 else 0 end) as interruption_count
    from night_bouts
    group by device_id, segment_from, event_date, night_date
),

-- No rest reaches from one night into the next.
nights as (
    select
        night_totals.device_id,
        night_totals.segment_from,
        night_totals.event_date,
        sum(night_totals.night_minutes) as night_minutes,
        sum(night_totals.night_rest_minutes) as night_rest_minutes,
        max(greatest(
            coalesce(ended_bouts.longest_rest_minutes, 0),
            night_totals.night_rest_minutes - coalesce(ended_bouts.rest_minutes_before_last, 0)
        )) as night_longest_rest_minutes,
        sum(coalesce(ended_bouts.interruption_count, 0)) as night_interruption_count
    from night_totals
    left join ended_bouts
        on
            night_totals.device_id = ended_bouts.device_id
            and night_totals.segment_from = ended_bouts.segment_from
            and night_totals.event_date = ended_bouts.event_date
            and night_totals.night_date = ended_bouts.night_date
    group by night_totals.device_id, night_totals.segment_from, night_totals.event_date
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
    cast(totals.rest_pulse_bpm_sum as decimal(18, 1)) as rest_pulse_bpm_sum,
    cast(totals.rest_pulse_count as bigint) as rest_pulse_count,
    cast(totals.body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(totals.body_temp_count as bigint) as body_temp_count,
    totals.body_temp_c_max,
    cast(totals.respiration_rpm_sum as decimal(18, 1)) as respiration_rpm_sum,
    cast(totals.respiration_count as bigint) as respiration_count,
    cast(totals.night_respiration_rpm_sum as decimal(18, 1)) as night_respiration_rpm_sum,
    cast(totals.night_respiration_count as bigint) as night_respiration_count,
    cast(totals.weight_kg_sum as decimal(18, 3)) as weight_kg_sum,
    cast(totals.weight_count as bigint) as weight_count,
    totals.battery_min_pct,
    cast(totals.observed_minutes as integer) as observed_minutes,
    cast(totals.worn_minutes as integer) as worn_minutes,
    cast(totals.step_minutes as integer) as step_minutes,
    cast(totals.step_minutes - totals.active_minutes as integer) as rest_minutes,
    cast(totals.lick_minutes as integer) as lick_minutes,
    cast(totals.licking_minutes as integer) as licking_minutes,
    cast(totals.lick_burst_minutes as integer) as lick_burst_minutes,
    cast(totals.pulse_minutes as integer) as pulse_minutes,
    cast(totals.rest_pulse_minutes as integer) as rest_pulse_minutes,
    cast(totals.body_temp_minutes as integer) as body_temp_minutes,
    cast(totals.fever_minutes as integer) as fever_minutes,
    cast(totals.respiration_minutes as integer) as respiration_minutes,
    cast(totals.night_length_minutes as integer) as night_length_minutes,
    cast(totals.night_step_minutes as integer) as night_step_minutes,
    cast(totals.night_lick_minutes as integer) as night_lick_minutes,
    cast(totals.night_respiration_minutes as integer) as night_respiration_minutes,
    cast(nights.night_minutes as integer) as night_minutes,
    cast(nights.night_rest_minutes as integer) as night_rest_minutes,
    cast(nights.night_longest_rest_minutes as integer) as night_longest_rest_minutes,
    cast(nights.night_interruption_count as integer) as night_interruption_count
from totals
left join nights
    on
        totals.device_id = nights.device_id
        and totals.segment_from = nights.segment_from
        and totals.event_date = nights.event_date
        and totals.known_date = totals.event_date
