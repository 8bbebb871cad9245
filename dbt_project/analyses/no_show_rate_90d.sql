-- Share of each clinic's visits of the last 90 days to which nobody came. One row per clinic with such visits.
-- Visits as they stand now (cur.clinic_visits is a history), without those still to come.
{% set present = "timestamp '" ~ var('as_of_ts') ~ "'" %}

select
    clinic_id,
    cast(sum(case when status = 'no_show' then 1 else 0 end) as bigint) as no_shows,
    count(*) as scheduled,
    {{ ratio_of("sum(case when status = 'no_show' then 1 else 0 end)", 'count(*)') }} as no_show_rate
from {{ ref('cur_clinic_visits') }}
where
    is_current
    and not is_deleted
    and visit_ts >= {{ midnight_after('cast(' ~ present ~ ' as date)', -90) }}
    and visit_ts < {{ present }}
group by clinic_id
order by clinic_id
