{{ scd2_history('clinic_visits', ref('stg_clinic_visits'), source('raw', 'extracts')) }}
