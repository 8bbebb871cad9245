{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'device_id'],
    tags=['daily'],
    meta={'daily': true}
) }}
{% set days = model_days() %}

-- The payload stays in raw: the record's key leads back to it.
select
    device_id,
    event_id,
    event_ts,
    cast(event_ts as date) as event_date,
    accel_x_g,
    accel_y_g,
    accel_z_g,
    step_count,
    lick_count,
    gps_lat,
    gps_long,
    battery_pct,
    pulse_bpm,
    body_temp_c,
    respiration_rpm,
    weight_kg,
    nullif(trim(firmware_version), '') as firmware_version,
    nullif(sensor_id, '') as sensor_id,
    quality_score,
    nullif(capture_clinic_id, '') as capture_clinic_id,
    schema_version,
    arrival_ts,
    ingested_at,
    source_system,
    stream_id,
    kafka_partition,
    kafka_offset
from {{ source('raw', 'telemetry_events') }} as records
where
    {{ ts_in_days('event_ts', days) }}
    and not exists (
        select 1
        from {{ ref('stg_telemetry_duplicates') }} as repeats
        where
            {{ date_in_days('repeats.event_date', days) }}
            and repeats.kafka_offset = records.kafka_offset
            and repeats.kafka_partition = records.kafka_partition
            and repeats.stream_id = records.stream_id
    )
