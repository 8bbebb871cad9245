-- Built whole from records and daily aggregates, never from events. A visit changes
-- the 90 days and every overdue count after it, and days without telemetry have
-- rows too, so increments by event day would be neither complete nor cheaper.
{% set present = 'null' if var('as_of_ts') is none else "'" ~ var('as_of_ts') ~ "'" %}
{% set first_day = "date '" ~ var('calendar_first') ~ "'" %}

{# Counts of a day's bookings, all null where the day was not over by the last report. #}
{% set booking_counts = {
    'appointment_count': "booking_kind = 'appointment' and not " ~ is_cancelled_booking(),
    'attended_count': "outcome = 'attended'",
    'no_show_count': "outcome = 'no_show'",
    'late_cancellation_count': "outcome = 'late_cancellation'",
    'cancellation_count': "outcome = 'cancelled'",
    'clinic_cancellation_count': "outcome = 'cancelled_by_clinic'",
    'rescheduled_count': "outcome = 'rescheduled'",
    'unresolved_booking_count': "outcome = 'unresolved'",
    'unknown_booking_count': "outcome = 'unknown'",
    'finished_booking_count': "is_finished",
} %}
{% set visit_counts = ['completed_visit_count', 'unplanned_visit_count', 'seen_pet_count'] %}
{% set last_90d = 'partition by clinic_id order by event_date rows between 89 preceding and current row' %}

with visits as (
    select
        coalesce(visits.clinic_id, 'unknown') as clinic_id,
        {{ local_date('visits.visit_ts', timezone_of('zones')) }} as event_date,
        visits.source_system,
        visits.pet_id,
        {{ is_completed_visit('visits.status') }} as is_completed,
        coalesce(visits.is_unplanned, false) as is_unplanned,
        ({{ epoch_us('visits.visit_end_ts') }} - {{ epoch_us('visits.visit_ts') }}) as duration_us
    from {{ ref('cur_clinic_visits') }} as visits
    left join {{ ref('cur_clinic_timezones') }} as zones on visits.clinic_id = zones.clinic_id
    where visits.is_current and not visits.is_deleted
),

visit_days as (
    select
        clinic_id,
        event_date,
        sum(case when is_completed then 1 else 0 end) as completed_visit_count,
        sum(case when is_completed and is_unplanned then 1 else 0 end) as unplanned_visit_count,
        count(distinct case when is_completed then pet_id end) as seen_pet_count,
        sum(case when is_completed then duration_us end) as visit_us_sum,
        count(case when is_completed then duration_us end) as timed_visit_count
    from visits
    group by clinic_id, event_date
),

booking_days as (
    select
        coalesce(clinic_id, 'unknown') as clinic_id,
        event_date,
        {%- for name, condition in booking_counts.items() %}
        sum(case when {{ condition }} then 1 else 0 end) as {{ name }}{% if not loop.last %},{% endif %}
        {%- endfor %}
    from {{ ref('cur_bookings') }}
    group by coalesce(clinic_id, 'unknown'), event_date
),

-- Up to when those sources have reported that name the clinic: the least of them, of all sources where none does.
sources_of_clinics as (
    select distinct
        'visits' as what,
        clinic_id,
        source_system,
        'clinic_visits' as feed
    from visits
    union all
    select distinct
        'bookings' as what,
        coalesce(clinic_id, 'unknown') as clinic_id,
        source_system,
        case booking_kind when 'visit' then 'clinic_visits' else 'appointments' end as feed
    from {{ ref('cur_bookings') }}
),

reports as (
    select
        sources_of_clinics.what,
        sources_of_clinics.clinic_id,
        min(source_reports.reported_until) as reported_until
    from sources_of_clinics
    inner join {{ ref('cur_record_reports') }} as source_reports
        on
            sources_of_clinics.feed = source_reports.feed
            and sources_of_clinics.source_system = source_reports.source_system
    group by sources_of_clinics.what, sources_of_clinics.clinic_id
),

reports_of_all as (
    select
        min(case when feed = 'clinic_visits' then reported_until end) as visits_until,
        coalesce(
            min(case when feed = 'appointments' then reported_until end),
            min(case when feed = 'clinic_visits' then reported_until end)
        ) as bookings_until
    from {{ ref('cur_record_reports') }}
),

collar_days as (
    select
        clinic_id,
        event_date,
        active_collar_count,
        silent_collar_count,
        expected_events,
        heard_event_count
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
        from booking_days
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
        dates.event_date,
        coalesce(
            {{ utc_ts(midnight_after('dates.event_date'), timezone_of('zones')) }}
            <= coalesce(visit_reports.reported_until, reports_of_all.visits_until), false
        ) as has_visits,
        coalesce(
            {{ utc_ts(midnight_after('dates.event_date'), timezone_of('zones')) }}
            <= coalesce(booking_reports.reported_until, reports_of_all.bookings_until), false
        ) as has_bookings
    from known_days
    cross join reports_of_all
    left join reports as visit_reports
        on known_days.clinic_id = visit_reports.clinic_id and visit_reports.what = 'visits'
    left join reports as booking_reports
        on known_days.clinic_id = booking_reports.clinic_id and booking_reports.what = 'bookings'
    left join {{ ref('cur_clinic_timezones') }} as zones on known_days.clinic_id = zones.clinic_id
    inner join {{ ref('anl_dates') }} as dates
        on
            known_days.first_day <= dates.event_date
            and dates.event_date <= coalesce(
                {{ local_date('cast(' ~ present ~ ' as timestamp)', timezone_of('zones')) }}, known_days.last_day
            )
),

daily as (
    select
        clinic_dates.clinic_id,
        clinic_dates.event_date,
        clinic_dates.has_bookings,
        {%- for name in visit_counts %}
        case when clinic_dates.has_visits then coalesce(visit_days.{{ name }}, 0) end as {{ name }},
        {%- endfor %}
        case when clinic_dates.has_visits then visit_days.visit_us_sum end as visit_us_sum,
        visit_days.timed_visit_count,
        {%- for name in booking_counts %}
        case when clinic_dates.has_bookings then coalesce(booking_days.{{ name }}, 0) end as {{ name }},
        {%- endfor %}
        collar_days.active_collar_count,
        collar_days.silent_collar_count,
        collar_days.expected_events,
        collar_days.heard_event_count,
        coalesce(overdue_changes.overdue_change, 0) as overdue_change
    from clinic_dates
    left join visit_days
        on clinic_dates.clinic_id = visit_days.clinic_id and clinic_dates.event_date = visit_days.event_date
    left join booking_days
        on clinic_dates.clinic_id = booking_days.clinic_id and clinic_dates.event_date = booking_days.event_date
    left join collar_days
        on clinic_dates.clinic_id = collar_days.clinic_id and clinic_dates.event_date = collar_days.event_date
    left join overdue_changes
        on clinic_dates.clinic_id = overdue_changes.clinic_id and clinic_dates.event_date = overdue_changes.event_date
),

running as (
    select
        clinic_id,
        event_date,
        {%- for name in visit_counts + booking_counts.keys() | list %}
        {{ name }},
        {%- endfor %}
        visit_us_sum,
        timed_visit_count,
        active_collar_count,
        silent_collar_count,
        expected_events,
        heard_event_count,
        case when has_bookings then sum(no_show_count) over ({{ last_90d }}) end as no_show_count_90d,
        case when has_bookings then sum(finished_booking_count) over ({{ last_90d }}) end as finished_booking_count_90d,
        sum(overdue_change) over (
            partition by clinic_id order by event_date rows between unbounded preceding and current row
        ) as overdue_vaccination_count
    from daily
)

select
    clinic_id,
    event_date,
    {%- for name in visit_counts %}
    cast({{ name }} as bigint) as {{ name }},
    {%- endfor %}
    {{ ratio_of('visit_us_sum', 'timed_visit_count * 60000000') }} as visit_minutes_mean,
    {%- for name in booking_counts %}
    cast({{ name }} as bigint) as {{ name }},
    {%- endfor %}
    {{ ratio_of('no_show_count', 'finished_booking_count') }} as no_show_ratio,
    cast(finished_booking_count_90d as bigint) as finished_booking_count_90d,
    cast(no_show_count_90d as bigint) as no_show_count_90d,
    {{ ratio_of('no_show_count_90d', 'finished_booking_count_90d') }} as no_show_ratio_90d,
    cast(overdue_vaccination_count as bigint) as overdue_vaccination_count,
    active_collar_count,
    silent_collar_count,
    {{ ratio_of('heard_event_count', 'expected_events') }} as heartbeat_ratio
from running
