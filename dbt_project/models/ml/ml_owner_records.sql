select
    owner_id,
    consent_flags,
    op,
    {{ change_order() }}
from {{ ref('stg_owners') }}
