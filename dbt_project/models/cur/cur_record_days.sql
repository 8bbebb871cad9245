{% set feeds = record_feeds() %}
{{ record_model(feeds, 'known_date', after=staged_tables(feeds)) }}
{% set keys = touched_keys() %}
{% set touched = touched_in_cte('known_date', keys) %}

{{ with_touched('known_date', keys) }}
known_records as (
    {%- for feed in feeds %}
    select
        '{{ feed }}' as feed,
        {{ known_date('arrival_ts') }} as known_date,
        {{ row_number_of([
            ['source_system', 'text'],
            [entity_id(feed), 'text'],
            ['op', 'text'],
            ['changed_at', 'timestamp'],
            ['arrival_ts', 'timestamp'],
            ['record_md5', 'text'],
            ['stream_id', 'text'],
            ['kafka_partition', 'number'],
            ['kafka_offset', 'number'],
        ]) | indent(8) }} as row_hash
    from {{ ref('stg_' ~ feed) }}
    where {{ is_touched(known_date('arrival_ts'), touched) }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select
    feed,
    known_date,
    count(*) as record_count,
    sum(row_hash) as hash_sum
from known_records
group by feed, known_date
