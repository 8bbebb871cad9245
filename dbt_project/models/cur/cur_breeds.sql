with history as (
    {{ scd2_history('breeds', ref('stg_breeds'), source('raw', 'extracts')) | indent(4) }}
)

select
    breed_id,
    species,
    breed,
    breed_group,
    min_weight_kg,
    max_weight_kg,
    min_height_cm,
    max_height_cm,
    min_life_expectancy_years,
    max_life_expectancy_years,
    valid_from as changed_at,
    source_system,
    record_md5,
    created_at
from history
where is_current and not is_deleted
