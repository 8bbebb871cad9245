{% set feeds = record_feeds() %}
{{ record_model(feeds, 'arrival_ts') }}
{% set touched = touched_keys() %}
{% for feed in feeds %}
{% if not loop.first %}union all{% endif %}
select
    feed,
    entity_id,
    stream_id,
    kafka_partition,
    kafka_offset,
    changed_at,
    arrival_ts,
    record_md5,
    kept_stream_id,
    kept_kafka_partition,
    kept_kafka_offset
from (
    with {{ cleaned_records(feed, touched) | indent(4) }}

    select
        '{{ feed }}' as feed,
        {{ entity_id(feed) }} as entity_id,
        stream_id,
        kafka_partition,
        kafka_offset,
        changed_at,
        arrival_ts,
        record_md5,
        kept_stream_id,
        kept_kafka_partition,
        kept_kafka_offset
    from numbered
    where repeat_number > 1
) as {{ feed }}
{% endfor %}
