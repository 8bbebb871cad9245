{# What became of a booking, and which count in a no-show rate: the one rule of
   figures, analyses and features. Bookings are appointments; of a source
   that has no appointments, its visits that were booked. #}

{# Outcome of an appointment:
   attended, no_show          it was kept, or nobody came
   late_cancellation          cancelled later than var late_cancellation_hours before its time
   cancelled                  cancelled in time
   cancelled_by_clinic, rescheduled
   open                       its time is after `reported_until`, the last report of its source
   unresolved                 its time is past, and its source still says scheduled
   unknown                    its time is past, and its source does not say
   `changed_at` is when its status became what it is. #}
{% macro booking_outcome(status, scheduled_ts, changed_at, reported_until) -%}
    case
        when {{ status }} = 'completed' then 'attended'
        when {{ status }} in ('no_show', 'cancelled_by_clinic', 'rescheduled') then {{ status }}
        when {{ status }} = 'cancelled' and {{ changed_at }} > {{ hours_after(scheduled_ts, -var('late_cancellation_hours')) }}
            then 'late_cancellation'
        when {{ status }} = 'cancelled' then 'cancelled'
        when {{ scheduled_ts }} > {{ reported_until }} then 'open'
        when {{ status }} = 'scheduled' then 'unresolved'
        else 'unknown'
    end
{%- endmacro %}

{# The same of a visit; null of one that nobody booked. Whether a visit that took place was booked may be unknown. #}
{% macro visit_booking_outcome(status, is_unplanned, visit_ts, changed_at, reported_until) -%}
    case
        when {{ is_completed_visit(status) }} and {{ is_unplanned }} then null
        when {{ is_completed_visit(status) }} and {{ is_unplanned }} is null then 'unknown'
        else {{ booking_outcome(visit_status(status), visit_ts, changed_at, reported_until) | indent(8) }}
    end
{%- endmacro %}

{# Predicate: a booking that a no-show rate is a share of, because it still stood when it was too late to give its
   time to another. #}
{% macro is_finished_booking(outcome='outcome') -%}
    {{ outcome }} in ('attended', 'no_show', 'late_cancellation')
{%- endmacro %}

{# Predicate: a booking that was given up or moved by either side. #}
{% macro is_cancelled_booking(outcome='outcome') -%}
    {{ outcome }} in ('cancelled', 'late_cancellation', 'cancelled_by_clinic', 'rescheduled')
{%- endmacro %}
