{{ record_model(['device_assignments'], 'device_id', after=['cur.device_assignments']) }}
-- depends_on: {{ ref('stg_device_assignments') }}

with current_assignments as (
    select
        assignment_id,
        device_id,
        pet_id,
        assigned_from,
        assigned_to
    from {{ ref('cur_device_assignments') }}
    where is_current and not is_deleted and {{ is_touched('device_id', touched_keys()) }}
),

{{ device_segments('current_assignments') }}

select
    {{ typed_md5([['device_id', 'text'], ['segment_from', 'timestamp']]) | indent(4) }} as device_pet_interval_sk,
    device_id,
    pet_id,
    assignment_id,
    pet_resolution,
    segment_from as valid_from,
    nullif(segment_to, timestamp '9999-12-31 00:00:00') as valid_to
from segments
