{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'pet_id'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['known_collars', 'refusals'], 'window_days': 1, 'judges_hours': true},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}
{% set extracts = source('raw', 'extracts') %}

with known_assignments as (
    {{ known_history('device_assignments', ref('stg_device_assignments'), extracts,
        ['device_id', 'pet_id', 'assigned_from', 'assigned_to']) | indent(4) }}
),

known_devices as (
    {{ known_history('devices', ref('stg_devices'), extracts, ['status', 'expected_events_per_day']) | indent(4) }}
),

known_pets as (
    {{ known_history('pets', ref('stg_pets'), extracts, ['owner_id'],
        'pet_id in (select known_assignments.pet_id from known_assignments)') | indent(4) }}
),

in_time as (
    select
        device_id,
        event_date,
        date_trunc('hour', event_ts) as hour_ts,
        count(*) as event_count,
        {{ distinct_minutes('event_ts') }} as observed_minutes,
        {{ distinct_minutes('event_ts', 'pulse_bpm is not null or body_temp_c is not null') }} as worn_minutes,
        sum(step_count) as total_steps,
        sum(lick_count) as total_licks,
        sum(body_temp_c) as body_temp_c_sum,
        count(body_temp_c) as body_temp_count,
        {{ distinct_minutes('event_ts', 'body_temp_c is not null') }} as body_temp_minutes,
        min(battery_pct) as battery_min_pct
    from {{ ref('stg_telemetry_events') }}
    where {{ date_in_days('event_date', days) }} and arrival_ts <= {{ judged_at("date_trunc('hour', event_ts)") }}
    group by device_id, event_date, hour_ts
),

-- An hour in which nothing came from any collar is an outage of the platform and says nothing of a collar.
hours as (
    select distinct
        event_date,
        hour_ts,
        {{ hours_after('hour_ts', 1) }} as hour_end_ts,
        {{ judged_at('hour_ts') }} as judged_at
    from in_time
    where {{ judged_at('hour_ts') }} <= {{ data_present() }}
),

-- Assignments that had begun by the hour's end, as they were known then.
claims as (
    select
        hours.event_date,
        hours.hour_ts,
        hours.hour_end_ts,
        hours.judged_at,
        assignments.device_id,
        assignments.pet_id,
        assignments.assigned_from,
        assignments.assigned_to,
        max(assignments.assigned_from) over (
            partition by assignments.device_id, hours.hour_ts
        ) as latest_from
    from hours
    inner join known_assignments as assignments
        on {{ known_at('assignments', 'hours.hour_end_ts') }} and hours.hour_end_ts > assignments.assigned_from
),

-- An open assignment ends where a later one of the same device begins.
coverage as (
    select
        event_date,
        hour_ts,
        hour_end_ts,
        judged_at,
        device_id,
        pet_id,
        case
            when assigned_from > hour_ts then false
            when assigned_to is null then assigned_from = latest_from
            else assigned_to >= hour_end_ts
        end as is_all_hour,
        assigned_from > hour_ts or (assigned_to > hour_ts and assigned_to < hour_end_ts) as is_part_of_hour
    from claims
),

-- An hour in which the collar changed pets, or that several pets claim, is judged for none of them.
worn as (
    select
        event_date,
        hour_ts,
        hour_end_ts,
        judged_at,
        device_id,
        min(case when is_all_hour then pet_id end) as pet_id
    from coverage
    group by event_date, hour_ts, hour_end_ts, judged_at, device_id
    having
        count(distinct case when is_all_hour then pet_id end) = 1
        and max(case when is_part_of_hour then 1 else 0 end) = 0
),

-- Hours in any part of which the platform drops a collar's messages itself.
dropped as (
    select distinct
        hours.hour_ts,
        refusals.device_id
    from hours
    inner join {{ ref('cur_device_refusals') }} as refusals
        on
            hours.hour_end_ts > refusals.valid_from
            and (refusals.valid_to is null or refusals.valid_to > hours.hour_ts)
),

collars as (
    select
        worn.event_date,
        worn.hour_ts,
        worn.judged_at,
        worn.device_id,
        worn.pet_id,
        {{ has_regular_cadence('devices') }} and dropped.device_id is null as is_expected
    from worn
    inner join known_pets as pets
        on worn.pet_id = pets.pet_id and {{ known_at('pets', 'worn.hour_end_ts') }}
    left join known_devices as devices
        on worn.device_id = devices.device_id and {{ known_at('devices', 'worn.hour_end_ts') }}
    left join dropped on worn.device_id = dropped.device_id and worn.hour_ts = dropped.hour_ts
),

by_pet as (
    select
        collars.pet_id,
        collars.hour_ts,
        collars.judged_at,
        collars.event_date,
        count(distinct collars.device_id) as device_count,
        max(case when collars.is_expected then 1 else 0 end) = 1 as is_expected,
        coalesce(sum(in_time.event_count), 0) as event_count,
        coalesce(sum(in_time.observed_minutes), 0) as observed_minutes,
        coalesce(sum(in_time.worn_minutes), 0) as worn_minutes,
        sum(in_time.total_steps) as total_steps,
        sum(in_time.total_licks) as total_licks,
        sum(in_time.body_temp_c_sum) as body_temp_c_sum,
        coalesce(sum(in_time.body_temp_count), 0) as body_temp_count,
        coalesce(sum(in_time.body_temp_minutes), 0) as body_temp_minutes,
        min(in_time.battery_min_pct) as battery_min_pct
    from collars
    left join in_time
        on
            collars.device_id = in_time.device_id
            and collars.event_date = in_time.event_date
            and collars.hour_ts = in_time.hour_ts
    group by collars.pet_id, collars.hour_ts, collars.judged_at, collars.event_date
)

select
    pet_id,
    hour_ts,
    judged_at,
    event_date,
    cast(device_count as integer) as device_count,
    is_expected,
    cast(event_count as bigint) as event_count,
    cast(observed_minutes as integer) as observed_minutes,
    cast(worn_minutes as integer) as worn_minutes,
    cast(total_steps as bigint) as total_steps,
    cast(total_licks as bigint) as total_licks,
    cast(body_temp_c_sum as decimal(18, 2)) as body_temp_c_sum,
    cast(body_temp_count as bigint) as body_temp_count,
    cast(body_temp_minutes as integer) as body_temp_minutes,
    battery_min_pct
from by_pet
where event_count > 0 or is_expected
