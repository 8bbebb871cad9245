{{ history_model('clinic_visits') }}
