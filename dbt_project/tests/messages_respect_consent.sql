{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'cur_engagement'}}}) }}
-- No message was sent on a channel that the owner had not consented to at that
-- moment. The sending system's business, so it warns. Returns those messages.
with {{ consents() }},

messages as (
    select
        engagement_id,
        owner_id,
        channel,
        occurred_at
    from {{ ref('cur_engagement') }}
    where action = 'sent'
)

select
    messages.engagement_id,
    messages.channel,
    messages.occurred_at
from messages
left join {{ ref('cur_owners') }} as owners
    on
        messages.owner_id = owners.owner_id
        and messages.occurred_at >= owners.valid_from
        and (owners.valid_to is null or owners.valid_to > messages.occurred_at)
left join consents
    on
        messages.owner_id = consents.owner_id
        and messages.channel = consents.flag
        and messages.occurred_at >= consents.held_from
        and (consents.held_to is null or consents.held_to > messages.occurred_at)
where
    coalesce(owners.is_deleted, true)
    or not {{ allows('push', 'consents.is_allowed') }}
