{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'pet_id'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['known_records'], 'window_days': 30},
    post_hook=['{{ forget_applied_inputs() }}', '{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}
{% set minutes_per_day = 1440 %}
{% set features = [
    ['steps_24h', 'cast(steps as double)'],
    ['steps_delta_24h', ratio_of('steps - steps_day_before', 'steps_day_before')],
    ['steps_mean_7d', ratio_of('steps_last_7d', 'step_days_last_7d')],
    ['steps_delta_7d', ratio_of('steps', ratio_of('steps_7d_before', 'step_days_7d_before')) ~ ' - 1'],
    ['licks_24h', 'cast(licks as double)'],
    ['lick_rate_24h', ratio_of('licks * 60', 'observed_minutes')],
    ['licks_delta_7d', ratio_of('licks', ratio_of('licks_7d_before', 'lick_days_7d_before')) ~ ' - 1'],
    ['pulse_mean_24h', mean_of('pulse_bpm_sum', 'pulse_count')],
    ['pulse_delta_7d', mean_of('pulse_bpm_sum', 'pulse_count') ~ ' - ' ~ mean_of('pulse_bpm_sum_7d_before', 'pulse_count_7d_before')],
    ['body_temp_mean_24h', mean_of('body_temp_c_sum', 'body_temp_count')],
    ['rest_minutes_24h', 'case when step_minutes > 0 then cast(rest_minutes as double) end'],
    ['night_steps', 'cast(night_steps as double)'],
    ['battery_min_24h', 'cast(battery_min_pct as double)'],
    ['wear_minutes_24h', 'case when pulse_count + body_temp_count > 0 then cast(worn_minutes as double) end'],
    ['coverage_24h', ratio_of('observed_minutes', minutes_per_day)],
    ['days_since_last_visit', ratio_of('last_visit_age_us', 86400000000)],
    ['unplanned_visits_365d', 'case when visit_count_365d = 0 or stated_visit_count_365d > 0 then cast(unplanned_visit_count_365d as double) end'],
    ['weight_trend_30d', 'weight_slope_kg_per_day * 30'],
    ['age_years', 'case when age_years between 0 and 40 then age_years end'],
] %}

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

-- The last 30 days of each pet and day, as known at that day's end.
windows as (
    select
        known_segments.event_date,
        known_segments.pet_id,
        {{ days_between('measures.event_date', 'known_segments.event_date') }} as days_ago,
        sum(measures.steps) as steps,
        sum(measures.night_steps) as night_steps,
        sum(measures.licks) as licks,
        sum(measures.pulse_bpm_sum) as pulse_bpm_sum,
        sum(measures.pulse_count) as pulse_count,
        sum(measures.body_temp_c_sum) as body_temp_c_sum,
        sum(measures.body_temp_count) as body_temp_count,
        sum(measures.weight_kg_sum) as weight_kg_sum,
        sum(measures.weight_count) as weight_count,
        min(measures.battery_min_pct) as battery_min_pct,
        sum(measures.observed_minutes) as observed_minutes,
        sum(measures.worn_minutes) as worn_minutes,
        sum(measures.step_minutes) as step_minutes,
        sum(measures.rest_minutes) as rest_minutes
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
        {{ days_between('measures.event_date', 'known_segments.event_date') }}
),

telemetry as (
    select
        event_date,
        pet_id,
        sum(case when days_ago = 0 then steps end) as steps,
        sum(case when days_ago = 1 then steps end) as steps_day_before,
        sum(case when days_ago between 0 and 6 then steps end) as steps_last_7d,
        count(case when days_ago between 0 and 6 then steps end) as step_days_last_7d,
        sum(case when days_ago between 1 and 7 then steps end) as steps_7d_before,
        count(case when days_ago between 1 and 7 then steps end) as step_days_7d_before,
        sum(case when days_ago = 0 then night_steps end) as night_steps,
        sum(case when days_ago = 0 then licks end) as licks,
        sum(case when days_ago between 1 and 7 then licks end) as licks_7d_before,
        count(case when days_ago between 1 and 7 then licks end) as lick_days_7d_before,
        sum(case when days_ago = 0 then pulse_bpm_sum end) as pulse_bpm_sum,
        sum(case when days_ago = 0 then pulse_count end) as pulse_count,
        sum(case when days_ago between 1 and 7 then pulse_bpm_sum end) as pulse_bpm_sum_7d_before,
        sum(case when days_ago between 1 and 7 then pulse_count end) as pulse_count_7d_before,
        sum(case when days_ago = 0 then body_temp_c_sum end) as body_temp_c_sum,
        sum(case when days_ago = 0 then body_temp_count end) as body_temp_count,
        min(case when days_ago = 0 then battery_min_pct end) as battery_min_pct,
        sum(case when days_ago = 0 then observed_minutes end) as observed_minutes,
        sum(case when days_ago = 0 then worn_minutes end) as worn_minutes,
        sum(case when days_ago = 0 then step_minutes end) as step_minutes,
        sum(case when days_ago = 0 then rest_minutes end) as rest_minutes
    from windows
    group by event_date, pet_id
),

known_visits as (
    with {{ change_log('clinic_visits', ref('stg_clinic_visits'), source('raw', 'extracts'), 'any') | indent(4) }},

    tracked_visits as (
        select distinct visit_id
        from {{ ref('stg_clinic_visits') }}
        where pet_id in (select pet_days.pet_id from pet_days)
    ),

    {{ known_versions(
        'clinic_visits', 'versions', 'change_log.visit_id in (select tracked_visits.visit_id from tracked_visits)'
    ) | indent(4) }}

    select
        event_date,
        end_ts,
        pet_id,
        visit_ts,
        is_unplanned,
        weight_kg
    from versions
    where coalesce(status, 'completed') = 'completed' and visit_ts <= end_ts
),

visits as (
    select
        event_date,
        pet_id,
        min({{ epoch_us('end_ts') }} - {{ epoch_us('visit_ts') }}) as last_visit_age_us,
        sum(case when visit_ts > {{ midnight_after('event_date', -364) }} then 1 else 0 end) as visit_count_365d,
        count(case when visit_ts > {{ midnight_after('event_date', -364) }} then is_unplanned end)
            as stated_visit_count_365d,
        sum(case when visit_ts > {{ midnight_after('event_date', -364) }} and is_unplanned then 1 else 0 end)
            as unplanned_visit_count_365d
    from known_visits
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
    where weight_kg is not null and visit_ts >= {{ midnight_after('event_date', -29) }}
),

weight_sums as (
    select
        event_date,
        pet_id,
        cast(sum(n) as decimal(12, 0)) as n,
        cast(sum(n * x) as decimal(14, 0)) as sx,
        cast(sum(n * x * x) as decimal(16, 0)) as sxx,
        cast(sum(y) as decimal(18, 3)) as sy,
        cast(sum(x * y) as decimal(20, 3)) as sxy
    from weights
    group by event_date, pet_id
),

weight_trends as (
    select
        event_date,
        pet_id,
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
),

wide as (
    select
        pet_days.event_date,
        pet_days.end_ts,
        pet_days.pet_id,
        telemetry.steps,
        telemetry.steps_day_before,
        telemetry.steps_last_7d,
        telemetry.step_days_last_7d,
        telemetry.steps_7d_before,
        telemetry.step_days_7d_before,
        telemetry.night_steps,
        telemetry.licks,
        telemetry.licks_7d_before,
        telemetry.lick_days_7d_before,
        telemetry.pulse_bpm_sum,
        telemetry.pulse_count,
        telemetry.pulse_bpm_sum_7d_before,
        telemetry.pulse_count_7d_before,
        telemetry.body_temp_c_sum,
        telemetry.body_temp_count,
        telemetry.battery_min_pct,
        telemetry.observed_minutes,
        telemetry.worn_minutes,
        telemetry.step_minutes,
        telemetry.rest_minutes,
        visits.last_visit_age_us,
        visits.visit_count_365d,
        visits.stated_visit_count_365d,
        visits.unplanned_visit_count_365d,
        weight_trends.weight_slope_kg_per_day,
        known_pets.age_years
    from pet_days
    left join telemetry on pet_days.event_date = telemetry.event_date and pet_days.pet_id = telemetry.pet_id
    left join visits on pet_days.event_date = visits.event_date and pet_days.pet_id = visits.pet_id
    left join weight_trends
        on pet_days.event_date = weight_trends.event_date and pet_days.pet_id = weight_trends.pet_id
    left join known_pets on pet_days.event_date = known_pets.event_date and pet_days.pet_id = known_pets.pet_id
),

feature_names as (
    {%- for name, expression in features %}
    select '{{ name }}' as feature_name
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

named as (
    select
        feature_names.feature_name,
        catalogue.feature_version,
        catalogue.window_days
    from feature_names
    left join {{ ref('ml_feature_catalogue') }} as catalogue on feature_names.feature_name = catalogue.feature_name
),

valued as (
    select
        wide.event_date,
        wide.end_ts,
        wide.pet_id,
        named.feature_name,
        named.feature_version,
        named.window_days,
        case named.feature_name
            {%- for name, expression in features %}
            when '{{ name }}' then {{ expression }}
            {%- endfor %}
        end as feature_value
    from wide
    cross join named
)

select
    {{ typed_md5([
        ['pet_id', 'text'], ['feature_name', 'text'], ['end_ts', 'timestamp'], ['feature_version', 'text']
    ]) | indent(4) }} as feature_id,
    pet_id,
    feature_name,
    {{ midnight_after('event_date', '(1 - window_days)') }} as start_ts,
    end_ts,
    event_date,
    cast(feature_value as double) as value,  -- noqa: RF04
    feature_version,
    'day=' || {{ iso_date('event_date') }} || '/' || feature_version as batch_id,
    end_ts as created_at
from valued
