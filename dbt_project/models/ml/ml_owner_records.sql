with owners as (
    {{ known_history('owners', ref('stg_owners'), source('raw', 'extracts'), []) | indent(4) }}
),

{{ known_consents() }}

select
    owners.owner_id,
    greatest(owners.known_from, known_consents.known_from) as known_from,
    case
        when owners.known_to is null or known_consents.known_to < owners.known_to then known_consents.known_to
        else owners.known_to
    end as known_to
from owners
inner join known_consents
    on
        owners.owner_id = known_consents.owner_id
        and known_consents.flag = 'share_research'
        and (owners.known_to is null or owners.known_to > known_consents.known_from)
        and (known_consents.known_to is null or known_consents.known_to > owners.known_from)
where {{ allows('share_research', 'known_consents.is_allowed') }}
