{{ history_model('owners') }}
