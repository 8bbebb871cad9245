{{ staged_records('breeds') }}
