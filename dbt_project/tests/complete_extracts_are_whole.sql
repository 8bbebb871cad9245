{{ config(meta={'dagster': {'ref': {'name': 'stg_record_duplicates'}}}) }}
-- depends_on: {{ ref('stg_record_duplicates') }}
-- A complete extract states what is absent, so each of its rows must be in raw:
-- a missing row would read as a deletion. What is redacted is gone from every
-- extract and reads as never stated; what is quarantined was not to be believed.
-- Returns the extracts that lack rows.
{% set feeds = record_feeds() %}
with loaded as (
    {%- for feed in feeds %}
    select
        '{{ feed }}' as feed,
        stream_id,
        count(*) as loaded_rows
    from {{ source('raw', feed) }}
    group by stream_id
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
)

select
    extracts.extract_id,
    extracts.feed,
    extracts.row_count,
    coalesce(loaded.loaded_rows, 0) as loaded_rows,
    coalesce(redacted.redacted_count, 0) + coalesce(redacted.quarantined_count, 0) as redacted_rows
from {{ source('raw', 'extracts') }} as extracts
left join loaded on extracts.stream_id = loaded.stream_id and extracts.feed = loaded.feed
left join {{ source('raw', 'redacted_ranges') }} as redacted
    on extracts.stream_id = redacted.stream_id and extracts.feed = redacted.feed
where
    extracts.complete
    and extracts.row_count
    <> coalesce(loaded.loaded_rows, 0) + coalesce(redacted.redacted_count, 0) + coalesce(redacted.quarantined_count, 0)
