{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={'daily': true, 'inputs': ['intervals', 'devices'], 'window_days': 1},
    post_hook=['{{ forget_applied_inputs() }}', '{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}

with by_clinic as (
    select
        device_id,
        event_date,
        capture_clinic_id,
        count(*) as event_count
    from {{ ref('stg_telemetry_events') }}
    where {{ date_in_days('event_date', days) }}
    group by device_id, event_date, capture_clinic_id
),

event_totals as (
    select
        device_id,
        event_date,
        sum(event_count) as event_count
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

event_days as (
    select
        event_date,
        cast(event_date as timestamp) as start_ts,
        {{ midnight_after('event_date') }} as end_ts
    from (select distinct event_date from event_totals) as dates
),

-- What was expected of a device: the version in force at the day's start, so
-- that a device registered at noon owes nothing for its morning.
expectations as (
    select
        event_days.event_date,
        devices.device_id,
        devices.expected_events_per_day
    from event_days
    inner join {{ ref('cur_devices') }} as devices
        on
            event_days.start_ts >= devices.valid_from
            and (devices.valid_to is null or devices.valid_to > event_days.start_ts)
    where not devices.is_deleted and devices.status = 'active' and devices.expected_events_per_day is not null
),

-- A silent device counts when a pet should have been wearing it all day.
worn_days as (
    select
        event_days.event_date,
        intervals.device_id
    from event_days
    inner join {{ ref('cur_device_pet_intervals') }} as intervals
        on
            event_days.start_ts >= intervals.valid_from
            and (intervals.valid_to is null or intervals.valid_to >= event_days.end_ts)
),

device_days as (
    select
        device_id,
        event_date
    from event_totals
    union
    select
        expectations.device_id,
        expectations.event_date
    from expectations
    inner join worn_days
        on expectations.device_id = worn_days.device_id and expectations.event_date = worn_days.event_date
)

select
    device_days.device_id,
    device_days.event_date,
    main_clinics.capture_clinic_id as clinic_id,
    expectations.expected_events_per_day as expected_events,
    cast(coalesce(event_totals.event_count, 0) as bigint) as event_count,
    {{ ratio_of('coalesce(event_totals.event_count, 0)', 'expectations.expected_events_per_day') }} as heartbeat_ratio
from device_days
left join event_totals
    on device_days.device_id = event_totals.device_id and device_days.event_date = event_totals.event_date
left join main_clinics
    on device_days.device_id = main_clinics.device_id and device_days.event_date = main_clinics.event_date
left join expectations
    on device_days.device_id = expectations.device_id and device_days.event_date = expectations.event_date
