-- Built whole from records and daily aggregates, never from events. A visit changes
-- the 90 days and every overdue count after it, and days without telemetry have
-- rows too, so increments by event day would be neither complete nor cheaper.
{% set present = 'null' if var('as_of_ts') is none else "'" ~ var('as_of_ts') ~ "'" %}
{% set first_day = "date '" ~ var('calendar_first') ~ "'" %}

with visits as (
    select
        coalesce(visits.clinic_id, 'unknown') as clinic_id,
        {{ local_date('visits.visit_ts', timezone_of('zones')) }} as date_day,
        visits.pet_id,
        {{ is_completed_visit('visits.status') }} as is_completed,
        coalesce(visits.is_unplanned, false) as is_unplanned,
        {{ visit_status('visits.status') }} as visit_status,
        ({{ epoch_us('visits.visit_end_ts') }} - {{ epoch_us('visits.visit_ts') }}) as duration_us
    from {{ ref('cur_clinic_visits') }} as visits
    left join {{ ref('cur_clinic_timezones') }} as zones on visits.clinic_id = zones.clinic_id
    where visits.is_current and not visits.is_deleted
),

visit_days as (
    select
        clinic_id,
        date_day,
        sum(case when is_completed then 1 else 0 end) as completed_visit_count,
        sum(case when is_completed and is_unplanned then 1 else 0 end) as unplanned_visit_count,
        sum(
            case when visit_status = 'no_show' or (visit_status <> 'cancelled' and not is_unplanned) then 1 else 0 end
        ) as scheduled_visit_count,
        sum(case when visit_status = 'no_show' then 1 else 0 end) as no_show_count,
        count(distinct case when is_completed then pet_id end) as seen_pet_count,
        sum(case when is_completed then duration_us end) as visit_us_sum,
        count(case when is_completed then duration_us end) as timed_visit_count
    from visits
    group by clinic_id, date_day
),

appointment_days as (
    select
        coalesce(appointments.clinic_id, 'unknown') as clinic_id,
        {{ local_date('appointments.scheduled_ts', timezone_of('zones')) }} as date_day,
        count(*) as appointment_count
    from {{ ref('cur_appointments') }} as appointments
    left join {{ ref('cur_clinic_timezones') }} as zones on appointments.clinic_id = zones.clinic_id
    where coalesce(appointments.status, 'scheduled') <> 'cancelled'
    group by
        coalesce(appointments.clinic_id, 'unknown'),
        {{ local_date('appointments.scheduled_ts', timezone_of('zones')) }}
),

collar_days as (
    select
        clinic_id,
        event_date as date_day,
        active_collar_count,
        silent_collar_count,
        expected_events,
        event_count
    from {{ ref('anl_clinic_daily_collars') }}
),

-- Days at whose last moment a pet of the clinic is past its due date: from, until.
overdue_spans as (
    select
        contexts.clinic_id,
        greatest(
            {{ local_date('contexts.valid_from', timezone_of('zones')) }},
            {{ next_date('contexts.next_vaccine_due') }},
            {{ first_day }}
        ) as first_day,
        coalesce({{ local_date('contexts.valid_to', timezone_of('zones')) }}, date '9999-12-31') as end_day
    from {{ ref('cur_pet_contexts') }} as contexts
    left join {{ ref('cur_clinic_timezones') }} as zones on contexts.clinic_id = zones.clinic_id
    where contexts.clinic_id is not null and contexts.next_vaccine_due is not null and not contexts.is_deleted
),

overdue_changes as (
    select
        clinic_id,
        date_day,
        sum(day_change) as overdue_change
    from (
        select
            clinic_id,
            first_day as date_day,
            1 as day_change
        from overdue_spans
        where first_day < end_day
        union all
        select
            clinic_id,
            end_day as date_day,
            -1 as day_change
        from overdue_spans
        where first_day < end_day
    ) as changes
    group by clinic_id, date_day
),

-- A clinic has a row for every date from the first on which anything happened to the last known.
known_days as (
    select
        clinic_id,
        min(date_day) as first_day,
        max(date_day) as last_day
    from (
        select
            clinic_id,
            date_day
        from visit_days
        union all
        select
            clinic_id,
            date_day
        from appointment_days
        union all
        select
            clinic_id,
            date_day
        from collar_days
    ) as happenings
    group by clinic_id
),

clinic_dates as (
    select
        known_days.clinic_id,
        dates.date_day
    from known_days
    left join {{ ref('cur_clinic_timezones') }} as zones on known_days.clinic_id = zones.clinic_id
    inner join {{ ref('anl_dates') }} as dates
        on
            known_days.first_day <= dates.date_day
            and dates.date_day <= coalesce(
                {{ local_date('cast(' ~ present ~ ' as timestamp)', timezone_of('zones')) }}, known_days.last_day
            )
),

daily as (
    select
        clinic_dates.clinic_id,
        clinic_dates.date_day,
        coalesce(visit_days.completed_visit_count, 0) as completed_visit_count,
        coalesce(visit_days.unplanned_visit_count, 0) as unplanned_visit_count,
        coalesce(visit_days.scheduled_visit_count, 0) as scheduled_visit_count,
        coalesce(visit_days.no_show_count, 0) as no_show_count,
        coalesce(visit_days.seen_pet_count, 0) as seen_pet_count,
        visit_days.visit_us_sum,
        coalesce(visit_days.timed_visit_count, 0) as timed_visit_count,
        coalesce(appointment_days.appointment_count, 0) as appointment_count,
        collar_days.active_collar_count,
        collar_days.silent_collar_count,
        collar_days.expected_events,
        collar_days.event_count,
        coalesce(overdue_changes.overdue_change, 0) as overdue_change
    from clinic_dates
    left join visit_days
        on clinic_dates.clinic_id = visit_days.clinic_id and clinic_dates.date_day = visit_days.date_day
    left join appointment_days
        on clinic_dates.clinic_id = appointment_days.clinic_id and clinic_dates.date_day = appointment_days.date_day
    left join collar_days
        on clinic_dates.clinic_id = collar_days.clinic_id and clinic_dates.date_day = collar_days.date_day
    left join overdue_changes
        on clinic_dates.clinic_id = overdue_changes.clinic_id and clinic_dates.date_day = overdue_changes.date_day
),

running as (
    select
        clinic_id,
        date_day,
        completed_visit_count,
        unplanned_visit_count,
        scheduled_visit_count,
        no_show_count,
        seen_pet_count,
        visit_us_sum,
        timed_visit_count,
        appointment_count,
        active_collar_count,
        silent_collar_count,
        expected_events,
        event_count,
        sum(no_show_count) over (
            partition by clinic_id order by date_day rows between 89 preceding and current row
        ) as no_show_count_90d,
        sum(scheduled_visit_count) over (
            partition by clinic_id order by date_day rows between 89 preceding and current row
        ) as scheduled_visit_count_90d,
        sum(overdue_change) over (
            partition by clinic_id order by date_day rows between unbounded preceding and current row
        ) as overdue_vaccination_count
    from daily
)

select
    clinic_id,
    date_day,
    cast(completed_visit_count as bigint) as completed_visit_count,
    cast(unplanned_visit_count as bigint) as unplanned_visit_count,
    cast(seen_pet_count as bigint) as seen_pet_count,
    {{ ratio_of('visit_us_sum', 'timed_visit_count * 60000000') }} as visit_minutes_mean,
    cast(appointment_count as bigint) as appointment_count,
    cast(scheduled_visit_count as bigint) as scheduled_visit_count,
    cast(no_show_count as bigint) as no_show_count,
    {{ ratio_of('no_show_count', 'scheduled_visit_count') }} as no_show_ratio,
    cast(scheduled_visit_count_90d as bigint) as scheduled_visit_count_90d,
    cast(no_show_count_90d as bigint) as no_show_count_90d,
    {{ ratio_of('no_show_count_90d', 'scheduled_visit_count_90d') }} as no_show_ratio_90d,
    cast(overdue_vaccination_count as bigint) as overdue_vaccination_count,
    active_collar_count,
    silent_collar_count,
    {{ ratio_of('event_count', 'expected_events') }} as heartbeat_ratio
from running
