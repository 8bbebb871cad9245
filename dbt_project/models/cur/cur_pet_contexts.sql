{{ record_model(['pets', 'clinic_visits'], 'pet_id', after=['cur.pets', 'cur.clinic_visits']) }}
-- depends_on: {{ ref('stg_pets') }}, {{ ref('stg_clinic_visits') }}
{% set keys = touched_keys() %}
{% set touched = touched_in_cte('pet_id', keys) %}

{{ with_touched('pet_id', keys) }}
completed_visits as (
    select
        pet_id,
        visit_id,
        clinic_id,
        visit_ts,
        next_vaccine_due
    from {{ ref('cur_clinic_visits') }}
    where
        is_current
        and not is_deleted
        and {{ is_completed_visit() }}
        and pet_id is not null
        and visit_ts is not null
        and {{ is_touched('pet_id', touched) }}
),

-- Of several visits at one moment the last id names the clinic.
clinic_moments as (
    select
        pet_id,
        visit_ts,
        clinic_id
    from completed_visits
    where clinic_id is not null
    qualify row_number() over (partition by pet_id, visit_ts order by visit_id desc) = 1
),

-- Every moment at which something about a pet may change, and what begins then.
beginnings as (
    select
        pet_id,
        valid_from as moment_ts,
        valid_from as version_from,
        cast(null as timestamp) as clinic_visit_ts,
        cast(null as timestamp) as visit_ts,
        cast(null as date) as next_vaccine_due
    from {{ ref('cur_pets') }}
    where {{ is_touched('pet_id', touched) }}
    union all
    select
        pet_id,
        visit_ts as moment_ts,
        cast(null as timestamp) as version_from,
        case when clinic_id is not null then visit_ts end as clinic_visit_ts,
        visit_ts,
        next_vaccine_due
    from completed_visits
),

moments as (
    select
        pet_id,
        moment_ts,
        max(version_from) as version_from,
        max(clinic_visit_ts) as clinic_visit_ts,
        max(visit_ts) as visit_ts,
        max(next_vaccine_due) as next_vaccine_due
    from beginnings
    group by pet_id, moment_ts
),

-- What is the latest of its kind at each moment; all of them grow with time, so the latest is the greatest.
latest as (
    select
        pet_id,
        moment_ts,
        max(version_from) over (
            partition by pet_id order by moment_ts rows between unbounded preceding and current row
        ) as version_from,
        max(clinic_visit_ts) over (
            partition by pet_id order by moment_ts rows between unbounded preceding and current row
        ) as clinic_visit_ts,
        max(visit_ts) over (
            partition by pet_id order by moment_ts rows between unbounded preceding and current row
        ) as last_visit_ts,
        max(next_vaccine_due) over (
            partition by pet_id order by moment_ts rows between unbounded preceding and current row
        ) as next_vaccine_due
    from moments
),

states as (
    select
        latest.pet_id,
        latest.moment_ts,
        case when not pets.is_deleted then pets.owner_id end as owner_id,
        coalesce(pets.is_deleted, false) as is_deleted,
        clinic_moments.clinic_id,
        latest.last_visit_ts,
        latest.next_vaccine_due
    from latest
    left join {{ ref('cur_pets') }} as pets
        on latest.pet_id = pets.pet_id and latest.version_from = pets.valid_from
    left join clinic_moments
        on latest.pet_id = clinic_moments.pet_id and latest.clinic_visit_ts = clinic_moments.visit_ts
),

{{ merged_neighbours(
    'states', 'pet_id', 'moment_ts', ['owner_id', 'is_deleted', 'clinic_id', 'last_visit_ts', 'next_vaccine_due']
) }}

select
    {{ typed_md5([['pet_id', 'text'], ['valid_from', 'timestamp']]) | indent(4) }} as pet_context_sk,
    pet_id,
    owner_id,
    is_deleted,
    clinic_id,
    last_visit_ts,
    next_vaccine_due,
    valid_from,
    valid_to
from merged
