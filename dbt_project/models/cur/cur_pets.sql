{{ history_model('pets') }}
