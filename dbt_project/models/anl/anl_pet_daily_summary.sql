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
        wear_minutes
    from {{ ref('anl_daily_activity') }}
),

visits as (
    select
        pet_id,
        visit_ts,
        next_vaccine_due
    from {{ ref('cur_clinic_visits') }}
    where is_current and not is_deleted and coalesce(status, 'completed') = 'completed'
),

visits_by_day as (
    select
        activity.pet_id,
        activity.event_date,
        max(visits.visit_ts) as last_visit_ts,
        max(visits.next_vaccine_due) as next_vaccine_due
    from activity
    inner join visits on activity.pet_id = visits.pet_id and activity.end_ts > visits.visit_ts
    group by activity.pet_id, activity.event_date
)

select
    activity.pet_id,
    activity.event_date,
    pets.name as pet_name,
    pets.species,
    pets.breed,
    pets.owner_id,
    {{ salted_hash('pets.microchip_id') }} as microchip_hash,
    activity.event_count,
    activity.total_steps,
    activity.total_licks,
    activity.pulse_bpm_mean,
    activity.body_temp_c_mean,
    activity.battery_min_pct,
    activity.wear_minutes,
    cast(visits_by_day.last_visit_ts as date) as last_visit_date,
    visits_by_day.next_vaccine_due
from activity
-- The pet as it was at the day's last moment.
left join {{ ref('cur_pets') }} as pets
    on
        activity.pet_id = pets.pet_id
        and activity.end_ts > pets.valid_from
        and (pets.valid_to is null or pets.valid_to >= activity.end_ts)
left join visits_by_day
    on activity.pet_id = visits_by_day.pet_id and activity.event_date = visits_by_day.event_date
