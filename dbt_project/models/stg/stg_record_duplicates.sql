{% set feeds = record_feeds() %}
{{ record_model(feeds, 'arrival_ts') }}
{% set keys = touched_keys() %}
{% set touched = touched_in_cte('arrival_ts', keys) %}
{% set columns = [
    'stream_id', 'kafka_partition', 'kafka_offset', 'changed_at', 'arrival_ts', 'record_md5',
    'kept_stream_id', 'kept_kafka_partition', 'kept_kafka_offset',
] %}

{{ with_touched('arrival_ts', keys) }}
repeats as (
    {%- for feed in feeds %}
    select
        feed,
        entity_id,
        {{ columns | join(',\n        ') }}
    from (
        with {{ cleaned_records(feed, touched) | indent(8) }}

        select
            '{{ feed }}' as feed,
            {{ entity_id(feed) }} as entity_id,
            {{ columns | join(',\n            ') }}
        from numbered
        where repeat_number > 1
    ) as {{ feed }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select
    feed,
    entity_id,
    {{ columns | join(',\n    ') }}
from repeats
