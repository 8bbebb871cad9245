-- An extract is a report even where nothing changed; a record that came without one is a report of itself.
with reports as (
    select
        feed,
        source_system,
        extracted_at as reported_at
    from {{ source('raw', 'extracts') }}
    where feed in ('appointments', 'clinic_visits')
    {%- for feed in ['appointments', 'clinic_visits'] %}
    union all
    select
        '{{ feed }}' as feed,
        source_system,
        arrival_ts as reported_at
    from {{ ref('stg_' ~ feed) }}
    {%- endfor %}
)

select
    feed,
    source_system,
    max(reported_at) as reported_until
from reports
group by feed, source_system
