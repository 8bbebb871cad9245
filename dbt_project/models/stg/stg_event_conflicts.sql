-- Rebuilt over all days: an event id can come back on a date that is not
-- dirty, so the comparison is not one of days. Only repeated ids are compared.
with repeated_hashes as (
    select {{ candidate_hash(['device_id', 'event_id']) }} as key_hash
    from {{ source('raw', 'telemetry_events') }}
    group by key_hash
    having count(*) > 1
),

candidates as (
    select
        device_id,
        event_id,
        cast(event_ts as date) as event_date,
        event_ts,
        arrival_ts,
        stream_id,
        kafka_partition,
        kafka_offset,
        {{ telemetry_content_md5() | indent(8) }} as content_md5
    from {{ source('raw', 'telemetry_events') }}
    where {{ candidate_hash(['device_id', 'event_id']) }} in (select repeated_hashes.key_hash from repeated_hashes)
),

firsts as (
    select
        device_id,
        event_id,
        event_date,
        stream_id,
        kafka_partition,
        kafka_offset,
        content_md5
    from candidates
    qualify
        row_number() over (
            partition by device_id, event_id
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
    candidates.event_ts,
    candidates.arrival_ts,
    case when candidates.event_date <> firsts.event_date then 'date' else 'content' end as conflict_kind,
    candidates.content_md5,
    firsts.event_date as first_event_date,
    firsts.content_md5 as first_content_md5,
    firsts.stream_id as first_stream_id,
    firsts.kafka_partition as first_kafka_partition,
    firsts.kafka_offset as first_kafka_offset
from candidates
inner join firsts
    on candidates.device_id = firsts.device_id and candidates.event_id = firsts.event_id
where candidates.event_date <> firsts.event_date or candidates.content_md5 <> firsts.content_md5
