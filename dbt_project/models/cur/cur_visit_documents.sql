{{ current_state_model('visit_documents') }}
