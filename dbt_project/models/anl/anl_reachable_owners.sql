with {{ consents() }}

select
    owners.owner_id,
    consents.flag as channel,
    consents.stated_at as consented_at
from {{ ref('cur_owners') }} as owners
inner join consents on owners.owner_id = consents.owner_id and consents.held_to is null
where
    owners.is_current
    and not owners.is_deleted
    -- What was never said has no row, and is no.
    and consents.flag in (
        {%- for channel in message_channels() %}
        '{{ channel }}'{% if not loop.last %},{% endif %}
        {%- endfor %}
    )
    and {{ allows('push', 'consents.is_allowed') }}
