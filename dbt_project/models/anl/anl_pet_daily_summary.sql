{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'clinic_id'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['intervals', 'pets', 'pet_contexts', 'clinic_timezones'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with activity as (
    select
        pet_id,
        event_date,
        {{ midnight_after('event_date') }} as end_ts,
        event_count,
        total_steps,
        total_licks,
        pulse_bpm_mean,
        body_temp_c_mean,
        battery_min_pct,
        worn_minutes
    from {{ ref('anl_daily_activity') }}
    where {{ date_in_days('event_date', days) }}
),

-- Where no visit names a clinic, the one that captured most of the pet's events of the day stands in.
capture_clinics as (
    select
        pet_id,
        event_date,
        capture_clinic_id
    from {{ ref('anl_telemetry_events') }}
    where clinic_resolution = 'capture' and pet_id <> 'unknown' and {{ date_in_days('event_date', days) }}
    group by pet_id, event_date, capture_clinic_id
    qualify
        row_number() over (
            partition by pet_id, event_date
            order by count(*) desc, capture_clinic_id asc
        ) = 1
),

contexts as (
    select
        spans.pet_id,
        spans.owner_id,
        spans.clinic_id,
        spans.last_visit_ts,
        spans.next_vaccine_due,
        spans.valid_from,
        spans.valid_to
    from {{ ref('cur_pet_contexts') }} as spans
    where {{ span_in_days('spans.valid_from', 'spans.valid_to', days) }}
),

pets as (
    select
        versions.pet_id,
        versions.name,
        versions.species,
        versions.breed,
        versions.microchip_id,
        versions.valid_from,
        versions.valid_to
    from {{ ref('cur_pets') }} as versions
    where {{ span_in_days('versions.valid_from', 'versions.valid_to', days) }}
)

-- Pet and context as they were at the day's last moment.
select
    activity.pet_id,
    activity.event_date,
    pets.name as pet_name,
    pets.species,
    pets.breed,
    coalesce(contexts.owner_id, 'unknown') as owner_id,
    coalesce(contexts.clinic_id, capture_clinics.capture_clinic_id, 'unknown') as clinic_id,
    case
        when contexts.clinic_id is not null then 'visit'
        when capture_clinics.capture_clinic_id is not null then 'capture'
        else 'unknown'
    end as clinic_resolution,
    {{ salted_hash('pets.microchip_id') }} as microchip_hash,
    activity.event_count,
    activity.total_steps,
    activity.total_licks,
    activity.pulse_bpm_mean,
    activity.body_temp_c_mean,
    activity.battery_min_pct,
    activity.worn_minutes,
    {{ local_date('contexts.last_visit_ts', timezone_of('zones')) }} as last_visit_date,
    contexts.next_vaccine_due
from activity
left join pets
    on
        activity.pet_id = pets.pet_id
        and activity.end_ts > pets.valid_from
        and (pets.valid_to is null or pets.valid_to >= activity.end_ts)
left join contexts
    on
        activity.pet_id = contexts.pet_id
        and activity.end_ts > contexts.valid_from
        and (contexts.valid_to is null or contexts.valid_to >= activity.end_ts)
left join {{ ref('cur_clinic_timezones') }} as zones on contexts.clinic_id = zones.clinic_id
left join capture_clinics
    on activity.pet_id = capture_clinics.pet_id and activity.event_date = capture_clinics.event_date
