{{ config(meta={'dagster': {'ref': {'name': 'anl_wellness_alerts'}}}) }}
-- An alert of a pet and rule is closed before the next one is raised, and after it was raised itself; only an open
-- one can be stale.
with followed as (
    select
        pet_id,
        rule,
        raised_at,
        closed_at,
        stale_at,
        lead(raised_at) over (partition by pet_id, rule order by raised_at) as next_raised_at
    from {{ ref('anl_wellness_alerts') }}
)

select
    pet_id,
    rule,
    raised_at,
    closed_at
from followed
where
    closed_at <= raised_at
    or closed_at > next_raised_at
    or (closed_at is null and next_raised_at is not null)
    or (closed_at is not null and stale_at is not null)
