{{ config(
    materialized='incremental',
    incremental_strategy='replace_days',
    on_schema_change='fail',
    cluster_by=['event_date'],
    tags=['daily'],
    meta={
        'daily': true,
        'inputs': ['known_collars', 'refusals', 'alert_rules'],
        'window_days': window_lookback_days() + 1,
        'judges_hours': true,
        'published': false,
    },
    post_hook=['{{ record_applied_inputs() }}']
) }}
-- depends_on: {{ ref('cur_day_inputs') }}, {{ ref('cur_applied_inputs') }}, {{ ref('stg_telemetry_events') }}
{% set days = model_days() %}
{% set signal_days = expand_days(days, 1, days_after=signal_lookback_days()) %}
{% set window_days = expand_days(days, 1, days_after=window_lookback_days()) %}
{% set of_hour = 'pet_id, hour_no, hour_ts, judged_at, event_date' %}
{% set last_hours = 'partition by pet_id, rule order by hour_no range between '
    ~ (window_hours() - 1) ~ ' preceding and current row' %}
{% set baseline = 'partition by pet_id, rule order by hour_no range between '
    ~ (window_hours() + baseline_hours() - 1) ~ ' preceding and ' ~ window_hours() ~ ' preceding' %}

with rules as (
    {{ alert_rules() | indent(4) }}
),

hours as (
    select
        pet_id,
        {{ hours_between("timestamp '1970-01-01 00:00:00'", 'hour_ts') }} as hour_no,
        hour_ts,
        judged_at,
        event_date,
        is_expected,
        event_count,
        observed_minutes,
        worn_minutes,
        total_steps,
        total_licks,
        body_temp_c_sum,
        body_temp_count,
        body_temp_minutes,
        battery_min_pct
    from {{ ref('anl_wellness_hours') }}
    where {{ date_in_days('event_date', window_days) }}
),

amounts as (
    select
        {{ of_hour }},
        {{ judges('sudden_inactivity') }} as rule,  -- noqa: RF04
        observed_minutes,
        worn_minutes,
        total_steps as amount
    from hours
    where total_steps is not null
    union all
    select
        {{ of_hour }},
        {{ judges('excessive_licking') }} as rule,  -- noqa: RF04
        observed_minutes,
        worn_minutes,
        total_licks as amount
    from hours
    where total_licks is not null
),

windows as (
    select
        {{ of_hour }},
        rule,
        sum(amount) over ({{ last_hours }}) as window_amount,
        sum(amount) over ({{ baseline }}) as baseline_amount,
        sum(observed_minutes) over ({{ last_hours }}) as window_observed_minutes,
        sum(observed_minutes) over ({{ baseline }}) as baseline_observed_minutes,
        sum(worn_minutes) over ({{ last_hours }}) as window_worn_minutes,
        sum(worn_minutes) over ({{ baseline }}) as baseline_worn_minutes
    from amounts
),

sensed as (
    select
        {{ of_hour }},
        rule,
        window_amount,
        baseline_amount,
        window_observed_minutes,
        baseline_observed_minutes,
        window_worn_minutes,
        baseline_worn_minutes,
        window_worn_minutes + baseline_worn_minutes > 0 as has_contact
    from windows
    where {{ date_in_days('event_date', signal_days) }}
),

-- A collar with a contact sensor is judged by the minutes it was worn, so that one on a table is not a lazy pet.
minutes as (
    select
        {{ of_hour }},
        rule,
        cast(window_amount as decimal(12, 0)) as window_amount,
        cast(baseline_amount as decimal(12, 0)) as baseline_amount,
        cast(case when has_contact then window_worn_minutes else window_observed_minutes end as decimal(6, 0))
            as window_minutes,
        cast(case when has_contact then baseline_worn_minutes else baseline_observed_minutes end as decimal(6, 0))
            as baseline_minutes
    from sensed
),

-- Amount per minute against the baseline's, in percent, multiplied out: no division, no rounding.
compared as (
    select
        minutes.pet_id,
        minutes.hour_no,
        minutes.hour_ts,
        minutes.judged_at,
        minutes.rule,
        rules.rule_version,
        minutes.window_amount * minutes.baseline_minutes * 100 as observed,
        minutes.baseline_amount * minutes.window_minutes as reference,
        {{ ratio_of('minutes.window_amount * 60', 'minutes.window_minutes') }} as observed_value,
        {{ ratio_of('minutes.baseline_amount * 60', 'minutes.baseline_minutes') }} as baseline_value
    from minutes
    inner join rules
        on
            minutes.rule = rules.rule
            and minutes.judged_at >= rules.valid_from
            and (rules.valid_to is null or rules.valid_to > minutes.judged_at)
    where
        minutes.baseline_amount > 0
        and minutes.window_minutes >= rules.min_window_minutes
        and minutes.baseline_minutes >= rules.min_baseline_minutes
),

measured as (
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        {{ judges('fever') }} as rule,  -- noqa: RF04
        body_temp_c_sum as measure,
        body_temp_count as measurements,
        body_temp_minutes as measured_minutes
    from hours
    where body_temp_count > 0 and {{ date_in_days('event_date', signal_days) }}
    union all
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        {{ judges('low_battery') }} as rule,  -- noqa: RF04
        battery_min_pct as measure,
        1 as measurements,
        observed_minutes as measured_minutes
    from hours
    where battery_min_pct is not null and {{ date_in_days('event_date', signal_days) }}
    union all
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        {{ judges('collar_dropout') }} as rule,  -- noqa: RF04
        event_count as measure,
        1 as measurements,
        observed_minutes as measured_minutes
    from hours
    where (is_expected or event_count > 0) and {{ date_in_days('event_date', signal_days) }}
),

-- What decides is `observed` against threshold * `reference`.
judged as (
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        rule,
        rule_version,
        observed,
        reference,
        observed_value,
        baseline_value
    from compared
    union all
    select
        measured.pet_id,
        measured.hour_no,
        measured.hour_ts,
        measured.judged_at,
        measured.rule,
        rules.rule_version,
        cast(measured.measure as decimal(18, 2)) as observed,
        cast(measured.measurements as decimal(18, 0)) as reference,
        {{ ratio_of('measured.measure', 'measured.measurements') }} as observed_value,
        cast(null as double) as baseline_value
    from measured
    inner join rules
        on
            measured.rule = rules.rule
            and measured.judged_at >= rules.valid_from
            and (rules.valid_to is null or rules.valid_to > measured.judged_at)
    where measured.measured_minutes >= coalesce(rules.min_window_minutes, 0)
),

-- Below the threshold is bad for some rules and good for the others; what is neither bad nor clear says nothing.
flavoured as (
    select
        judged.pet_id,
        judged.hour_no,
        judged.hour_ts,
        judged.judged_at,
        judged.rule,
        rules.rule_version,
        rules.raise_after_hours,
        rules.clear_after_hours,
        rules.expire_after_hours,
        judged.observed_value,
        judged.baseline_value,
        case
            when rules.is_low_bad and judged.observed <= rules.threshold * judged.reference then 'bad'
            when rules.is_low_bad and judged.observed >= rules.clear_threshold * judged.reference then 'clear'
            when not rules.is_low_bad and judged.observed >= rules.threshold * judged.reference then 'bad'
            when not rules.is_low_bad and judged.observed <= rules.clear_threshold * judged.reference then 'clear'
        end as flavour
    from judged
    inner join rules on judged.rule = rules.rule and judged.rule_version = rules.rule_version
),

islands as (
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        rule,
        rule_version,
        raise_after_hours,
        clear_after_hours,
        expire_after_hours,
        observed_value,
        baseline_value,
        flavour,
        hour_no - row_number() over (partition by pet_id, rule, flavour order by hour_no) as island
    from flavoured
    where flavour is not null
),

runs as (
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        rule,
        rule_version,
        raise_after_hours,
        clear_after_hours,
        expire_after_hours,
        observed_value,
        baseline_value,
        flavour,
        row_number() over (partition by pet_id, rule, flavour, island order by hour_no) as run_hours
    from islands
),

-- Hours that, taken alone, open or close: the state after an hour is the flavour of the last signal.
signals as (
    select
        pet_id,
        hour_no,
        hour_ts,
        judged_at,
        rule,
        rule_version,
        raise_after_hours,
        expire_after_hours,
        observed_value,
        baseline_value,
        flavour,
        lag(flavour) over (partition by pet_id, rule order by hour_no) as previous_flavour,
        hour_no - lag(hour_no + expire_after_hours) over (partition by pet_id, rule order by hour_no)
            as hours_since_expiry,
        lead(hour_no) over (partition by pet_id, rule order by hour_no) as next_hour_no
    from runs
    where
        (flavour = 'bad' and run_hours >= raise_after_hours)
        or (flavour = 'clear' and run_hours >= clear_after_hours)
),

-- What each signal does taken alone. Whether an alert is open is not known here: the last signal may lie any time
-- back, behind an outage.
transitions as (
    select
        pet_id,
        rule,
        rule_version,
        'raised' as transition,
        judged_at as transition_at,
        cast(hour_ts as date) as event_date,
        {{ hours_after('hour_ts', '(1 - raise_after_hours)') }} as condition_from_ts,
        observed_value,
        baseline_value,
        cast(null as varchar) as close_reason
    from signals
    where flavour = 'bad' and (previous_flavour is null or previous_flavour = 'clear' or hours_since_expiry > 0)
    union all
    select
        pet_id,
        rule,
        rule_version,
        'closed' as transition,
        judged_at as transition_at,
        cast(hour_ts as date) as event_date,
        cast(null as timestamp) as condition_from_ts,
        observed_value,
        baseline_value,
        'cleared' as close_reason
    from signals
    where flavour = 'clear' and (previous_flavour is null or previous_flavour = 'bad' or hours_since_expiry > 0)
    union all
    select
        pet_id,
        rule,
        rule_version,
        'closed' as transition,
        {{ hours_after('judged_at', 'expire_after_hours') }} as transition_at,
        cast({{ hours_after('hour_ts', 'expire_after_hours') }} as date) as event_date,
        cast(null as timestamp) as condition_from_ts,
        cast(null as double) as observed_value,
        cast(null as double) as baseline_value,
        'no_data' as close_reason
    from signals
    where
        flavour = 'bad'
        and (next_hour_no is null or next_hour_no > hour_no + expire_after_hours)
        and {{ hours_after('judged_at', 'expire_after_hours') }} <= {{ data_present() }}
)

select
    pet_id,
    rule,
    rule_version,
    transition,
    transition_at,
    event_date,
    condition_from_ts,
    observed_value,
    baseline_value,
    close_reason
from transitions
where {{ date_in_days('event_date', days) }}
