{% set extracts = source('raw', 'extracts') %}

with rules as (
    {{ alert_rules() | indent(4) }}
),

known_visits as (
    {{ known_history('clinic_visits', ref('stg_clinic_visits'), extracts,
        ['pet_id', 'clinic_id', 'visit_ts', 'status', 'next_vaccine_due']) | indent(4) }}
),

completed_visits as (
    select
        pet_id,
        clinic_id,
        visit_id,
        visit_ts,
        next_vaccine_due,
        known_from,
        known_to
    from known_visits
    where {{ is_completed_visit() }} and pet_id is not null
),

known_pets as (
    {{ known_history('pets', ref('stg_pets'), extracts, ['owner_id'],
        'pet_id in (select transitions.pet_id from ' ~ ref('anl_wellness_transitions') ~ ' as transitions)'
        ~ ' or pet_id in (select completed_visits.pet_id from completed_visits)') | indent(4) }}
),

-- Hours in which the fleet was heard, numbered: an outage of the platform is no time in which a collar fell silent.
heard_hours as (
    select
        judged_at,
        row_number() over (order by judged_at) as heard_no
    from (select distinct hours.judged_at from {{ ref('anl_wellness_hours') }} as hours) as judged
),

followed as (
    select
        pet_id,
        rule,
        rule_version,
        transition,
        transition_at,
        condition_from_ts,
        observed_value,
        baseline_value,
        close_reason,
        lead(transition_at) over (partition by pet_id, rule order by transition_at) as next_at
    from {{ ref('anl_wellness_transitions') }}
),

-- An alert lapses when the fleet was heard for the rule's time since the last signal: null while it was not yet.
lapses as (
    select
        followed.pet_id,
        followed.rule,
        followed.transition_at as stale_at,
        lapsed.judged_at as lapsed_at,
        followed.next_at
    from followed
    inner join rules on followed.rule = rules.rule and followed.rule_version = rules.rule_version
    inner join heard_hours as confirmed
        on confirmed.judged_at = {{ hours_after('followed.transition_at', '-rules.expire_after_hours') }}
    left join heard_hours as lapsed on lapsed.heard_no = confirmed.heard_no + rules.expire_after_hours
    where followed.close_reason = 'no_data'
),

stale as (
    select
        pet_id,
        rule,
        stale_at
    from lapses
    where lapsed_at is null and next_at is null
),

-- What completed visits say of the next vaccination, while it was known; late from `late_from` on.
vaccine_rule as (
    select
        rule_version,
        cast(threshold as integer) as days_late
    from rules
    where rule = 'overdue_vaccine' and {{ data_present() }} >= valid_from
    qualify row_number() over (order by valid_from desc) = 1
),

statements as (
    select
        visits.pet_id,
        visits.next_vaccine_due,
        {{ timezone_of('zones') }} as timezone,
        {{ utc_ts('cast(visits.next_vaccine_due as timestamp)', timezone_of('zones')) }} as due_ts,
        {{ utc_ts(midnight_after('visits.next_vaccine_due', 'vaccine_rule.days_late'), timezone_of('zones')) }}
            as late_from,
        visits.known_from,
        visits.known_to
    from completed_visits as visits
    cross join vaccine_rule
    left join {{ ref('cur_clinic_timezones') }} as zones on visits.clinic_id = zones.clinic_id
    where visits.next_vaccine_due is not null
),

-- Every moment at which a pet may become late or cease to be.
moments as (
    select
        pet_id,
        known_from as moment
    from statements
    union
    select
        pet_id,
        known_to as moment
    from statements
    union
    select
        pet_id,
        late_from as moment
    from statements
    union
    select
        pet_id,
        known_from as moment
    from known_pets
    where pet_id in (select statements.pet_id from statements)
    union
    select
        pet_id,
        known_to as moment
    from known_pets
    where pet_id in (select statements.pet_id from statements)
),

due_dates as (
    select
        moments.pet_id,
        moments.moment,
        max(statements.due_ts) as due_ts,
        max(statements.late_from) as late_from,
        -- The fewest are those since the latest date that is stated.
        min({{ days_between('statements.next_vaccine_due', local_date('moments.moment', 'statements.timezone')) }})
            as days_since_due,
        max(pets.pet_id) is not null as is_pet_known
    from moments
    left join statements
        on moments.pet_id = statements.pet_id and {{ known_at('statements', 'moments.moment') }}
    left join known_pets as pets on moments.pet_id = pets.pet_id and {{ known_at('pets', 'moments.moment') }}
    where moments.moment <= {{ data_present() }}
    group by moments.pet_id, moments.moment
),

lateness as (
    select
        pet_id,
        moment,
        due_ts,
        days_since_due,
        coalesce(is_pet_known and moment >= late_from, false) as is_late
    from due_dates
),

effective as (
    select
        pet_id,
        rule,
        rule_version,
        transition,
        transition_at,
        condition_from_ts,
        observed_value,
        baseline_value,
        close_reason
    from followed
    where close_reason is null or close_reason <> 'no_data'
    union all
    select
        pet_id,
        rule,
        cast(null as varchar) as rule_version,
        'closed' as transition,
        lapsed_at as transition_at,
        cast(null as timestamp) as condition_from_ts,
        cast(null as double) as observed_value,
        cast(null as double) as baseline_value,
        'no_data' as close_reason
    from lapses
    where lapsed_at < next_at or (lapsed_at is not null and next_at is null)
    union all
    select
        lateness.pet_id,
        {{ judges('overdue_vaccine') }} as rule,  -- noqa: RF04
        vaccine_rule.rule_version,
        case when lateness.is_late then 'raised' else 'closed' end as transition,
        lateness.moment as transition_at,
        lateness.due_ts as condition_from_ts,
        cast(lateness.days_since_due as double) as observed_value,
        cast(null as double) as baseline_value,
        case when not lateness.is_late then 'cleared' end as close_reason
    from lateness
    cross join vaccine_rule
),

-- What is raised while it is open, or closed while it is not, changes nothing.
changes as (
    select
        pet_id,
        rule,
        rule_version,
        transition,
        transition_at,
        condition_from_ts,
        observed_value,
        baseline_value,
        close_reason
    from effective
    qualify
        transition <> lag(transition, 1, 'closed') over (partition by pet_id, rule order by transition_at)
),

alerts as (
    select
        pet_id,
        rule,
        rule_version,
        transition_at as raised_at,
        lead(transition_at) over (partition by pet_id, rule order by transition_at) as closed_at,
        lead(close_reason) over (partition by pet_id, rule order by transition_at) as close_reason,
        condition_from_ts,
        observed_value,
        baseline_value
    from changes
    qualify transition = 'raised'
),

-- Who had to know, as it was known then: the owner, and the clinic of the last visit.
last_visits as (
    select
        alerts.pet_id,
        alerts.rule,
        alerts.raised_at,
        visits.clinic_id
    from alerts
    inner join completed_visits as visits
        on
            alerts.pet_id = visits.pet_id
            and alerts.raised_at >= visits.visit_ts
            and {{ known_at('visits', 'alerts.raised_at') }}
    qualify
        row_number() over (
            partition by alerts.pet_id, alerts.rule, alerts.raised_at
            order by visits.visit_ts desc, visits.visit_id desc
        ) = 1
)

select
    {{ typed_md5([['alerts.pet_id', 'text'], ['alerts.rule', 'text'], ['alerts.raised_at', 'timestamp']]) | indent(4) }}
        as alert_id,
    alerts.pet_id,
    coalesce(pets.owner_id, 'unknown') as owner_id,
    coalesce(last_visits.clinic_id, 'unknown') as clinic_id,
    alerts.rule,
    rules.severity,
    alerts.raised_at,
    cast(alerts.raised_at as date) as raised_date,
    alerts.closed_at,
    alerts.closed_at is null as is_open,
    case when alerts.closed_at is null then stale.stale_at end as stale_at,
    alerts.close_reason,
    alerts.condition_from_ts,
    alerts.observed_value,
    rules.threshold,
    rules.unit,
    rules.window_hours,
    alerts.baseline_value,
    alerts.rule_version
from alerts
inner join rules on alerts.rule = rules.rule and alerts.rule_version = rules.rule_version
left join stale on alerts.pet_id = stale.pet_id and alerts.rule = stale.rule
left join known_pets as pets on alerts.pet_id = pets.pet_id and {{ known_at('pets', 'alerts.raised_at') }}
left join last_visits
    on
        alerts.pet_id = last_visits.pet_id
        and alerts.rule = last_visits.rule
        and alerts.raised_at = last_visits.raised_at
