{{ staged_records('devices') }}
