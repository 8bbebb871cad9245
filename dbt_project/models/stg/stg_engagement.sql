{{ staged_records('engagement') }}
