{{ staged_records('appointments') }}
