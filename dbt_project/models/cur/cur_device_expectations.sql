-- The one definition of what is expected of a collar: everything that judges silence over days reads it. Built
-- whole, because it ends with the data's present.
{% set open_end = "timestamp '9999-12-31 00:00:00'" %}

with contexts as (
    select
        device_id,
        clinic_id,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_device_contexts') }}
    where pet_resolution <> 'unassigned'
),

regular_devices as (
    select
        device_id,
        expected_events_per_day,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_devices') }}
    where not is_deleted and {{ has_regular_cadence() }}
),

refusals as (
    select
        device_id,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_device_refusals') }}
),

-- Spans whose messages are taken in: up to the first refusal, and after each to the next.
accepted as (
    select
        regular_devices.device_id,
        timestamp '0001-01-01 00:00:00' as valid_from,
        coalesce(min(refusals.valid_from), {{ open_end }}) as valid_to
    from regular_devices
    left join refusals on regular_devices.device_id = refusals.device_id
    group by regular_devices.device_id
    union all
    select
        device_id,
        valid_to as valid_from,
        coalesce(lead(valid_from) over (partition by device_id order by valid_from), {{ open_end }}) as valid_to
    from refusals
),

present as (
    select {{ data_present() }} as present_ts
),

expectations as (
    select
        contexts.device_id,
        contexts.clinic_id,
        regular_devices.expected_events_per_day,
        greatest(contexts.valid_from, regular_devices.valid_from, accepted.valid_from) as valid_from,
        least(contexts.valid_to, regular_devices.valid_to, accepted.valid_to, present.present_ts) as valid_to
    from contexts
    inner join regular_devices on contexts.device_id = regular_devices.device_id
    inner join accepted on contexts.device_id = accepted.device_id
    inner join present on contexts.valid_from < present.present_ts
)

select
    device_id,
    clinic_id,
    expected_events_per_day,
    valid_from,
    valid_to
from expectations
where valid_from < valid_to
