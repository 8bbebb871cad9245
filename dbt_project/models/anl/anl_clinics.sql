-- Every clinic that a record or a fact names, and the one that stands for none.
with clinic_ids as (
    select clinic_id
    from {{ ref('cur_clinics') }}
    union
    select clinic_id
    from {{ ref('anl_clinic_kpis') }}
    union
    select clinic_id
    from {{ ref('cur_pet_contexts') }}
    where clinic_id is not null
    union
    select clinic_id
    from {{ ref('anl_wellness_alerts') }}
    union
    -- A clinic that only captured events may be in no other table.
    select clinic_id
    from {{ ref('stg_capture_clinics') }}
    union
    select 'unknown' as clinic_id
),

records as (
    select
        clinic_id,
        name as clinic_name,
        district,
        timezone,
        is_deleted
    from {{ ref('cur_clinics') }}
    where is_current
)

select
    clinic_ids.clinic_id,
    coalesce(records.clinic_name, 'Unknown') as clinic_name,
    records.district,
    records.timezone,
    coalesce(not records.is_deleted, false) as is_active
from clinic_ids
left join records on clinic_ids.clinic_id = records.clinic_id
