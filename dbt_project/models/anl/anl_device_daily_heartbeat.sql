{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['expectations'], 'window_days': 1},
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

-- Every day from the first with telemetry to the data's present, whether anything came or not.
with event_days as (
    select
        event_date,
        cast(event_date as timestamp) as start_ts,
        {{ midnight_after('event_date') }} as end_ts
    from {{ ref('cur_day_inputs') }}
    where input_kind = 'expectations' and {{ date_in_days('event_date', days) }}
),

expected_parts as (
    select
        event_days.event_date,
        expectations.device_id,
        expectations.clinic_id,
        expectations.expected_events_per_day,
        greatest(event_days.start_ts, expectations.valid_from) as part_from,
        least(event_days.end_ts, expectations.valid_to) as part_to
    from event_days
    inner join {{ ref('cur_device_expectations') }} as expectations
        on event_days.end_ts > expectations.valid_from and event_days.start_ts < expectations.valid_to
),

-- An event counts as heard where any was expected: a collar may send before it is registered or worn.
by_clinic as (
    select
        events.device_id,
        events.event_date,
        events.capture_clinic_id,
        count(*) as event_count,
        count(expected_parts.device_id) as heard_event_count
    from {{ ref('stg_telemetry_events') }} as events
    left join expected_parts
        on
            events.device_id = expected_parts.device_id
            and events.event_date = expected_parts.event_date
            and events.event_ts >= expected_parts.part_from
            and events.event_ts < expected_parts.part_to
    where {{ date_in_days('events.event_date', days) }}
    group by events.device_id, events.event_date, events.capture_clinic_id
),

event_totals as (
    select
        device_id,
        event_date,
        sum(event_count) as event_count,
        sum(heard_event_count) as heard_event_count
    from by_clinic
    group by device_id, event_date
),

-- The clinic that captured most of a device's events that day.
main_clinics as (
    select
        device_id,
        event_date,
        capture_clinic_id
    from by_clinic
    where capture_clinic_id is not null
    qualify
        row_number() over (
            partition by device_id, event_date
            order by event_count desc, capture_clinic_id asc
        ) = 1
),

expected_sums as (
    select
        device_id,
        event_date,
        sum(
            expected_events_per_day * cast({{ epoch_us('part_to') }} - {{ epoch_us('part_from') }} as decimal(18, 0))
        ) as expected_us
    from expected_parts
    group by device_id, event_date
),

-- Whole events only: who owes less than one is not silent.
expectations as (
    select
        device_id,
        event_date,
        nullif({{ whole_times('expected_us', '86400000000') }}, 0) as expected_events
    from expected_sums
),

-- The clinic at the last moment at which anything was expected.
expected_clinics as (
    select
        device_id,
        event_date,
        clinic_id
    from expected_parts
    qualify row_number() over (partition by device_id, event_date order by part_to desc) = 1
),

device_days as (
    select
        device_id,
        event_date
    from event_totals
    union
    select
        device_id,
        event_date
    from expectations
    where expected_events is not null
)

select
    device_days.device_id,
    device_days.event_date,
    coalesce(main_clinics.capture_clinic_id, expected_clinics.clinic_id, 'unknown') as clinic_id,
    expectations.expected_events,
    cast(coalesce(event_totals.event_count, 0) as bigint) as event_count,
    case
        when expectations.expected_events is not null then cast(coalesce(event_totals.heard_event_count, 0) as bigint)
    end as heard_event_count,
    {{ ratio_of('coalesce(event_totals.heard_event_count, 0)', 'expectations.expected_events') }} as heartbeat_ratio
from device_days
left join event_totals
    on device_days.device_id = event_totals.device_id and device_days.event_date = event_totals.event_date
left join main_clinics
    on device_days.device_id = main_clinics.device_id and device_days.event_date = main_clinics.event_date
left join expectations
    on device_days.device_id = expectations.device_id and device_days.event_date = expectations.event_date
left join expected_clinics
    on device_days.device_id = expected_clinics.device_id and device_days.event_date = expected_clinics.event_date
