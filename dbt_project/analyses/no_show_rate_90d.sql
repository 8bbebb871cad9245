-- Share of each clinic's finished bookings of the last 90 days to which nobody came (macros/bookings.sql), and beside
-- it those of which nobody says what became of them. One row per clinic with a booking due in them; the days are the
-- clinic's. Bookings as they stand now, up to the last report of their source.
{% set present = "timestamp '" ~ var('as_of_ts') ~ "'" %}

select
    bookings.clinic_id,
    cast(sum(case when bookings.outcome = 'no_show' then 1 else 0 end) as bigint) as no_shows,
    cast(sum(case when bookings.is_finished then 1 else 0 end) as bigint) as finished,
    {{ ratio_of(
        "sum(case when bookings.outcome = 'no_show' then 1 else 0 end)",
        'sum(case when bookings.is_finished then 1 else 0 end)'
    ) }} as no_show_rate,
    cast(sum(case when bookings.outcome = 'unresolved' then 1 else 0 end) as bigint) as unresolved_bookings,
    cast(sum(case when bookings.outcome = 'unknown' then 1 else 0 end) as bigint) as unknown_bookings
from {{ ref('cur_bookings') }} as bookings
left join {{ ref('cur_clinic_timezones') }} as zones on bookings.clinic_id = zones.clinic_id
where
    bookings.outcome <> 'open'
    and bookings.scheduled_ts < {{ present }}
    and {{ days_between('bookings.event_date', local_date(present, timezone_of('zones'))) }} <= 90
group by bookings.clinic_id
order by bookings.clinic_id
