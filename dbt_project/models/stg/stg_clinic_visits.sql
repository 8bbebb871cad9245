{{ staged_records('clinic_visits') }}
