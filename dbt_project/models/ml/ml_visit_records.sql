select
    visit_id,
    pet_id,
    visit_ts,
    status,
    is_unplanned,
    op,
    {{ change_order() }}
from {{ ref('stg_clinic_visits') }}
