{{ history_model('devices') }}
