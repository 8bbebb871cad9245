{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={
        'daily': true,
        'inputs': ['known_records', 'device_timezones', 'clinic_timezones'],
        'window_days': 30,
        'published': false,
    },
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}
{# Measures that add up over a pet's collars, and their types here. #}
{% set sums = {
    'steps': 'bigint',
    'night_steps': 'bigint',
    'licks': 'bigint',
    'night_licks': 'bigint',
    'pulse_bpm_sum': 'decimal(18, 1)',
    'pulse_bpm_square_sum': 'decimal(22, 2)',
    'pulse_count': 'bigint',
    'body_temp_c_sum': 'decimal(18, 2)',
    'body_temp_count': 'bigint',
    'respiration_rpm_sum': 'decimal(18, 1)',
    'respiration_count': 'bigint',
    'observed_minutes': 'bigint',
    'worn_minutes': 'bigint',
    'step_minutes': 'bigint',
    'rest_minutes': 'bigint',
    'night_step_minutes': 'bigint',
    'lick_minutes': 'bigint',
    'night_lick_minutes': 'bigint',
    'licking_minutes': 'bigint',
    'lick_burst_minutes': 'bigint',
    'pulse_minutes': 'bigint',
    'rest_pulse_bpm_sum': 'decimal(18, 1)',
    'rest_pulse_count': 'bigint',
    'rest_pulse_minutes': 'bigint',
    'body_temp_minutes': 'bigint',
    'fever_minutes': 'bigint',
    'respiration_minutes': 'bigint',
    'night_minutes': 'bigint',
    'night_rest_minutes': 'bigint',
    'night_interruption_count': 'bigint',
    'night_respiration_rpm_sum': 'decimal(18, 1)',
    'night_respiration_count': 'bigint',
    'night_respiration_minutes': 'bigint',
} %}
{% set of_windows = ['event_count', 'weight_kg_sum', 'weight_count'] + sums.keys() | list %}
{% set lows = ['pulse_bpm_min', 'battery_min_pct'] %}
{% set highs = ['pulse_bpm_max', 'body_temp_c_max', 'night_longest_rest_minutes', 'night_length_minutes'] %}
{# Measures that a day is compared with: sums of the seven days before it, and
   of daily totals the days that have any. #}
{% set compared = [
    'steps', 'step_minutes', 'licks', 'lick_minutes', 'pulse_bpm_sum', 'pulse_count', 'pulse_minutes',
    'rest_pulse_bpm_sum', 'rest_pulse_count', 'rest_pulse_minutes', 'body_temp_c_sum', 'body_temp_count',
    'body_temp_minutes', 'respiration_rpm_sum', 'respiration_count', 'respiration_minutes', 'night_minutes',
    'night_rest_minutes',
] %}
{% set measured_days = {'step_days': 'steps', 'lick_days': 'licks'} %}

-- A row says what was known at end_ts, the midnight that ends its day: records
-- and events with arrival_ts <= end_ts, no later ones.
with days as (
    select
        event_date,
        cast(event_date as timestamp) as start_ts,
        {{ midnight_after('event_date') }} as end_ts
    from (
        select distinct event_date
        from {{ ref('ml_device_day_measures') }}
        where known_date = event_date
    ) as known_dates
    -- Past the last day built are days that were not over at the last run's as_of_ts.
    where
        ({{ date_in_days('event_date', days) }} or {{ after_last_day_of_this('event_date', days) }})
        and {{ over_as_of('event_date') }}
),

known_assignments as (
    with {{ change_log(
        'device_assignments', ref('stg_device_assignments'), source('raw', 'extracts'), 'any'
    ) | indent(4) }},

    {{ known_versions('device_assignments', 'versions') | indent(4) }}

    select
        event_date,
        assignment_id,
        device_id,
        pet_id,
        assigned_from,
        assigned_to
    from versions
),

known_segments as (
    with {{ device_segments('known_assignments', per=['event_date']) | indent(4) }}

    select
        event_date,
        device_id,
        pet_id,
        segment_from,
        segment_to
    from segments
    where pet_resolution = 'assigned'
),

pet_days as (
    select distinct
        days.event_date,
        days.start_ts,
        days.end_ts,
        known_segments.pet_id
    from days
    inner join known_segments
        on
            days.event_date = known_segments.event_date
            and days.end_ts > known_segments.segment_from
            and days.start_ts < known_segments.segment_to
),

first_assignments as (
    select
        event_date,
        pet_id,
        min(segment_from) as first_assigned_ts
    from known_segments
    group by event_date, pet_id
),

-- The last 30 days of each pet, collar by collar, as known at each day's end.
device_windows as (
    select
        known_segments.event_date,
        known_segments.pet_id,
        known_segments.device_id,
        {%- for column in of_windows %}
        sum(measures.{{ column }}) as {{ column }},
        {%- endfor %}
        {%- for column in lows %}
        min(measures.{{ column }}) as {{ column }},
        {%- endfor %}
        {%- for column in highs %}
        max(measures.{{ column }}) as {{ column }},
        {%- endfor %}
        {{ days_between('measures.event_date', 'known_segments.event_date') }} as days_ago
    from known_segments
    inner join {{ ref('ml_device_day_measures') }} as measures
        on
            known_segments.device_id = measures.device_id
            and known_segments.segment_from <= measures.segment_from
            and known_segments.segment_to > measures.segment_from
            and known_segments.event_date >= measures.known_date
            and known_segments.event_date >= measures.event_date
            and {{ days_between('measures.event_date', 'known_segments.event_date') }} < 30
    group by
        known_segments.event_date,
        known_segments.pet_id,
        known_segments.device_id,
        {{ days_between('measures.event_date', 'known_segments.event_date') }}
),

-- How far a collar's lowest battery level fell since the day before: none when
-- it rose, because then it was charged.
battery_drops as (
    select
        event_date,
        pet_id,
        days_ago,
        lag(battery_min_pct) over (
            partition by event_date, pet_id, device_id
            order by days_ago desc
        ) - battery_min_pct as drop_pct,
        lag(days_ago) over (
            partition by event_date, pet_id, device_id
            order by days_ago desc
        ) - days_ago as days_since
    from device_windows
    where battery_min_pct is not null and days_ago <= 7
),

battery_days as (
    select
        event_date,
        pet_id,
        sum(drop_pct) as drop_pct
    from battery_drops
    where days_since = 1 and drop_pct >= 0
    group by event_date, pet_id, days_ago
),

batteries as (
    select
        event_date,
        pet_id,
        sum(drop_pct) as battery_drop_pct_last_7d,
        count(*) as battery_drop_days_last_7d
    from battery_days
    group by event_date, pet_id
),

windows as (
    select
        event_date,
        pet_id,
        {%- for column in of_windows %}
        sum({{ column }}) as {{ column }},
        {%- endfor %}
        {%- for column in lows %}
        min({{ column }}) as {{ column }},
        {%- endfor %}
        {%- for column in highs %}
        max({{ column }}) as {{ column }},
        {%- endfor %}
        days_ago
    from device_windows
    group by event_date, pet_id, days_ago
),

telemetry as (
    select
        event_date,
        pet_id,
        {%- for column in sums.keys() | list + lows + highs %}
        max(case when days_ago = 0 then {{ column }} end) as {{ column }},
        {%- endfor %}
        {%- for column in compared %}
        sum(case when days_ago between 1 and 7 then {{ column }} end) as {{ column }}_7d_before,
        {%- endfor %}
        {%- for name, column in measured_days.items() %}
        count(case when days_ago between 1 and 7 then {{ column }} end) as {{ name }}_7d_before,
        {%- endfor %}
        sum(case when days_ago = 1 then steps end) as steps_day_before,
        sum(case when days_ago = 1 then step_minutes end) as step_minutes_day_before,
        sum(case when days_ago <= 6 then steps end) as steps_last_7d,
        count(case when days_ago <= 6 then steps end) as step_days_last_7d,
        sum(case when days_ago <= 6 then step_minutes end) as step_minutes_last_7d,
        sum(case when days_ago <= 6 then cast(steps as decimal(12, 0)) * cast(steps as decimal(12, 0)) end)
            as steps_square_last_7d,
        count(case when days_ago <= 6 then event_count end) as observed_days_last_7d,
        sum(case when days_ago <= 6 then observed_minutes end) as observed_minutes_last_7d
    from windows
    group by event_date, pet_id
),

known_visits as (
    with {{ change_log('clinic_visits', ref('stg_clinic_visits'), source('raw', 'extracts'), 'any') | indent(4) }},

    tracked_visits as (
        select
            visit_id,
            max(source_system) as source_system
        from {{ ref('stg_clinic_visits') }}
        where pet_id in (select pet_days.pet_id from pet_days)
        group by visit_id
    ),

    appointment_sources as (
        select
            source_system,
            min(arrival_ts) as known_from
        from {{ ref('stg_appointments') }}
        group by source_system
    ),

    {{ known_versions(
        'clinic_visits', 'versions', 'change_log.visit_id in (select tracked_visits.visit_id from tracked_visits)'
    ) | indent(4) }}

    select
        versions.event_date,
        versions.end_ts,
        versions.pet_id,
        versions.visit_ts,
        versions.visit_ts > {{ midnight_after('versions.event_date', -364) }} as is_within_365d,
        {{ visit_status('versions.status') }} as status,
        versions.is_unplanned,
        versions.weight_kg,
        versions.next_vaccine_due,
        {{ days_between(local_date('versions.end_ts', timezone_of('zones')), 'versions.next_vaccine_due') }}
            as vaccine_due_in_days,
        -- A visit is a booking only of a source without appointments.
        case
            when appointment_sources.known_from <= versions.end_ts then null
            else {{ visit_booking_outcome(
                'versions.status', 'versions.is_unplanned', 'versions.visit_ts', 'versions.visit_ts', 'versions.end_ts'
            ) | indent(12) }}
        end as outcome
    from versions
    left join tracked_visits on versions.visit_id = tracked_visits.visit_id
    left join appointment_sources on tracked_visits.source_system = appointment_sources.source_system
    left join {{ ref('cur_clinic_timezones') }} as zones on versions.clinic_id = zones.clinic_id
    where {{ visit_status('versions.status') }} in ('completed', 'no_show') and versions.visit_ts <= versions.end_ts
),

completed_visits as (
    select
        event_date,
        pet_id,
        min({{ epoch_us('end_ts') }} - {{ epoch_us('visit_ts') }}) as last_visit_age_us,
        sum(case when is_within_365d then 1 else 0 end) as visit_count_365d,
        count(case when is_within_365d then is_unplanned end) as stated_visit_count_365d,
        sum(case when is_within_365d and is_unplanned then 1 else 0 end) as unplanned_visit_count_365d,
        max(vaccine_due_in_days) as vaccine_due_in_days
    from known_visits
    where {{ is_completed_visit() }}
    group by event_date, pet_id
),

known_appointments as (
    with {{ change_log('appointments', ref('stg_appointments'), source('raw', 'extracts'), 'any') | indent(4) }},

    tracked_appointments as (
        select distinct appointment_id
        from {{ ref('stg_appointments') }}
        where pet_id in (select pet_days.pet_id from pet_days)
    ),

    {{ known_versions(
        'appointments',
        'versions',
        'change_log.appointment_id in (select tracked_appointments.appointment_id from tracked_appointments)'
    ) | indent(4) }}

    -- When one was cancelled tells late cancellations from others, which no feature counts.
    select
        event_date,
        pet_id,
        scheduled_ts > {{ midnight_after('event_date', -364) }} as is_within_365d,
        {{ booking_outcome('status', 'scheduled_ts', 'scheduled_ts', 'end_ts') | indent(8) }} as outcome
    from versions
    where scheduled_ts <= end_ts
),

no_shows as (
    select
        event_date,
        pet_id,
        sum(case when is_within_365d and outcome = 'no_show' then 1 else 0 end) as no_show_count_365d
    from (
        select
            event_date,
            pet_id,
            is_within_365d,
            outcome
        from known_appointments
        union all
        select
            event_date,
            pet_id,
            is_within_365d,
            outcome
        from known_visits
    ) as known_bookings
    where {{ is_finished_booking() }}
    group by event_date, pet_id
),

-- Least squares from exact sums: x in days before the day (at most 0), y in kg.
weights as (
    select
        event_date,
        pet_id,
        -days_ago as x,
        weight_count as n,
        weight_kg_sum as y
    from windows
    where weight_count > 0
    union all
    select
        event_date,
        pet_id,
        -{{ days_between('cast(visit_ts as date)', 'event_date') }} as x,
        1 as n,
        weight_kg as y
    from known_visits
    where {{ is_completed_visit() }} and weight_kg is not null and visit_ts >= {{ midnight_after('event_date', -29) }}
),

weight_days as (
    select
        event_date,
        pet_id,
        x,
        max(x) over (partition by event_date, pet_id) as last_x,
        n,
        y
    from weights
),

weight_sums as (
    select
        event_date,
        pet_id,
        count(distinct x) as weight_days_30d,
        count(distinct case when x > -15 then x end) as weight_days_last_15d,
        count(distinct case when x <= -15 then x end) as weight_days_15d_before,
        sum(case when x = last_x then y end) as latest_y,
        sum(case when x = last_x then n end) as latest_n,
        cast(sum(n) as decimal(12, 0)) as n,
        cast(sum(n * x) as decimal(14, 0)) as sx,
        cast(sum(n * x * x) as decimal(16, 0)) as sxx,
        cast(sum(y) as decimal(18, 3)) as sy,
        cast(sum(x * y) as decimal(20, 3)) as sxy
    from weight_days
    group by event_date, pet_id
),

weight_trends as (
    select
        event_date,
        pet_id,
        weight_days_30d,
        weight_days_last_15d,
        weight_days_15d_before,
        latest_y as weight_latest_kg_sum,
        latest_n as weight_latest_count,
        {{ ratio_of('n * sxy - sx * sy', 'n * sxx - sx * sx') }} as weight_slope_kg_per_day
    from weight_sums
),

known_pets as (
    with {{ change_log('pets', ref('stg_pets'), source('raw', 'extracts'), 'any') | indent(4) }},

    {{ known_versions(
        'pets', 'versions', 'change_log.pet_id in (select pet_days.pet_id from pet_days)'
    ) | indent(4) }}

    select
        event_date,
        pet_id,
        case
            when dob is not null then {{ ratio_of(days_between('dob', 'cast(end_ts as date)'), 365.25) }}
            else cast(extract(year from end_ts) - birth_year as double)
        end as age_years
    from versions
)

select
    pet_days.pet_id,
    pet_days.event_date,
    pet_days.end_ts,
    {%- for column, type in sums.items() %}
    cast(telemetry.{{ column }} as {{ type }}) as {{ column }},
    {%- endfor %}
    {%- for column in lows + highs %}
    telemetry.{{ column }},
    {%- endfor %}
    cast(telemetry.steps_day_before as bigint) as steps_day_before,
    cast(telemetry.step_minutes_day_before as bigint) as step_minutes_day_before,
    cast(telemetry.steps_last_7d as bigint) as steps_last_7d,
    cast(telemetry.steps_square_last_7d as decimal(26, 0)) as steps_square_last_7d,
    cast(telemetry.step_days_last_7d as bigint) as step_days_last_7d,
    cast(telemetry.step_minutes_last_7d as bigint) as step_minutes_last_7d,
    cast(telemetry.observed_minutes_last_7d as bigint) as observed_minutes_last_7d,
    cast(telemetry.observed_days_last_7d as bigint) as observed_days_last_7d,
    {%- for column in compared %}
    cast(telemetry.{{ column }}_7d_before as {{ sums[column] }}) as {{ column }}_7d_before,
    {%- endfor %}
    {%- for name in measured_days %}
    cast(telemetry.{{ name }}_7d_before as bigint) as {{ name }}_7d_before,
    {%- endfor %}
    cast(batteries.battery_drop_pct_last_7d as decimal(8, 2)) as battery_drop_pct_last_7d,
    cast(batteries.battery_drop_days_last_7d as bigint) as battery_drop_days_last_7d,
    cast(weight_trends.weight_days_30d as bigint) as weight_days_30d,
    cast(weight_trends.weight_days_last_15d as bigint) as weight_days_last_15d,
    cast(weight_trends.weight_days_15d_before as bigint) as weight_days_15d_before,
    cast(weight_trends.weight_latest_kg_sum as decimal(18, 3)) as weight_latest_kg_sum,
    cast(weight_trends.weight_latest_count as bigint) as weight_latest_count,
    weight_trends.weight_slope_kg_per_day,
    cast(completed_visits.last_visit_age_us as bigint) as last_visit_age_us,
    cast(completed_visits.visit_count_365d as bigint) as visit_count_365d,
    cast(completed_visits.stated_visit_count_365d as bigint) as stated_visit_count_365d,
    cast(completed_visits.unplanned_visit_count_365d as bigint) as unplanned_visit_count_365d,
    cast(completed_visits.vaccine_due_in_days as integer) as vaccine_due_in_days,
    cast(no_shows.no_show_count_365d as bigint) as no_show_count_365d,
    known_pets.age_years,
    {{ ratio_of(
        epoch_us('pet_days.end_ts') ~ ' - ' ~ epoch_us('first_assignments.first_assigned_ts'), 86400000000
    ) }} as days_on_platform
from pet_days
inner join first_assignments
    on pet_days.event_date = first_assignments.event_date and pet_days.pet_id = first_assignments.pet_id
left join telemetry on pet_days.event_date = telemetry.event_date and pet_days.pet_id = telemetry.pet_id
left join batteries on pet_days.event_date = batteries.event_date and pet_days.pet_id = batteries.pet_id
left join completed_visits
    on pet_days.event_date = completed_visits.event_date and pet_days.pet_id = completed_visits.pet_id
left join no_shows on pet_days.event_date = no_shows.event_date and pet_days.pet_id = no_shows.pet_id
left join weight_trends
    on pet_days.event_date = weight_trends.event_date and pet_days.pet_id = weight_trends.pet_id
left join known_pets on pet_days.event_date = known_pets.event_date and pet_days.pet_id = known_pets.pet_id
