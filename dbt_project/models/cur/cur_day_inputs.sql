with days as (
    select event_date
    from {{ ref('stg_telemetry_days') }}
),

fingerprints as (
    {{ overlapping_fingerprint('intervals', ref('cur_device_pet_intervals'), [
        ['device_id', 'text'],
        ['pet_id', 'text'],
        ['valid_from', 'timestamp'],
        ['valid_to', 'timestamp'],
        ['pet_resolution', 'text'],
    ]) | indent(4) }}
    union all
    {{ overlapping_fingerprint('devices', ref('cur_devices'), [
        ['device_id', 'text'],
        ['valid_from', 'timestamp'],
        ['valid_to', 'timestamp'],
        ['record_md5', 'text'],
        ['is_deleted', 'boolean'],
    ]) | indent(4) }}
    union all
    {{ overlapping_fingerprint('assignment_cuts', ref('cur_assignment_cuts'), [
        ['device_id', 'text'],
        ['valid_from', 'timestamp'],
        ['valid_to', 'timestamp'],
    ]) | indent(4) }}
    union all
    {{ known_fingerprint('known_records', ['device_assignments', 'pets', 'clinic_visits']) | indent(4) }}
)

select
    event_date,
    input_kind,
    cast(hash_sum as varchar) as fingerprint
from fingerprints
