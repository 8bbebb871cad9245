{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date', 'pet_id'],
    tags=['daily'],
    meta={
        'daily': true,
        'inputs': ['known_records', 'device_timezones', 'clinic_timezones'],
        'window_days': 30,
        'versioned_by': 'ml_feature_catalogue',
    },
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}
{% set days = model_days() %}
{% set features = feature_definitions() %}

with feature_names as (
    {%- for feature in features %}
    select '{{ feature.name }}' as feature_name
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

named as (
    select
        feature_names.feature_name,
        catalogue.feature_version,
        catalogue.window_days,
        catalogue.min_coverage
    from feature_names
    left join {{ ref('ml_feature_catalogue') }} as catalogue
        on feature_names.feature_name = catalogue.feature_name and catalogue.status = 'current'
),

-- One row per pet, day and feature.
measured as (
    select
        measures.event_date,
        measures.end_ts,
        measures.pet_id,
        named.feature_name,
        named.feature_version,
        named.window_days,
        named.min_coverage,
        case named.feature_name
            {%- for feature in features %}
            when '{{ feature.name }}' then {{ feature.value }}
            {%- endfor %}
        end as feature_value,
        case named.feature_name
            {%- for feature in features if feature.coverage %}
            when '{{ feature.name }}' then {{ feature.coverage }}
            {%- endfor %}
        end as coverage
    from {{ ref('ml_pet_day_measures') }} as measures
    cross join named
    where
        {{ date_in_days('measures.event_date', days) }}
        or {{ after_last_day_of_this('measures.event_date', days) }}
)

select
    {{ typed_md5([
        ['pet_id', 'text'], ['feature_name', 'text'], ['end_ts', 'timestamp'], ['feature_version', 'text']
    ]) | indent(4) }} as feature_id,
    pet_id,
    feature_name,
    {{ midnight_after('event_date', '(1 - window_days)') }} as start_ts,
    end_ts,
    event_date,
    case when coverage >= min_coverage or min_coverage is null then feature_value end as value,  -- noqa: RF04
    coverage,
    feature_version,
    'day=' || {{ iso_date('event_date') }} || '/' || feature_version as batch_id,
    end_ts as created_at
from measured
