-- Every pet that a record or a fact names, and the one that stands for none.
with pet_ids as (
    select pet_id
    from {{ ref('cur_pets') }}
    union
    select pet_id
    from {{ ref('cur_device_pet_intervals') }}
    where pet_id is not null
    union
    select pet_id
    from {{ ref('anl_wellness_alerts') }}
    union
    select pet_id
    from {{ ref('anl_documents_to_review') }}
    union
    select 'unknown' as pet_id
),

records as (
    select
        pet_id,
        name as pet_name,
        species,
        breed,
        breed_type,
        is_crossbreed,
        sex,
        is_neutered,
        coalesce(cast(extract(year from dob) as integer), birth_year) as birth_year,
        is_deleted
    from {{ ref('cur_pets') }}
    where is_current
)

select
    pet_ids.pet_id,
    coalesce(records.pet_name, 'Unknown') as pet_name,
    records.species,
    records.breed,
    records.breed_type,
    records.is_crossbreed,
    records.sex,
    records.is_neutered,
    records.birth_year,
    coalesce(not records.is_deleted, false) as is_active
from pet_ids
left join records on pet_ids.pet_id = records.pet_id
