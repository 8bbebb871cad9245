-- Every pet with its daily activity, last visit and next vaccination. One row per pet and day with activity, and
-- one row with null activity for a pet without any. Pets, owners and visits as they stand at the data's present.
{% set present = "timestamp '" ~ var('as_of_ts') ~ "'" %}

with visits as (
    select
        visits.pet_id,
        max({{ local_date('visits.visit_ts', timezone_of('zones')) }}) as last_visit_date,
        max(visits.next_vaccine_due) as next_vaccine_due
    from {{ ref('cur_clinic_visits') }} as visits
    left join {{ ref('cur_clinic_timezones') }} as zones on visits.clinic_id = zones.clinic_id
    where
        visits.is_current
        and not visits.is_deleted
        and {{ is_completed_visit('visits.status') }}
        and visits.visit_ts < {{ present }}
    group by visits.pet_id
)

select
    pets.pet_id,
    pets.name as pet_name,
    pets.breed,
    activity.event_date,
    activity.total_steps,
    activity.event_count,
    visits.last_visit_date,
    visits.next_vaccine_due,
    pets.owner_id
from {{ ref('cur_pets') }} as pets
left join {{ ref('anl_daily_activity') }} as activity on pets.pet_id = activity.pet_id
left join visits on pets.pet_id = visits.pet_id
where pets.is_current and not pets.is_deleted
order by pets.pet_id, activity.event_date
