{{ config(meta={'dagster': {'ref': {'name': 'anl_clinics'}}}) }}
-- Every key of a fact is in its dimension, so that no row is lost in an inner join: where there is none it is
-- 'unknown' and never null. Facts kept by day are looked at on the run's days. Returns what is missing.
{% set days = tested_days() %}
{% set keys = [
    ['anl_telemetry_events', 'pet_id', 'anl_pets', 'pet_id', 'event_date'],
    ['anl_telemetry_events', 'owner_id', 'anl_owners', 'owner_id', 'event_date'],
    ['anl_telemetry_events', 'clinic_id', 'anl_clinics', 'clinic_id', 'event_date'],
    ['anl_telemetry_events', 'event_date', 'anl_dates', 'event_date', 'event_date'],
    ['anl_pet_daily_summary', 'pet_id', 'anl_pets', 'pet_id', 'event_date'],
    ['anl_pet_daily_summary', 'owner_id', 'anl_owners', 'owner_id', 'event_date'],
    ['anl_pet_daily_summary', 'clinic_id', 'anl_clinics', 'clinic_id', 'event_date'],
    ['anl_pet_daily_summary', 'event_date', 'anl_dates', 'event_date', 'event_date'],
    ['anl_device_daily_heartbeat', 'clinic_id', 'anl_clinics', 'clinic_id', 'event_date'],
    ['anl_clinic_daily_heartbeat', 'clinic_id', 'anl_clinics', 'clinic_id', 'event_date'],
    ['anl_clinic_daily_collars', 'clinic_id', 'anl_clinics', 'clinic_id', 'event_date'],
    ['anl_clinic_daily_collars', 'event_date', 'anl_dates', 'event_date', 'event_date'],
    ['anl_clinic_kpis', 'clinic_id', 'anl_clinics', 'clinic_id', none],
    ['anl_clinic_kpis', 'event_date', 'anl_dates', 'event_date', none],
    ['anl_owner_engagement', 'owner_id', 'anl_owners', 'owner_id', none],
    ['anl_owner_engagement', 'event_date', 'anl_dates', 'event_date', none],
    ['anl_wellness_alerts', 'pet_id', 'anl_pets', 'pet_id', none],
    ['anl_wellness_alerts', 'owner_id', 'anl_owners', 'owner_id', none],
    ['anl_wellness_alerts', 'clinic_id', 'anl_clinics', 'clinic_id', none],
    ['anl_wellness_alerts', 'raised_date', 'anl_dates', 'event_date', none],
    ['anl_documents_to_review', 'pet_id', 'anl_pets', 'pet_id', none],
    ['anl_documents_to_review', 'clinic_id', 'anl_clinics', 'clinic_id', none],
] %}
{% for fact, key, dimension, id, day in keys %}
{% if not loop.first %}union all{% endif %}
select
    '{{ fact }}.{{ key }}' as fact_key,
    cast(facts.{{ key }} as varchar) as missing_value
from {{ ref(fact) }} as facts
where
    {{ date_in_days('facts.' ~ day, days) if day else 'true' }}
    and (
        facts.{{ key }} is null
        or facts.{{ key }} not in (select known.{{ id }} from {{ ref(dimension) }} as known)
    )
{% endfor %}
