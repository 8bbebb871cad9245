-- Of visits only those of sources without appointments: the others' visits are those of their appointments.
with bookings as (
    select
        'appointment' as booking_kind,
        appointments.appointment_id as booking_id,
        appointments.source_system,
        appointments.pet_id,
        appointments.clinic_id,
        appointments.scheduled_ts,
        {{ booking_outcome(
            'appointments.status', 'appointments.scheduled_ts', 'appointments.changed_at', 'reports.reported_until'
        ) | indent(8) }} as outcome
    from {{ ref('cur_appointments') }} as appointments
    left join {{ ref('cur_record_reports') }} as reports
        on appointments.source_system = reports.source_system and reports.feed = 'appointments'
    union all
    select
        'visit' as booking_kind,
        visits.visit_id as booking_id,
        visits.source_system,
        visits.pet_id,
        visits.clinic_id,
        visits.visit_ts as scheduled_ts,
        {{ visit_booking_outcome(
            'visits.status', 'visits.is_unplanned', 'visits.visit_ts', 'visits.valid_from', 'reports.reported_until'
        ) | indent(8) }} as outcome
    from {{ ref('cur_clinic_visits') }} as visits
    left join {{ ref('cur_record_reports') }} as reports
        on visits.source_system = reports.source_system and reports.feed = 'clinic_visits'
    where
        visits.is_current
        and not visits.is_deleted
        and visits.source_system not in (
            select known.source_system
            from {{ ref('cur_record_reports') }} as known
            where known.feed = 'appointments'
        )
)

select
    bookings.booking_kind,
    bookings.booking_id,
    bookings.source_system,
    bookings.pet_id,
    bookings.clinic_id,
    bookings.scheduled_ts,
    {{ local_date('bookings.scheduled_ts', timezone_of('zones')) }} as event_date,
    bookings.outcome,
    {{ is_finished_booking('bookings.outcome') }} as is_finished
from bookings
left join {{ ref('cur_clinic_timezones') }} as zones on bookings.clinic_id = zones.clinic_id
-- Nobody booked the others.
where bookings.outcome is not null
