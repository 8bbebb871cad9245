select
    owner_id,
    consent_flags,
    op,
    changed_at,
    arrival_ts,
    stream_id,
    kafka_partition,
    kafka_offset
from {{ ref('stg_owners') }}
