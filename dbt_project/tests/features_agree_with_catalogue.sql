{{ config(meta={'dagster': {'ref': {'name': 'ml_computed_features'}}}) }}
-- What was built has every current feature of the catalogue, and no row is of a
-- version that the catalogue does not know. No rows (no tracked pet) agree with
-- any catalogue. Returns the features that do not agree.
with present as (
    select distinct
        feature_name,
        feature_version
    from {{ ref('ml_computed_features') }}
    where {{ date_in_days('event_date', tested_days()) }}
)

select
    coalesce(present.feature_name, catalogue.feature_name) as feature_name,
    present.feature_version as present_version,
    catalogue.feature_version as catalogue_version,
    catalogue.status
from present
full outer join {{ ref('ml_feature_catalogue') }} as catalogue
    on present.feature_name = catalogue.feature_name and present.feature_version = catalogue.feature_version
where
    exists (select built.feature_name from present as built)
    and (
        catalogue.feature_version is null
        or catalogue.status not in ('current', 'superseded')
        or (catalogue.status = 'current' and present.feature_version is null)
    )
