{# What each feature is: the one list that ml_computed_features turns into rows.

   `value` and `coverage` are expressions over ml_pet_day_measures. Meaning,
   unit, window, least coverage and version are in the catalogue
   (seeds/ml/ml_feature_catalogue.csv): a changed expression here is a new
   version there. Coverage is the share of the window's minutes (windows within
   a day and weeks) or days (weights, batteries) in which the collar measured
   what the feature is made of; null for what rests on records alone. A
   comparison has the coverage of its thinner side: a day of nine events is no
   day to compare with. #}
{% macro feature_definitions() -%}
    {{ return([
        {'name': 'steps_24h', 'value': 'cast(steps as double)', 'coverage': share_of_day('step_minutes')},
        {
            'name': 'steps_delta_24h',
            'value': ratio_of('steps - steps_day_before', 'steps_day_before'),
            'coverage': share_of_both(share_of_day('step_minutes'), share_of_day('step_minutes_day_before')),
        },
        {
            'name': 'steps_mean_7d',
            'value': ratio_of('steps_last_7d', 'step_days_last_7d'),
            'coverage': share_of_week('step_minutes_last_7d'),
        },
        {
            'name': 'steps_delta_7d',
            'value': ratio_of('steps', ratio_of('steps_7d_before', 'step_days_7d_before')) ~ ' - 1',
            'coverage': share_of_both(share_of_day('step_minutes'), share_of_week('step_minutes_7d_before')),
        },
        {
            'name': 'steps_cv_7d',
            'value': ratio_of(
                sample_sd('step_days_last_7d', 'steps_last_7d', 'steps_square_last_7d'),
                ratio_of('steps_last_7d', 'step_days_last_7d'),
            ),
            'coverage': share_of_week('step_minutes_last_7d'),
        },
        {
            'name': 'active_minutes_24h',
            'value': where_measured('step_minutes', 'step_minutes - rest_minutes'),
            'coverage': share_of_day('step_minutes'),
        },
        {
            'name': 'steps_per_active_minute_24h',
            'value': ratio_of('steps', 'step_minutes - rest_minutes'),
            'coverage': share_of_day('step_minutes'),
        },
        {
            'name': 'night_steps',
            'value': 'cast(night_steps as double)',
            'coverage': share_of_night('night_step_minutes'),
        },
        {
            'name': 'night_steps_ratio_24h',
            'value': ratio_of('night_steps', 'steps'),
            'coverage': share_of_day('step_minutes'),
        },
        {
            'name': 'rest_minutes_24h',
            'value': where_measured('step_minutes', 'rest_minutes'),
            'coverage': share_of_day('step_minutes'),
        },
        {
            'name': 'night_rest_minutes',
            'value': where_measured('night_minutes', 'night_rest_minutes'),
            'coverage': share_of_night('night_minutes'),
        },
        {
            'name': 'night_rest_ratio',
            'value': ratio_of('night_rest_minutes', 'night_minutes'),
            'coverage': share_of_night('night_minutes'),
        },
        {
            'name': 'night_longest_rest_minutes',
            'value': where_measured('night_minutes', 'night_longest_rest_minutes'),
            'coverage': share_of_night('night_minutes'),
        },
        {
            'name': 'night_interruption_rate',
            'value': ratio_of('night_interruption_count * 60', 'night_rest_minutes'),
            'coverage': share_of_night('night_minutes'),
        },
        {
            'name': 'night_rest_ratio_delta_7d',
            'value': difference(
                ratio_of('night_rest_minutes', 'night_minutes'),
                ratio_of('night_rest_minutes_7d_before', 'night_minutes_7d_before'),
            ),
            'coverage': share_of_both(
                share_of_night('night_minutes'), share_of_nights('night_minutes_7d_before', 7)
            ),
        },
        {'name': 'licks_24h', 'value': 'cast(licks as double)', 'coverage': share_of_day('lick_minutes')},
        {
            'name': 'lick_rate_24h',
            'value': ratio_of('licks * 60', 'lick_minutes'),
            'coverage': share_of_day('lick_minutes'),
        },
        {
            'name': 'day_lick_rate',
            'value': ratio_of(
                '(licks - coalesce(night_licks, 0)) * 60', 'lick_minutes - coalesce(night_lick_minutes, 0)'
            ),
            'coverage': share_of_minutes(
                'lick_minutes - coalesce(night_lick_minutes, 0)', minutes_per_day() ~ ' - ' ~ minutes_per_night()
            ),
        },
        {
            'name': 'night_lick_rate',
            'value': ratio_of('night_licks * 60', 'night_lick_minutes'),
            'coverage': share_of_night('night_lick_minutes'),
        },
        {
            'name': 'licking_minutes_24h',
            'value': where_measured('lick_minutes', 'licking_minutes'),
            'coverage': share_of_day('lick_minutes'),
        },
        {
            'name': 'lick_burst_minutes_24h',
            'value': where_measured('lick_minutes', 'lick_burst_minutes'),
            'coverage': share_of_day('lick_minutes'),
        },
        {
            'name': 'licks_delta_7d',
            'value': ratio_of('licks', ratio_of('licks_7d_before', 'lick_days_7d_before')) ~ ' - 1',
            'coverage': share_of_both(share_of_day('lick_minutes'), share_of_week('lick_minutes_7d_before')),
        },
        {
            'name': 'pulse_mean_24h',
            'value': mean_of('pulse_bpm_sum', 'pulse_count'),
            'coverage': share_of_day('pulse_minutes'),
        },
        {'name': 'pulse_min_24h', 'value': 'cast(pulse_bpm_min as double)', 'coverage': share_of_day('pulse_minutes')},
        {'name': 'pulse_max_24h', 'value': 'cast(pulse_bpm_max as double)', 'coverage': share_of_day('pulse_minutes')},
        {
            'name': 'pulse_sd_24h',
            'value': sample_sd('pulse_count', 'pulse_bpm_sum', 'pulse_bpm_square_sum'),
            'coverage': share_of_day('pulse_minutes'),
        },
        {
            'name': 'pulse_delta_7d',
            'value': difference(
                mean_of('pulse_bpm_sum', 'pulse_count'), mean_of('pulse_bpm_sum_7d_before', 'pulse_count_7d_before')
            ),
            'coverage': share_of_both(share_of_day('pulse_minutes'), share_of_week('pulse_minutes_7d_before')),
        },
        {
            'name': 'resting_pulse_24h',
            'value': mean_of('rest_pulse_bpm_sum', 'rest_pulse_count'),
            'coverage': share_of_day('rest_pulse_minutes'),
        },
        {
            'name': 'resting_pulse_delta_7d',
            'value': difference(
                mean_of('rest_pulse_bpm_sum', 'rest_pulse_count'),
                mean_of('rest_pulse_bpm_sum_7d_before', 'rest_pulse_count_7d_before'),
            ),
            'coverage': share_of_both(share_of_day('rest_pulse_minutes'), share_of_week('rest_pulse_minutes_7d_before')),
        },
        {
            'name': 'body_temp_mean_24h',
            'value': mean_of('body_temp_c_sum', 'body_temp_count'),
            'coverage': share_of_day('body_temp_minutes'),
        },
        {
            'name': 'body_temp_max_24h',
            'value': 'cast(body_temp_c_max as double)',
            'coverage': share_of_day('body_temp_minutes'),
        },
        {
            'name': 'body_temp_delta_7d',
            'value': difference(
                mean_of('body_temp_c_sum', 'body_temp_count'),
                mean_of('body_temp_c_sum_7d_before', 'body_temp_count_7d_before'),
            ),
            'coverage': share_of_both(share_of_day('body_temp_minutes'), share_of_week('body_temp_minutes_7d_before')),
        },
        {
            'name': 'fever_minutes_24h',
            'value': where_measured('body_temp_minutes', 'fever_minutes'),
            'coverage': share_of_day('body_temp_minutes'),
        },
        {
            'name': 'respiration_mean_24h',
            'value': mean_of('respiration_rpm_sum', 'respiration_count'),
            'coverage': share_of_day('respiration_minutes'),
        },
        {
            'name': 'respiration_delta_7d',
            'value': difference(
                mean_of('respiration_rpm_sum', 'respiration_count'),
                mean_of('respiration_rpm_sum_7d_before', 'respiration_count_7d_before'),
            ),
            'coverage': share_of_both(
                share_of_day('respiration_minutes'), share_of_week('respiration_minutes_7d_before')
            ),
        },
        {
            'name': 'night_rest_respiration',
            'value': mean_of('night_respiration_rpm_sum', 'night_respiration_count'),
            'coverage': share_of_night('night_respiration_minutes'),
        },
        {
            'name': 'weight_latest_30d',
            'value': mean_of('weight_latest_kg_sum', 'weight_latest_count'),
            'coverage': share_of_days(30, 'weight_days_30d'),
        },
        {
            'name': 'weight_trend_30d',
            'value': 'weight_slope_kg_per_day * 30',
            'coverage': share_of_both(
                share_of_days(15, 'weight_days_last_15d'), share_of_days(15, 'weight_days_15d_before')
            ),
        },
        {
            'name': 'battery_min_24h',
            'value': 'cast(battery_min_pct as double)',
            'coverage': share_of_day('observed_minutes'),
        },
        {
            'name': 'battery_drain_7d',
            'value': ratio_of('battery_drop_pct_last_7d', 'battery_drop_days_last_7d'),
            'coverage': share_of_days(7, 'battery_drop_days_last_7d'),
        },
        {
            'name': 'worn_minutes_24h',
            'value': where_measured('pulse_count + body_temp_count', 'worn_minutes'),
            'coverage': share_of_day('observed_minutes'),
        },
        {
            'name': 'coverage_24h',
            'value': share_of_day('observed_minutes'),
            'coverage': share_of_day('observed_minutes'),
        },
        {
            'name': 'coverage_7d',
            'value': share_of_week('observed_minutes_last_7d'),
            'coverage': share_of_week('observed_minutes_last_7d'),
        },
        {
            'name': 'silent_days_7d',
            'value': 'case when days_on_platform >= 7 then cast(7 - coalesce(observed_days_last_7d, 0) as double) end',
            'coverage': share_of_week('observed_minutes_last_7d'),
        },
        {'name': 'days_since_last_visit', 'value': ratio_of('last_visit_age_us', 86400000000), 'coverage': none},
        {'name': 'visits_365d', 'value': 'cast(visit_count_365d as double)', 'coverage': none},
        {
            'name': 'unplanned_visits_365d',
            'value': 'case when visit_count_365d = 0 or stated_visit_count_365d > 0'
                ~ ' then cast(unplanned_visit_count_365d as double) end',
            'coverage': none,
        },
        {'name': 'no_shows_365d', 'value': 'cast(no_show_count_365d as double)', 'coverage': none},
        {
            'name': 'vaccine_due_in_days',
            'value': 'cast(vaccine_due_in_days as double)',
            'coverage': none,
        },
        {
            'name': 'age_years',
            'value': 'case when age_years between 0 and 40 then age_years end',
            'coverage': none,
        },
        {'name': 'days_on_platform', 'value': 'days_on_platform', 'coverage': none},
    ]) }}
{%- endmacro %}

{% macro minutes_per_day() %}{{ return(1440) }}{% endmacro %}

{# The night is 00:00 to 06:00 on the clocks of the pet's clinic (macros/zones.sql). #}
{% macro hours_per_night() %}{{ return(6) }}{% endmacro %}

{# Minutes of the UTC day that lie in the night: another number than usual where clocks change in it. Without a
   report of a collar nothing was measured of either number. #}
{% macro minutes_per_night() %}{{ return('coalesce(night_length_minutes, ' ~ hours_per_night() * 60 ~ ')') }}{% endmacro %}

{# Degrees Celsius from which on a minute counts as fever. Merck Veterinary
   Manual, "Fever of Unknown Origin in Dogs": patients with true fever have 39.5
   to 41.1. #}
{% macro fever_from_c() %}{{ return(39.5) }}{% endmacro %}

{# Licks in a minute from which on it counts as a burst. No published limit is
   known: a convention of ours, well above grooming in passing. #}
{% macro lick_burst_from() %}{{ return(10) }}{% endmacro %}

{# A count as a double where something was measured; null, not zero, where nothing was. #}
{% macro where_measured(measurements, count) -%}
    case when {{ measurements }} > 0 then cast({{ count }} as double) end
{%- endmacro %}

{% macro difference(later, earlier) -%}
    {{ later }} - {{ earlier }}
{%- endmacro %}

{# Standard deviation (n - 1) from a count and exact sums of values and squares;
   null for fewer than two values. #}
{% macro sample_sd(count, total, squares) -%}
    sqrt({{ ratio_of(
        'cast(' ~ count ~ ' as decimal(10, 0)) * ' ~ squares ~ ' - ' ~ total ~ ' * ' ~ total,
        count ~ ' * (' ~ count ~ ' - 1)'
    ) }})
{%- endmacro %}

{# Share of `minutes` out of `possible`, at most 1 (two collars on one pet count twice); 0 when there are none. #}
{% macro share_of_minutes(minutes, possible) -%}
    least({{ ratio_of('coalesce(' ~ minutes ~ ', 0)', possible) }}, 1)
{%- endmacro %}

{% macro share_of_day(minutes) -%}
    {{ share_of_minutes(minutes, minutes_per_day()) }}
{%- endmacro %}

{% macro share_of_night(minutes) -%}
    {{ share_of_minutes(minutes, minutes_per_night()) }}
{%- endmacro %}

{# Of several nights, as long as they usually are: an hour that a change of clocks adds or takes does not count. #}
{% macro share_of_nights(minutes, nights) -%}
    {{ share_of_minutes(minutes, nights * hours_per_night() * 60) }}
{%- endmacro %}

{% macro share_of_week(minutes) -%}
    {{ share_of_minutes(minutes, 7 * minutes_per_day()) }}
{%- endmacro %}

{# Coverage of a comparison: the lesser of its two sides'. #}
{% macro share_of_both(side, other_side) -%}
    least({{ side }}, {{ other_side }})
{%- endmacro %}

{# Share of a window's days with a measurement, for what is measured once a day. #}
{% macro share_of_days(window_days, days) -%}
    {{ ratio_of('coalesce(' ~ days ~ ', 0)', window_days) }}
{%- endmacro %}
