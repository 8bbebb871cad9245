{{ staged_records('visit_documents') }}
