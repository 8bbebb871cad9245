{{ config(cluster_by=['clinic_id', 'cast(visit_ts as date)']) }}
{{ history_model('clinic_visits') }}
