{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    tags=['daily'],
    meta={'daily': true}
) }}

select distinct
    event_date,
    capture_clinic_id as clinic_id
from {{ ref('stg_telemetry_events') }}
where capture_clinic_id is not null and {{ date_in_days('event_date', model_days()) }}
