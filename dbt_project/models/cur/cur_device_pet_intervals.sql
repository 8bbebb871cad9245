with current_assignments as (
    select
        assignment_id,
        device_id,
        pet_id,
        assigned_from,
        assigned_to
    from {{ ref('cur_device_assignments') }}
    where is_current and not is_deleted
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
