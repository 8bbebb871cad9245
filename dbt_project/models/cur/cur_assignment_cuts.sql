{{ record_model(['device_assignments'], 'device_id', after=['stg.device_assignments']) }}

-- Every moment at which any version of any assignment begins or ends cuts its
-- device's time. A span between two cuts is worn by one pet or another as a
-- whole, whatever was known when; so features sum spans and never split them.
{% set touched = touched_keys() %}
with moments as (
    select
        device_id,
        assigned_from as cut_ts
    from {{ ref('stg_device_assignments') }}
    where {{ is_touched('device_id', touched) }}
    union
    select
        device_id,
        assigned_to as cut_ts
    from {{ ref('stg_device_assignments') }}
    where assigned_to is not null and {{ is_touched('device_id', touched) }}
)

select
    device_id,
    cut_ts as valid_from,
    lead(cut_ts) over (partition by device_id order by cut_ts) as valid_to
from moments
