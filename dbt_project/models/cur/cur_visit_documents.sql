with history as (
    {{ scd2_history('visit_documents', ref('stg_visit_documents'), source('raw', 'extracts')) | indent(4) }}
)

select
    document_id,
    visit_id,
    pet_id,
    document_uri,
    media_type,
    page_count,
    sha256,
    ocr_engine,
    ocr_fields,
    ocr_confidence,
    review_status,
    validator_id,
    validated_at,
    valid_from as changed_at,
    source_system,
    record_md5,
    created_at
from history
where is_current and not is_deleted
