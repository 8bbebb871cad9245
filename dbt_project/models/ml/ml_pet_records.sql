with pets as (
    {{ known_history('pets', ref('stg_pets'), source('raw', 'extracts'), ['owner_id']) | indent(4) }}
)

select
    pet_id,
    owner_id,
    known_from,
    known_to
from pets
where owner_id is not null
