{{ config(meta={'dagster': {'ref': {'name': 'ml_computed_features'}}}) }}
-- Features in the table and in the catalogue are the same set, by name and
-- version; an empty table (no tracked pet) agrees with any catalogue.
with present as (
    select distinct
        feature_name,
        feature_version
    from {{ ref('ml_computed_features') }}
),

differences as (
    select
        coalesce(present.feature_name, catalogue.feature_name) as feature_name,
        present.feature_version as present_version,
        catalogue.feature_version as catalogue_version
    from present
    full outer join {{ ref('ml_feature_catalogue') }} as catalogue
        on present.feature_name = catalogue.feature_name and present.feature_version = catalogue.feature_version
)

select
    feature_name,
    present_version,
    catalogue_version
from differences
where
    (present_version is null or catalogue_version is null)
    and exists (select 1 from present)
