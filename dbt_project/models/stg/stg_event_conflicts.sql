{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    tags=['daily'],
    meta={'daily': true, 'window_days': 2, 'days_after': 1}
) }}
-- An id is compared with itself on the same and on the neighbouring dates, so a
-- dirty day also re-opens the days beside it, and those read the days beside them.
{% set days = model_days() %}
{% set days_read = expand_days(days, 2, days_after=1) %}

-- Only repeated ids are compared; a hash finds them without grouping text over all rows.
with repeated_hashes as (
    select {{ candidate_hash(['device_id', 'event_id']) }} as key_hash
    from {{ source('raw', 'telemetry_events') }}
    where {{ ts_in_days('event_ts', days_read) }}
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
    where
        {{ ts_in_days('event_ts', days_read) }}
        and {{ candidate_hash(['device_id', 'event_id']) }} in (select repeated_hashes.key_hash from repeated_hashes)
),

-- The first received of each date, at most three of which a record is compared with.
firsts_of_date as (
    select
        device_id,
        event_id,
        event_date,
        arrival_ts,
        stream_id,
        kafka_partition,
        kafka_offset,
        content_md5
    from candidates
    qualify
        row_number() over (
            partition by device_id, event_id, event_date
            order by arrival_ts, stream_id, kafka_partition, kafka_offset
        ) = 1
),

compared as (
    select
        candidates.stream_id,
        candidates.kafka_partition,
        candidates.kafka_offset,
        candidates.device_id,
        candidates.event_id,
        candidates.event_date,
        candidates.event_ts,
        candidates.arrival_ts,
        candidates.content_md5,
        firsts_of_date.event_date as first_event_date,
        firsts_of_date.content_md5 as first_content_md5,
        firsts_of_date.stream_id as first_stream_id,
        firsts_of_date.kafka_partition as first_kafka_partition,
        firsts_of_date.kafka_offset as first_kafka_offset
    from candidates
    inner join firsts_of_date
        on
            candidates.device_id = firsts_of_date.device_id
            and candidates.event_id = firsts_of_date.event_id
            and {{ days_between('firsts_of_date.event_date', 'candidates.event_date') }} between -1 and 1
    where {{ date_in_days('candidates.event_date', days) }}
    qualify
        row_number() over (
            partition by candidates.stream_id, candidates.kafka_partition, candidates.kafka_offset
            order by
                firsts_of_date.arrival_ts,
                firsts_of_date.stream_id,
                firsts_of_date.kafka_partition,
                firsts_of_date.kafka_offset
        ) = 1
)

select
    stream_id,
    kafka_partition,
    kafka_offset,
    device_id,
    event_id,
    event_date,
    event_ts,
    arrival_ts,
    case when event_date <> first_event_date then 'date' else 'content' end as conflict_kind,
    content_md5,
    first_event_date,
    first_content_md5,
    first_stream_id,
    first_kafka_partition,
    first_kafka_offset
from compared
where event_date <> first_event_date or content_md5 <> first_content_md5
