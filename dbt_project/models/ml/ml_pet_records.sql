select
    pet_id,
    owner_id,
    op,
    {{ change_order() }}
from {{ ref('stg_pets') }}
