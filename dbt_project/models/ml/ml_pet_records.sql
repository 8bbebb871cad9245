select
    pet_id,
    owner_id,
    op,
    changed_at,
    arrival_ts,
    stream_id,
    kafka_partition,
    kafka_offset
from {{ ref('stg_pets') }}
