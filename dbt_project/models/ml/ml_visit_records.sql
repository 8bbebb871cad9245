with visits as (
    {{ known_history(
        'clinic_visits', ref('stg_clinic_visits'), source('raw', 'extracts'),
        ['pet_id', 'visit_ts', 'status', 'is_unplanned']
    ) | indent(4) }}
)

select
    visit_id,
    pet_id,
    visit_ts,
    is_unplanned,
    known_from,
    known_to
from visits
where {{ is_completed_visit() }}
