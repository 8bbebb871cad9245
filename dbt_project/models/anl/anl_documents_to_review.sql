-- OCR has looked and is not sure, and no person has decided. What the clinic's
-- system took over by itself below the threshold is waiting, too.
with doubtful as (
    select
        document_id,
        visit_id,
        pet_id,
        media_type,
        page_count,
        ocr_engine,
        ocr_confidence,
        review_status,
        changed_at
    from {{ ref('cur_visit_documents') }}
    where
        ocr_engine is not null
        and coalesce(review_status, 'pending') in ('pending', 'auto_accepted')
        and (ocr_confidence is null or ocr_confidence < {{ var('ocr_min_confidence') }})
)

select
    doubtful.document_id,
    doubtful.visit_id,
    coalesce(doubtful.pet_id, 'unknown') as pet_id,
    coalesce(visits.clinic_id, 'unknown') as clinic_id,
    doubtful.media_type,
    doubtful.page_count,
    doubtful.ocr_engine,
    doubtful.ocr_confidence,
    case when doubtful.ocr_confidence is null then 'unreadable' else 'low_confidence' end as review_reason,
    doubtful.review_status,
    doubtful.changed_at as waiting_since_ts
from doubtful
left join {{ ref('cur_clinic_visits') }} as visits
    on doubtful.visit_id = visits.visit_id and visits.is_current and not visits.is_deleted
