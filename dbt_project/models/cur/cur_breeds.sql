{{ current_state_model('breeds') }}
