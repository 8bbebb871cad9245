{# Wellness alerts: when an hour is judged and what a rule looks back on. The
   thresholds are in seeds/anl/anl_alert_rules.csv. #}

{# Minutes after an hour's end within which its events are in time. The hour is
   judged then, once; what arrives later does not change it. #}
{% macro grace_minutes() -%}{{ return(15) }}{%- endmacro %}

{# The moment at which the hour that starts at `hour_ts` is judged. #}
{% macro judged_at(hour_ts) -%}
    {{ return(minutes_after(hours_after(hour_ts, 1), grace_minutes())) }}
{%- endmacro %}

{# Hours of the rules that compare a pet with itself: window, and baseline before it. #}
{% macro window_hours() -%}{{ return(24) }}{%- endmacro %}
{% macro baseline_hours() -%}{{ return(168) }}{%- endmacro %}

{# Days after the last signal on which an alert may expire. A rule that compares windows waits longer than its
   window, so that a gap that leaves its windows too thin for a day does not end an episode. #}
{% macro expiry_days() -%}{{ return(2) }}{%- endmacro %}

{# Days before a judged one in which a run of hours and the last signal may lie. #}
{% macro signal_lookback_days() -%}{{ return(expiry_days() + 1) }}{%- endmacro %}

{# Days before a judged one on which its windows may reach. #}
{% macro window_lookback_days() -%}{{ return(signal_lookback_days() + 8) }}{%- endmacro %}

{# A rule's name, where a branch of a model is that rule's. Rules and branches have to have each other:
   petwellness_orchestration/defs/warehouse/declarations.py looks for this call. #}
{% macro judges(rule) -%}{{ return("'" ~ rule ~ "'") }}{%- endmacro %}

{# The data's own present, the watermark, is var as_of_ts; a build by hand without it takes the newest arrival in stg. #}
{% macro data_present() -%}
    {%- if var('as_of_ts') is none -%}
        (select max(arrivals.arrival_ts) from {{ ref('stg_telemetry_events') }} as arrivals)
    {%- else -%}timestamp '{{ var("as_of_ts") }}'
    {%- endif -%}
{%- endmacro %}

{# The rules with the span in which each version holds, as a select; is_low_bad
   says that low values are the bad ones. #}
{% macro alert_rules() -%}
    select
        rule,
        rule_version,
        unit,
        threshold,
        clear_threshold,
        clear_threshold > threshold as is_low_bad,
        window_hours,
        min_window_minutes,
        min_baseline_minutes,
        raise_after_hours,
        clear_after_hours,
        expire_after_hours,
        severity,
        valid_from,
        lead(valid_from) over (partition by rule order by valid_from) as valid_to
    from {{ ref('anl_alert_rules') }}
{%- endmacro %}
