{{ scd2_history('devices', ref('stg_devices'), source('raw', 'extracts')) }}
