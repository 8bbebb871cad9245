with owners as (
    select
        owner_id,
        consent_flags
    from {{ ref('cur_owners') }}
    where is_current and not is_deleted
)

{% for channel in message_channels() %}
{% if not loop.first %}union all{% endif %}
select
    owner_id,
    '{{ channel }}' as channel,
    {{ json_timestamp('consent_flags', channel ~ '.at') }} as consented_at
from owners
-- Silence is no consent.
where {{ json_boolean('consent_flags', channel ~ '.value') }}
{% endfor %}
