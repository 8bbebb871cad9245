-- Steps of each pet in the last 24 hours against the 24 hours before, and the change as a share of the latter.
-- One row per pet with events in the last 24 hours; the change is null where nothing was counted before, and where
-- either side has fewer minutes with a step count than the feature of the same comparison asks for.
{% set present = "timestamp '" ~ var('as_of_ts') ~ "'" %}

with catalogue as (
    select min_coverage * {{ minutes_per_day() }} as min_minutes
    from {{ ref('ml_feature_catalogue') }}
    where feature_name = 'steps_delta_24h' and status = 'current'
),

windows as (
    select
        {{ hours_after(present, -48) }} as previous_from_ts,
        {{ hours_after(present, -24) }} as last_from_ts,
        {{ present }} as until_ts
),

last_24h as (
    select
        events.pet_id,
        cast(sum(events.step_count) as bigint) as steps_24h,
        count(distinct case when events.step_count is not null then date_trunc('minute', events.event_ts) end)
            as step_minutes_24h
    from {{ ref('anl_telemetry_events') }} as events
    inner join windows
        on events.event_ts >= windows.last_from_ts and events.event_ts < windows.until_ts
    where
        events.pet_id <> 'unknown'
        and events.event_date >= cast({{ hours_after(present, -24) }} as date)
    group by events.pet_id
),

-- [from, to): an event at the very boundary belongs to the last 24 hours alone.
previous_24h as (
    select
        events.pet_id,
        cast(sum(events.step_count) as bigint) as steps_previous_24h,
        count(distinct case when events.step_count is not null then date_trunc('minute', events.event_ts) end)
            as step_minutes_previous_24h
    from {{ ref('anl_telemetry_events') }} as events
    inner join windows
        on events.event_ts >= windows.previous_from_ts and events.event_ts < windows.last_from_ts
    where
        events.pet_id <> 'unknown'
        and events.event_date >= cast({{ hours_after(present, -48) }} as date)
        and events.event_date <= cast({{ hours_after(present, -24) }} as date)
    group by events.pet_id
)

select
    last_24h.pet_id,
    last_24h.steps_24h,
    previous_24h.steps_previous_24h,
    case
        when
            last_24h.step_minutes_24h >= catalogue.min_minutes
            and previous_24h.step_minutes_previous_24h >= catalogue.min_minutes
            then
                {{ ratio_of(
                    'last_24h.steps_24h - previous_24h.steps_previous_24h', 'previous_24h.steps_previous_24h'
                ) }}
    end as activity_delta_24h
from last_24h
cross join catalogue
left join previous_24h on last_24h.pet_id = previous_24h.pet_id
order by last_24h.pet_id
