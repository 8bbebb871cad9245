with history as (
    {{ scd2_history('appointments', ref('stg_appointments'), source('raw', 'extracts')) | indent(4) }}
)

select
    appointment_id,
    pet_id,
    clinic_id,
    scheduled_ts,
    status,
    visit_id,
    valid_from as changed_at,
    source_system,
    record_md5,
    created_at
from history
where is_current and not is_deleted
