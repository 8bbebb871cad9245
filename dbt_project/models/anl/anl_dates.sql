{% set first_day = "date '" ~ var('calendar_first') ~ "'" %}
{% set month_names = [
    'January', 'February', 'March', 'April', 'May', 'June',
    'July', 'August', 'September', 'October', 'November', 'December',
] %}
{% set weekday_names = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'] %}

-- Days counted by their digits: no engine's own series function is needed.
with digits as (
    {%- for digit in range(10) %}
    select {{ digit }} as digit
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

numbers as (
    select
        ones.digit + 10 * tens.digit + 100 * hundreds.digit
        + 1000 * thousands.digit + 10000 * ten_thousands.digit as number
    from digits as ones
    cross join digits as tens
    cross join digits as hundreds
    cross join digits as thousands
    cross join digits as ten_thousands
),

calendar as (
    select cast({{ midnight_after(first_day, 'number') }} as date) as date_day
    from numbers
    where number <= {{ days_between(first_day, "date '" ~ var('calendar_last') ~ "'") }}
),

-- Days since a Monday long ago, so that no setting of the session says where a week begins.
weekdays as (
    select
        date_day,
        cast(1 + mod({{ days_between("date '0001-01-01'", 'date_day') }}, 7) as integer) as iso_weekday
    from calendar
),

-- The week of a date is that of its Thursday, and its year's first week holds January 4th.
thursdays as (
    select
        date_day,
        iso_weekday,
        cast({{ midnight_after('date_day', '(4 - iso_weekday)') }} as date) as thursday
    from weekdays
)

select
    date_day,
    cast(extract(year from date_day) as integer) as year,  -- noqa: RF04
    cast(extract(quarter from date_day) as integer) as quarter,  -- noqa: RF04
    cast(extract(month from date_day) as integer) as month,  -- noqa: RF04
    cast(extract(day from date_day) as integer) as day_of_month,
    case extract(month from date_day)
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
