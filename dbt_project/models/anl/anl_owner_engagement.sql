{# What is dated after the data's present has not happened. #}
{% set has_happened = "moments.moment_ts <= timestamp '" ~ var('as_of_ts') ~ "'" if var('as_of_ts') else 'true' %}
{% set last_30d = 'partition by owner_id order by day_number range between 29 preceding and current row' %}
{% set counts = {
    'session_count': "action = 'session'",
    'push_sent_count': "channel = 'push' and action = 'sent'",
    'push_opened_count': "channel = 'push' and action = 'opened'",
    'push_clicked_count': "channel = 'push' and action = 'clicked'",
    'email_sent_count': "channel = 'email' and action = 'sent'",
    'email_opened_count': "channel = 'email' and action = 'opened'",
    'email_clicked_count': "channel = 'email' and action = 'clicked'",
    'sms_sent_count': "channel = 'sms' and action = 'sent'",
    'sms_clicked_count': "channel = 'sms' and action = 'clicked'",
    'sent_count': "action = 'sent'",
    'opened_count': "action = 'opened'",
    'clicked_count': "action = 'clicked'",
    'call_count': "action = 'called'",
    'booking_count': "action = 'booked'",
    'appointment_kept_count': "action = 'attended'",
    'appointment_no_show_count': "action = 'no_show'",
    'appointment_cancelled_count': "channel = 'clinic' and " ~ is_cancelled_booking('action'),
} %}
{% set trailing = [
    'session_count', 'sent_count', 'opened_count', 'clicked_count', 'call_count', 'booking_count',
    'appointment_kept_count', 'appointment_no_show_count', 'appointment_cancelled_count',
] %}

with {{ consents() }},

-- Before its first version a pet's owner is taken to be as in it.
pet_owners as (
    select
        pet_id,
        owner_id,
        valid_to,
        case
            when lag(valid_from) over (partition by pet_id order by valid_from) is null
                then timestamp '0001-01-01 00:00:00'
            else valid_from
        end as held_from
    from {{ ref('cur_pets') }}
),

moments as (
    select
        owner_id,
        occurred_at as moment_ts,
        {{ home_timezone() }} as timezone,
        channel,
        action,
        duration_s
    from {{ ref('cur_engagement') }}
    union all
    select
        pet_owners.owner_id,
        bookings.scheduled_ts as moment_ts,
        {{ timezone_of('zones') }} as timezone,
        'clinic' as channel,
        bookings.outcome as action,  -- noqa: RF04
        cast(null as integer) as duration_s
    from {{ ref('cur_bookings') }} as bookings
    inner join pet_owners
        on
            bookings.pet_id = pet_owners.pet_id
            and bookings.scheduled_ts >= pet_owners.held_from
            and (pet_owners.valid_to is null or pet_owners.valid_to > bookings.scheduled_ts)
    left join {{ ref('cur_clinic_timezones') }} as zones on bookings.clinic_id = zones.clinic_id
    where
        ({{ is_finished_booking('bookings.outcome') }} or {{ is_cancelled_booking('bookings.outcome') }})
        and pet_owners.owner_id is not null
),

-- Who refuses analytics now is left out whole; who refused it for a while, for that while.
allowed as (
    select
        moments.owner_id,
        {{ local_date('moments.moment_ts', 'moments.timezone') }} as event_date,
        moments.channel,
        moments.action,
        moments.duration_s
    from moments
    left join consents as consents_then
        on
            moments.owner_id = consents_then.owner_id
            and consents_then.flag = 'analytics'
            and moments.moment_ts >= consents_then.held_from
            and (consents_then.held_to is null or consents_then.held_to > moments.moment_ts)
    left join consents as consents_now
        on
            moments.owner_id = consents_now.owner_id
            and consents_now.flag = 'analytics'
            and consents_now.held_to is null
    where
        {{ has_happened }}
        and {{ allows('analytics', 'consents_then.is_allowed') }}
        and {{ allows('analytics', 'consents_now.is_allowed') }}
),

days as (
    select
        owner_id,
        event_date,
        {{ days_between("date '2000-01-01'", 'event_date') }} as day_number,
        {%- for name, condition in counts.items() %}
        sum(case when {{ condition }} then 1 else 0 end) as {{ name }},
        {%- endfor %}
        sum(case when action = 'session' then coalesce(duration_s, 0) else 0 end) as session_s,
        max(case when action = 'session' then 1 else 0 end) as is_active_day
    from allowed
    group by owner_id, event_date
),

windowed as (
    select
        owner_id,
        event_date,
        {{ utc_ts(midnight_after('event_date'), home_timezone()) }} as end_ts,
        session_s,
        {%- for name in counts %}
        {{ name }},
        {%- endfor %}
        {%- for name in trailing %}
        sum({{ name }}) over ({{ last_30d }}) as {{ name }}_30d,
        {%- endfor %}
        sum(session_s) over ({{ last_30d }}) as session_s_30d,
        sum(is_active_day) over ({{ last_30d }}) as active_day_count_30d,
        sum(push_sent_count + email_sent_count) over ({{ last_30d }}) as openable_count_30d
    from days
)

select
    windowed.owner_id,
    windowed.event_date,
    {%- for name in counts %}
    cast(windowed.{{ name }} as integer) as {{ name }},
    {%- endfor %}
    cast(windowed.session_s as bigint) as session_s,
    {{ ratio_of('windowed.session_s', 60) }} as session_minutes,
    {%- for name in trailing %}
    cast(windowed.{{ name }}_30d as integer) as {{ name }}_30d,
    {%- endfor %}
    cast(windowed.session_s_30d as bigint) as session_s_30d,
    cast(windowed.active_day_count_30d as integer) as active_day_count_30d,
    {{ ratio_of('windowed.opened_count_30d', 'windowed.openable_count_30d') }} as open_ratio_30d,
    {%- for channel in message_channels() %}
    coalesce(not owners.is_deleted, false)
    and {{ allows(channel, 'consents_' ~ channel ~ '.is_allowed') }} as is_reachable_{{ channel }}
    {%- if not loop.last %},{% endif %}
    {%- endfor %}
from windowed
-- The owner as at the day's last moment.
left join {{ ref('cur_owners') }} as owners
    on
        windowed.owner_id = owners.owner_id
        and windowed.end_ts > owners.valid_from
        and (owners.valid_to is null or owners.valid_to >= windowed.end_ts)
{%- for channel in message_channels() %}
left join consents as consents_{{ channel }}
    on
        windowed.owner_id = consents_{{ channel }}.owner_id
        and consents_{{ channel }}.flag = '{{ channel }}'
        and windowed.end_ts > consents_{{ channel }}.held_from
        and (consents_{{ channel }}.held_to is null or consents_{{ channel }}.held_to >= windowed.end_ts)
{%- endfor %}
