{{ config(materialized='incremental', incremental_strategy='append', on_schema_change='fail') }}

-- No rows of its own: every daily model with record inputs writes here, in its
-- own transaction, which inputs it was built from (macros/days/days.sql).
select
    cast(null as varchar) as model_name,
    cast(null as varchar) as input_kind,
    cast(null as date) as event_date,
    cast(null as varchar) as fingerprint
where false
