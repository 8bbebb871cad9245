{# Whose clock a day or a night follows: the clinic's, and where there is no
   clinic, or its record names no zone that is known, the home zone. Telemetry's
   event_date is not such a day: it is a UTC date everywhere. #}

{# The home zone as a literal. The platform says it (PETWELLNESS_TIMEZONE); a dbt that was told nothing takes UTC. #}
{% macro home_timezone() -%}
    {{ return(text_literal(env_var('PETWELLNESS_TIMEZONE', 'UTC'))) }}
{%- endmacro %}

{# The zone of a row that was left joined to cur_clinic_timezones as `alias`. #}
{% macro timezone_of(alias) -%}
    {{ return("coalesce(" ~ alias ~ ".timezone, " ~ home_timezone() ~ ")") }}
{%- endmacro %}

{# The date on the clocks of `zone` at a UTC time. #}
{% macro local_date(expression, zone) -%}
    {{ return("cast(" ~ local_ts(expression, zone) ~ " as date)") }}
{%- endmacro %}

{# Query: when a collar's clock was not the home zone's, by the clinic of whoever wore it: device_id, timezone,
   [valid_from, valid_to). #}
{% macro device_timezones() -%}
    select
        contexts.device_id,
        zones.timezone,
        contexts.valid_from,
        contexts.valid_to
    from {{ ref('cur_device_contexts') }} as contexts
    inner join {{ ref('cur_clinic_timezones') }} as zones on contexts.clinic_id = zones.clinic_id
    where zones.timezone <> {{ home_timezone() }}
{%- endmacro %}
