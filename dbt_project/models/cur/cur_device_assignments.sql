{{ history_model('device_assignments') }}
