{{ scd2_history('clinics', ref('stg_clinics'), source('raw', 'extracts')) }}
