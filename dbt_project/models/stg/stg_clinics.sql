{{ staged_records('clinics') }}
