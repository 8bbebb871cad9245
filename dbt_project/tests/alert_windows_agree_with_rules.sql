-- The windows and run lengths that the rules state are those that the models are made for.
select
    rule,
    rule_version,
    window_hours,
    baseline_hours,
    raise_after_hours,
    expire_after_hours
from {{ ref('anl_alert_rules') }}
where
    (baseline_hours is not null and (window_hours <> {{ window_hours() }} or baseline_hours <> {{ baseline_hours() }}))
    or (baseline_hours is null and window_hours <> 1)
    or raise_after_hours > {{ 24 * signal_lookback_days() }} - expire_after_hours
    or clear_after_hours > {{ 24 * signal_lookback_days() }} - expire_after_hours
    or expire_after_hours > {{ 24 * expiry_days() }}
    or (baseline_hours is not null and expire_after_hours < window_hours + raise_after_hours)
    or threshold = clear_threshold
