{{ scd2_history('owners', ref('stg_owners'), source('raw', 'extracts')) }}
