{{ config(meta={'dagster': {'ref': {'name': 'stg_record_duplicates'}}}) }}
-- Every raw change record is in its staging table or set aside as an exact
-- repeat. Returns the feeds that do not add up.
{% set feeds = record_feeds() %}
with counts as (
    {%- for feed in feeds %}
    select
        '{{ feed }}' as feed,
        count(*) as raw_rows,
        0 as staged_rows
    from {{ source('raw', feed) }}
    union all
    select
        '{{ feed }}' as feed,
        0 as raw_rows,
        count(*) as staged_rows
    from {{ ref('stg_' ~ feed) }}
    union all
    {%- endfor %}
    select
        feed,
        0 as raw_rows,
        count(*) as staged_rows
    from {{ ref('stg_record_duplicates') }}
    group by feed
)

select
    feed,
    sum(raw_rows) as raw_rows,
    sum(staged_rows) as staged_rows
from counts
group by feed
having sum(raw_rows) <> sum(staged_rows)
