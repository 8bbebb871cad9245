{{ config(meta={'dagster': {'ref': {'name': 'anl_wellness_transitions'}}}) }}
-- Raised, closed, raised, ... for each pet and rule, the first one raised: every alert is raised once and closed
-- at most once.
with numbered as (
    select
        pet_id,
        rule,
        transition,
        transition_at,
        row_number() over (partition by pet_id, rule order by transition_at) as turn_number
    from {{ ref('anl_wellness_transitions') }}
)

select
    pet_id,
    rule,
    transition,
    transition_at
from numbered
where transition <> case when turn_number % 2 = 1 then 'raised' else 'closed' end
