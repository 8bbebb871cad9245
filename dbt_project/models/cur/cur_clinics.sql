{{ history_model('clinics') }}
