{{ staged_records('pets') }}
