select
    alert_id,
    'raised' as transition,
    raised_at as transition_at,
    pet_id,
    owner_id,
    clinic_id,
    rule,
    severity
from {{ ref('anl_wellness_alerts') }}
union all
select
    alert_id,
    'closed' as transition,
    closed_at as transition_at,
    pet_id,
    owner_id,
    clinic_id,
    rule,
    severity
from {{ ref('anl_wellness_alerts') }}
where closed_at is not null
