{% set first_day = "date '" ~ var('calendar_first') ~ "'" %}
{% set last_day = "date '" ~ var('calendar_last') ~ "'" %}
{% set month_names = [
    'January', 'February', 'March', 'April', 'May', 'June',
    'July', 'August', 'September', 'October', 'November', 'December',
] %}
{% set weekday_names = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'] %}

with {{ day_numbers() }},

held_days as (
    select event_date from {{ ref('stg_telemetry_days') }}
    union all
    select event_date from {{ ref('anl_owner_engagement') }}
),

-- An alert of the last evening may be raised on the day after.
bounds as (
    select
        least({{ first_day }}, coalesce(min(event_date), {{ first_day }})) as first_day,
        greatest(
            {{ last_day }}, coalesce(cast({{ midnight_after('max(event_date)') }} as date), {{ last_day }})
        ) as last_day
    from held_days
),

calendar as (
    select cast({{ midnight_after('bounds.first_day', 'numbers.number') }} as date) as event_date
    from numbers
    cross join bounds
    where numbers.number <= {{ days_between('bounds.first_day', 'bounds.last_day') }}
),

-- Days since a Monday long ago, so that no setting of the session says where a week begins.
weekdays as (
    select
        event_date,
        cast(1 + mod({{ days_between("date '0001-01-01'", 'event_date') }}, 7) as integer) as iso_weekday
    from calendar
),

-- The week of a date is that of its Thursday, and its year's first week holds January 4th.
thursdays as (
    select
        event_date,
        iso_weekday,
        cast({{ midnight_after('event_date', '(4 - iso_weekday)') }} as date) as thursday
    from weekdays
)

select
    event_date,
    cast(extract(year from event_date) as integer) as year,  -- noqa: RF04
    cast(extract(quarter from event_date) as integer) as quarter,  -- noqa: RF04
    cast(extract(month from event_date) as integer) as month,  -- noqa: RF04
    cast(extract(day from event_date) as integer) as day_of_month,
    case extract(month from event_date)
        {%- for month_name in month_names %}
        when {{ loop.index }} then '{{ month_name }}'
        {%- endfor %}
    end as month_name,
    cast(floor((extract(doy from thursday) + 6) / 7) as integer) as iso_week,
    iso_weekday,
    case iso_weekday
        {%- for weekday_name in weekday_names %}
        when {{ loop.index }} then '{{ weekday_name }}'
        {%- endfor %}
    end as weekday_name,
    iso_weekday >= 6 as is_weekend
from thursdays
