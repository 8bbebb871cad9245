{# The telemetry contract's typed columns, for the comparison of content. #}

{% macro telemetry_content_md5() -%}
    {{ typed_md5([
        ['event_ts', 'timestamp'],
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
        ['payload', 'json'],
    ]) }}
{%- endmacro %}
