select
    visit_id,
    pet_id,
    visit_ts,
    status,
    is_unplanned,
    op,
    changed_at,
    arrival_ts,
    stream_id,
    kafka_partition,
    kafka_offset
from {{ ref('stg_clinic_visits') }}
