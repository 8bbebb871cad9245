with days as (
    select
        event_date,
        cast(event_date as timestamp) as start_ts,
        {{ midnight_after('event_date') }} as end_ts
    from (select distinct event_date from {{ ref('stg_telemetry_events') }}) as event_dates
),

rules as (
    {{ alert_rules() }}
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
    union all
    {{ known_fingerprint('known_collars', ['device_assignments', 'devices', 'pets']) | indent(4) }}
    union all
    {{ overlapping_fingerprint('alert_rules', 'rules', [
        ['rule', 'text'],
        ['rule_version', 'text'],
        ['valid_from', 'timestamp'],
        ['severity', 'text'],
        ['unit', 'text'],
        ['threshold', 'number'],
        ['clear_threshold', 'number'],
        ['min_window_minutes', 'number'],
        ['min_baseline_minutes', 'number'],
        ['raise_after_hours', 'number'],
        ['clear_after_hours', 'number'],
        ['expire_after_hours', 'number'],
    ]) | indent(4) }}
)

select
    event_date,
    input_kind,
    cast(hash_sum as varchar) as fingerprint
from fingerprints
