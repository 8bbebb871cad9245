{{ current_state_model('engagement') }}
