with {{ consents() }}

select
    owners.owner_id,
    consents.flag as channel,
    consents.stated_at as consented_at
from {{ ref('cur_owners') }} as owners
left join consents on owners.owner_id = consents.owner_id and consents.held_to is null
where
    owners.is_current
    and not owners.is_deleted
    and consents.flag in ('{{ message_channels() | join("', '") }}')
    and {{ allows('push', 'consents.is_allowed') }}
