{# What a device measured, for the comparison of content. Not its payload and not
   event_ts: a frame relayed twice carries the gateway's data and, for devices
   without a clock, the gateway's time. All 6,410 repeated frames of the real
   trackers differ in both and in no measure. #}

{% macro telemetry_content_md5() -%}
    {{ typed_md5([
        ['accel_x_g', 'number'],
        ['accel_y_g', 'number'],
        ['accel_z_g', 'number'],
        ['step_count', 'number'],
        ['lick_count', 'number'],
        ['gps_lat', 'number'],
        ['gps_long', 'number'],
        ['battery_pct', 'number'],
        ['pulse_bpm', 'number'],
        ['body_temp_c', 'number'],
        ['respiration_rpm', 'number'],
        ['weight_kg', 'number'],
        ['firmware_version', 'text'],
        ['sensor_id', 'text'],
        ['quality_score', 'number'],
        ['capture_clinic_id', 'text'],
        ['schema_version', 'number'],
    ]) }}
{%- endmacro %}

{# Predicate: a version of a device says how many events to expect of it, so that its silence means something. #}
{% macro has_regular_cadence(alias='') -%}
    {%- set prefix = alias ~ '.' if alias else '' -%}
    coalesce({{ prefix }}status = 'active' and {{ prefix }}expected_events_per_day > 0, false)
{%- endmacro %}
