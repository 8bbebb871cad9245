{{ current_state_model('appointments') }}
