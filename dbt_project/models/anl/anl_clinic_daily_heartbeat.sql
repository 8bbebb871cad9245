select
    coalesce(clinic_id, 'unknown') as clinic_id,
    event_date,
    count(*) as device_count,
    sum(case when event_count = 0 then 1 else 0 end) as silent_device_count,
    cast(sum(expected_events) as bigint) as expected_events,
    cast(sum(case when expected_events is not null then event_count end) as bigint) as event_count,
    {{ ratio_of('sum(case when expected_events is not null then event_count end)', 'sum(expected_events)') }}
        as heartbeat_ratio
from {{ ref('anl_device_daily_heartbeat') }}
group by coalesce(clinic_id, 'unknown'), event_date
