with history as (
    {{ scd2_history('engagement', ref('stg_engagement'), source('raw', 'extracts')) | indent(4) }}
)

select
    engagement_id,
    owner_id,
    channel,
    action,
    occurred_at,
    duration_s,
    appointment_id,
    valid_from as changed_at,
    source_system,
    record_md5,
    created_at
from history
where is_current and not is_deleted
