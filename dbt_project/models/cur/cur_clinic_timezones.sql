-- As the records say now: a corrected zone corrects the days of all history.
select
    clinics.clinic_id,
    clinics.timezone as stated_timezone,
    coalesce(zones.timezone, {{ home_timezone() }}) as timezone,
    zones.timezone is null as is_assumed
from {{ ref('cur_clinics') }} as clinics
left join {{ ref('cur_timezones') }} as zones on clinics.timezone = zones.timezone
where clinics.is_current
