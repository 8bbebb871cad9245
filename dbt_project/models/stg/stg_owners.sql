{{ staged_records('owners') }}
