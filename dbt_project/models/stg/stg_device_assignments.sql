{{ staged_records('device_assignments') }}
