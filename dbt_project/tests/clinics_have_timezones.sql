{{ config(severity='warn') }}
-- The record of every clinic names a time zone that is known; the days of one
-- that does not follow the home zone. The source's to mend, so it warns.
-- Returns those clinics.
select
    clinic_id,
    stated_timezone
from {{ ref('cur_clinic_timezones') }}
where is_assumed
