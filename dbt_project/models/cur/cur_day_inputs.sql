with days as (
    select event_date
    from {{ ref('stg_telemetry_days') }}
),

{{ day_numbers() }},

-- Events are expected on days without any, too, from the first with telemetry to the data's present.
first_days as (
    select min(event_date) as first_day
    from days
),

last_days as (
    select cast({{ microsecond_before('max(valid_to)') }} as date) as last_day
    from {{ ref('cur_device_expectations') }}
),

expected_days as (
    select event_date
    from days
    union
    select cast({{ midnight_after('first_days.first_day', 'numbers.number') }} as date) as event_date
    from numbers
    cross join first_days
    cross join last_days
    where numbers.number <= {{ days_between('first_days.first_day', 'last_days.last_day') }}
),

-- What is read of a pet matters from the day on which it first wore a collar.
worn_pets as (
    select
        pet_id,
        min(valid_from) as first_worn_at
    from {{ ref('cur_device_pet_intervals') }}
    where pet_id is not null
    group by pet_id
),

worn_pet_versions as (
    select
        pets.pet_id,
        pets.name,
        pets.species,
        pets.breed,
        pets.microchip_id,
        greatest(pets.valid_from, worn_pets.first_worn_at) as valid_from,
        pets.valid_to
    from {{ ref('cur_pets') }} as pets
    inner join worn_pets on pets.pet_id = worn_pets.pet_id
    where pets.valid_to is null or pets.valid_to > worn_pets.first_worn_at
),

worn_pet_contexts as (
    select
        contexts.pet_id,
        contexts.owner_id,
        contexts.clinic_id,
        contexts.last_visit_ts,
        contexts.next_vaccine_due,
        greatest(contexts.valid_from, worn_pets.first_worn_at) as valid_from,
        contexts.valid_to
    from {{ ref('cur_pet_contexts') }} as contexts
    inner join worn_pets on contexts.pet_id = worn_pets.pet_id
    where contexts.valid_to is null or contexts.valid_to > worn_pets.first_worn_at
),

-- To a reader a collar without a pet is the same whether a span says so or none does.
worn_contexts as (
    select
        device_id,
        pet_id,
        pet_resolution,
        owner_id,
        clinic_id,
        valid_from,
        valid_to
    from {{ ref('cur_device_contexts') }}
    where pet_resolution <> 'unassigned'
),

cuts as (
    select
        device_id,
        valid_from as cut_ts,
        valid_from,
        valid_to
    from {{ ref('cur_assignment_cuts') }}
),

-- The home zone is part of both, of every day.
device_timezones as (
    {{ device_timezones() | indent(4) }}
    union all
    select
        '' as device_id,
        {{ home_timezone() }} as timezone,
        timestamp '0001-01-01 00:00:00' as valid_from,
        cast(null as timestamp) as valid_to
),

clinic_timezones as (
    select
        clinic_id,
        timezone,
        timestamp '0001-01-01 00:00:00' as valid_from,
        cast(null as timestamp) as valid_to
    from {{ ref('cur_clinic_timezones') }}
    where timezone <> {{ home_timezone() }}
    union all
    select
        '' as clinic_id,
        {{ home_timezone() }} as timezone,
        timestamp '0001-01-01 00:00:00' as valid_from,
        cast(null as timestamp) as valid_to
),

rules as (
    {{ alert_rules() }}
),

fingerprints as (
    {{ clipped_fingerprint('intervals', ref('cur_device_pet_intervals'), [
        ['device_id', 'text'],
        ['pet_id', 'text'],
        ['pet_resolution', 'text'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('expectations', ref('cur_device_expectations'), [
        ['device_id', 'text'],
        ['clinic_id', 'text'],
        ['expected_events_per_day', 'number'],
    ], 'expected_days') | indent(4) }}
    union all
    {{ clipped_fingerprint('refusals', ref('cur_device_refusals'), [
        ['device_id', 'text'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('device_contexts', 'worn_contexts', [
        ['device_id', 'text'],
        ['pet_id', 'text'],
        ['pet_resolution', 'text'],
        ['owner_id', 'text'],
        ['clinic_id', 'text'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('pets', 'worn_pet_versions', [
        ['pet_id', 'text'],
        ['name', 'text'],
        ['species', 'text'],
        ['breed', 'text'],
        ['microchip_id', 'text'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('pet_contexts', 'worn_pet_contexts', [
        ['pet_id', 'text'],
        ['owner_id', 'text'],
        ['clinic_id', 'text'],
        ['last_visit_ts', 'timestamp'],
        ['next_vaccine_due', 'date'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('assignment_cuts', 'cuts', [
        ['device_id', 'text'],
        ['cut_ts', 'timestamp'],
    ]) | indent(4) }}
    union all
    {{ clipped_fingerprint('device_timezones', 'device_timezones', [
        ['device_id', 'text'],
        ['timezone', 'text'],
    ]) | indent(4) }}
    union all
    {{ overlapping_fingerprint('clinic_timezones', 'clinic_timezones', [
        ['clinic_id', 'text'],
        ['timezone', 'text'],
    ]) | indent(4) }}
    union all
    {{ known_fingerprint(
        'known_records', ['device_assignments', 'pets', 'clinic_visits', 'appointments']
    ) | indent(4) }}
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
