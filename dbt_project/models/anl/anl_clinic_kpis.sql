-- Built whole from records and daily aggregates, never from events. A visit changes
-- the 90 days and every overdue count after it, and days without telemetry have
-- rows too, so increments by event day would be neither complete nor cheaper.
{% set last_known_day = 'null' if var('as_of_ts') is none else "'" ~ var('as_of_ts')[:10] ~ "'" %}
{% set first_day = "date '" ~ var('calendar_first') ~ "'" %}

with visits as (
    select
        coalesce(clinic_id, 'unknown') as clinic_id,
        cast(visit_ts as date) as event_date,
        pet_id,
        {{ is_completed_visit() }} as is_completed,
        coalesce(is_unplanned, false) as is_unplanned,
        {{ visit_status() }} as visit_status,
        ({{ epoch_us('visit_end_ts') }} - {{ epoch_us('visit_ts') }}) as duration_us
    from {{ ref('cur_clinic_visits') }}
    where is_current and not is_deleted
),

visit_days as (
    select
        clinic_id,
        event_date,
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
    group by clinic_id, event_date
),

appointment_days as (
    select
        coalesce(clinic_id, 'unknown') as clinic_id,
        cast(scheduled_ts as date) as event_date,
        count(*) as appointment_count
    from {{ ref('cur_appointments') }}
    where coalesce(status, 'scheduled') <> 'cancelled'
    group by coalesce(clinic_id, 'unknown'), cast(scheduled_ts as date)
),

collar_days as (
    select
        clinic_id,
        event_date,
        active_collar_count,
        silent_collar_count,
        expected_events,
        event_count
    from {{ ref('anl_clinic_daily_collars') }}
),

-- Days at whose last moment a pet of the clinic is past its due date: from, until.
overdue_spans as (
    select
        clinic_id,
        greatest(
            cast(valid_from as date), cast({{ midnight_after('next_vaccine_due') }} as date), {{ first_day }}
        ) as first_day,
        coalesce(cast(valid_to as date), date '9999-12-31') as end_day
    from {{ ref('cur_pet_contexts') }}
    where clinic_id is not null and next_vaccine_due is not null and not is_deleted
),

overdue_changes as (
    select
        clinic_id,
        event_date,
        sum(day_change) as overdue_change
    from (
        select
            clinic_id,
            first_day as event_date,
            1 as day_change
        from overdue_spans
        where first_day < end_day
        union all
        select
            clinic_id,
            end_day as event_date,
            -1 as day_change
        from overdue_spans
        where first_day < end_day
    ) as changes
    group by clinic_id, event_date
),

-- A clinic has a row for every date from the first on which anything happened to the last known.
known_days as (
    select
        clinic_id,
        min(event_date) as first_day,
        max(event_date) as last_day
    from (
        select
            clinic_id,
            event_date
        from visit_days
        union all
        select
            clinic_id,
            event_date
        from appointment_days
        union all
        select
            clinic_id,
            event_date
        from collar_days
    ) as happenings
    group by clinic_id
),

clinic_dates as (
    select
        known_days.clinic_id,
        dates.event_date
    from known_days
    inner join {{ ref('anl_dates') }} as dates
        on
            known_days.first_day <= dates.event_date
            and dates.event_date <= coalesce(cast({{ last_known_day }} as date), known_days.last_day)
),

daily as (
    select
        clinic_dates.clinic_id,
        clinic_dates.event_date,
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
        on clinic_dates.clinic_id = visit_days.clinic_id and clinic_dates.event_date = visit_days.event_date
    left join appointment_days
        on clinic_dates.clinic_id = appointment_days.clinic_id and clinic_dates.event_date = appointment_days.event_date
    left join collar_days
        on clinic_dates.clinic_id = collar_days.clinic_id and clinic_dates.event_date = collar_days.event_date
    left join overdue_changes
        on clinic_dates.clinic_id = overdue_changes.clinic_id and clinic_dates.event_date = overdue_changes.event_date
),

running as (
    select
        clinic_id,
        event_date,
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
            partition by clinic_id order by event_date rows between 89 preceding and current row
        ) as no_show_count_90d,
        sum(scheduled_visit_count) over (
            partition by clinic_id order by event_date rows between 89 preceding and current row
        ) as scheduled_visit_count_90d,
        sum(overdue_change) over (
            partition by clinic_id order by event_date rows between unbounded preceding and current row
        ) as overdue_vaccination_count
    from daily
)

select
    clinic_id,
    event_date,
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
