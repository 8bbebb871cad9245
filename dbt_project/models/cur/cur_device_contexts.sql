{{ record_model(
    ['device_assignments', 'pets', 'clinic_visits'],
    'device_id',
    after=['cur.device_pet_intervals', 'cur.pet_contexts']
) }}
-- depends_on: {{ ref('stg_device_assignments') }}, {{ ref('stg_pets') }}, {{ ref('stg_clinic_visits') }}
{% set open_end = "timestamp '9999-12-31 00:00:00'" %}

with worn as (
    select
        device_id,
        pet_id,
        pet_resolution,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_device_pet_intervals') }}
    where {{ is_touched('device_id', touched_keys()) }}
),

worn_pets as (
    select distinct pet_id
    from worn
    where pet_id is not null
),

first_contexts as (
    select
        pet_id,
        min(valid_from) as first_from
    from {{ ref('cur_pet_contexts') }}
    where pet_id in (select worn_pets.pet_id from worn_pets)
    group by pet_id
),

-- A pet may wear a collar before anything is known of it: time before its first context is one, too.
contexts as (
    select
        pet_id,
        owner_id,
        clinic_id,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_pet_contexts') }}
    union all
    select
        worn_pets.pet_id,
        cast(null as varchar) as owner_id,
        cast(null as varchar) as clinic_id,
        timestamp '0001-01-01 00:00:00' as valid_from,
        coalesce(first_contexts.first_from, {{ open_end }}) as valid_to
    from worn_pets
    left join first_contexts on worn_pets.pet_id = first_contexts.pet_id
),

cut as (
    select
        worn.device_id,
        worn.pet_id,
        worn.pet_resolution,
        contexts.owner_id,
        contexts.clinic_id,
        greatest(worn.valid_from, contexts.valid_from) as cut_from,
        least(worn.valid_to, contexts.valid_to) as cut_to
    from worn
    inner join contexts
        on
            worn.pet_id = contexts.pet_id
            and worn.valid_from < contexts.valid_to
            and worn.valid_to > contexts.valid_from
    union all
    select
        device_id,
        pet_id,
        pet_resolution,
        cast(null as varchar) as owner_id,
        cast(null as varchar) as clinic_id,
        valid_from as cut_from,
        valid_to as cut_to
    from worn
    where pet_id is null
),

-- A device worn by nobody leaves a hole, which must stay one.
holes as (
    select
        device_id,
        cut_to as cut_from
    from cut
    where cut_to < {{ open_end }}
    except
    select
        device_id,
        cut_from
    from cut
),

states as (
    select
        device_id,
        pet_id,
        pet_resolution,
        owner_id,
        clinic_id,
        cut_from
    from cut
    union all
    select
        device_id,
        cast(null as varchar) as pet_id,
        'unassigned' as pet_resolution,
        cast(null as varchar) as owner_id,
        cast(null as varchar) as clinic_id,
        cut_from
    from holes
),

{{ merged_neighbours(
    'states', 'device_id', 'cut_from', ['pet_id', 'pet_resolution', 'owner_id', 'clinic_id']
) }}

select
    {{ typed_md5([['device_id', 'text'], ['valid_from', 'timestamp']]) | indent(4) }} as device_context_sk,
    device_id,
    pet_id,
    pet_resolution,
    owner_id,
    clinic_id,
    valid_from,
    valid_to
from merged
