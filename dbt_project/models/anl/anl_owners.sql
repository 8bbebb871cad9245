with {{ consents() }},

-- Every owner that a record or a fact names, and the one that stands for none.
owner_ids as (
    select owner_id
    from {{ ref('cur_owners') }}
    union
    select owner_id
    from {{ ref('cur_pet_contexts') }}
    where owner_id is not null
    union
    select owner_id
    from {{ ref('anl_wellness_alerts') }}
    union
    select owner_id
    from {{ ref('anl_owner_engagement') }}
    union
    select 'unknown' as owner_id
),

records as (
    select
        owners.owner_id,
        {{ allows('analytics', 'consents.is_allowed') }} as allows_analytics,
        owners.district,
        owners.age_band,
        owners.is_deleted
    from {{ ref('cur_owners') }} as owners
    left join consents
        on owners.owner_id = consents.owner_id and consents.flag = 'analytics' and consents.held_to is null
    where owners.is_current
),

reachable as (
    select
        owner_id,
        {%- for channel in message_channels() %}
        max(case when channel = '{{ channel }}' then 1 else 0 end) = 1 as is_reachable_{{ channel }}
        {%- if not loop.last %},{% endif %}
        {%- endfor %}
    from {{ ref('anl_reachable_owners') }}
    group by owner_id
)

select
    owner_ids.owner_id,
    case when records.allows_analytics then records.district end as district,
    case when records.allows_analytics then records.age_band end as age_band,
    {%- for channel in message_channels() %}
    coalesce(reachable.is_reachable_{{ channel }}, false) as is_reachable_{{ channel }},
    {%- endfor %}
    coalesce(not records.is_deleted, false) as is_active
from owner_ids
left join records on owner_ids.owner_id = records.owner_id
left join reachable on owner_ids.owner_id = reachable.owner_id
