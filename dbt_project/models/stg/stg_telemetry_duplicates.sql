{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    tags=['daily'],
    meta={'daily': true}
) }}
{% set days = model_days() %}

-- A hash of the key finds the few repeats without sorting or grouping text
-- over all rows; the exact key decides among those.
with repeated_hashes as (
    select {{ candidate_hash(['device_id', 'event_id', 'cast(event_ts as date)']) }} as key_hash
    from {{ source('raw', 'telemetry_events') }}
    where {{ ts_in_days('event_ts', days) }}
    group by key_hash
    having count(*) > 1
),

candidates as (
    select
        device_id,
        event_id,
        cast(event_ts as date) as event_date,
        arrival_ts,
        stream_id,
        kafka_partition,
        kafka_offset
    from {{ source('raw', 'telemetry_events') }}
    where
        {{ ts_in_days('event_ts', days) }}
        and {{ candidate_hash(['device_id', 'event_id', 'cast(event_ts as date)']) }} in (
            select repeated_hashes.key_hash from repeated_hashes
        )
),

firsts as (
    select
        device_id,
        event_id,
        event_date,
        arrival_ts,
        stream_id as kept_stream_id,
        kafka_partition as kept_kafka_partition,
        kafka_offset as kept_kafka_offset
    from candidates
    qualify
        row_number() over (
            partition by device_id, event_id, event_date
            order by arrival_ts, stream_id, kafka_partition, kafka_offset
        ) = 1
)

select
    candidates.stream_id,
    candidates.kafka_partition,
    candidates.kafka_offset,
    candidates.device_id,
    candidates.event_id,
    candidates.event_date,
    candidates.arrival_ts,
    firsts.kept_stream_id,
    firsts.kept_kafka_partition,
    firsts.kept_kafka_offset
from candidates
inner join firsts
    on
        candidates.device_id = firsts.device_id
        and candidates.event_id = firsts.event_id
        and candidates.event_date = firsts.event_date
where
    candidates.stream_id <> firsts.kept_stream_id
    or candidates.kafka_partition <> firsts.kept_kafka_partition
    or candidates.kafka_offset <> firsts.kept_kafka_offset
