{{ scd2_history('device_assignments', ref('stg_device_assignments'), source('raw', 'extracts')) }}
