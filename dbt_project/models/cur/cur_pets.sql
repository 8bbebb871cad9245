{{ scd2_history('pets', ref('stg_pets'), source('raw', 'extracts')) }}
