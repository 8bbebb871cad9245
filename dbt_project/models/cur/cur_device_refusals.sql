-- Ingestion's own rule (ingestion/collector/consent.py), said for a device's time. A message is not there if it was
-- dropped by what was known at its receipt, or taken out since by what is known now; so both count, each with
-- consent, owners and assignments of its own. What several pets claim is dropped for none of them. Built whole:
-- few households refuse, and only their pets and collars are followed.
{% set first_moment = "timestamp '0001-01-01 00:00:00'" %}
{% set open_end = "timestamp '9999-12-31 00:00:00'" %}
{% set extracts = source('raw', 'extracts') %}
{% set of_followed_pets = 'select followed_pets.pet_id from followed_pets' %}
{% set next_said_at = 'lead(said_at) over (partition by owner_id order by ' ~ statement_order() ~ ')' %}
{% set sayings = {
    'now': ('consent_statements', 'said_at', next_said_at),
    'by_then': ('known_consents', 'known_from', 'known_to'),
} %}
{% set is_refusal = 'not ' ~ allows('analytics', 'is_allowed') %}

with {{ known_consents() }},

named_owners as (
    select owner_id
    from {{ ref('stg_owners') }}
    union
    select owner_id
    from {{ ref('stg_pets') }}
    where owner_id is not null
),

-- Until an owner's first statement nothing is said.
{%- for when, (statements, held_from, held_to) in sayings.items() %}
said_{{ when }} as (
    select
        owner_id,
        is_allowed,
        {{ held_from }} as held_from,
        coalesce({{ held_to }}, {{ open_end }}) as held_to
    from {{ statements }}
    where flag = 'analytics'
    union all
    select
        named_owners.owner_id,
        cast(null as boolean) as is_allowed,
        {{ first_moment }} as held_from,
        coalesce(min({{ statements }}.{{ held_from }}), {{ open_end }}) as held_to
    from named_owners
    left join {{ statements }}
        on named_owners.owner_id = {{ statements }}.owner_id and {{ statements }}.flag = 'analytics'
    group by named_owners.owner_id
),

refused_{{ when }} as (
    select
        owner_id,
        held_from,
        held_to
    from said_{{ when }}
    where {{ is_refusal }}
),
{% endfor %}
-- Whatever any of these households' pets ever wore, and every assignment of those collars.
followed_pets as (
    select pet_id
    from {{ ref('stg_pets') }}
    where
        owner_id in (
            select refused_now.owner_id
            from refused_now
            union
            select refused_by_then.owner_id
            from refused_by_then
        )
),

followed_devices as (
    select device_id
    from {{ ref('stg_device_assignments') }}
    where pet_id in ({{ of_followed_pets }}) and device_id is not null
),

followed_assignments as (
    select assignment_id
    from {{ ref('stg_device_assignments') }}
    where device_id in (select followed_devices.device_id from followed_devices)
),

-- Who owns a pet, by everything said of it. A deletion says nothing of the owner: a pet that is gone from its
-- source has not left its household.
pet_statements as (
    with {{ change_log('pets', ref('stg_pets'), extracts, touched=of_followed_pets) | indent(4) }}

    select
        pet_id,
        owner_id,
        changed_at,
        row_number() over (partition by pet_id order by {{ change_order() }}) as ordinal
    from change_log
    where not is_deletion
),

-- A record of a clock that is ahead counts where nothing else is said of its pet.
ahead_statements as (
    select
        pet_id,
        owner_id,
        changed_at,
        row_number() over (partition by pet_id order by {{ change_order() }}) as ordinal
    from {{ ref('stg_pets') }}
    where
        op <> 'delete'
        and {{ is_dated_ahead() }}
        and pet_id in ({{ of_followed_pets }})
        and pet_id not in (select pet_statements.pet_id from pet_statements)
),

-- The first known owner is taken as the owner before that, too.
owned_now as (
    select
        pet_id,
        owner_id,
        case when ordinal = 1 then {{ first_moment }} else changed_at end as owned_from,
        coalesce(lead(changed_at) over (partition by pet_id order by ordinal), {{ open_end }}) as owned_to
    from (
        select
            pet_id,
            owner_id,
            changed_at,
            ordinal
        from pet_statements
        union all
        select
            pet_id,
            owner_id,
            changed_at,
            ordinal
        from ahead_statements
    ) as statements
),

owned_by_then as (
    {{ known_history('pets', ref('stg_pets'), extracts, ['owner_id'],
        'not is_deletion and pet_id in (' ~ of_followed_pets ~ ')') | indent(4) }}
),

worn_now as (
    select
        device_id,
        pet_id,
        valid_from,
        coalesce(valid_to, {{ open_end }}) as valid_to
    from {{ ref('cur_device_pet_intervals') }}
    where pet_id in ({{ of_followed_pets }})
),

known_assignments as (
    {{ known_history('device_assignments', ref('stg_device_assignments'), extracts,
        ['device_id', 'pet_id', 'assigned_from', 'assigned_to'],
        'assignment_id in (select followed_assignments.assignment_id from followed_assignments)') | indent(4) }}
),

-- Assignments while they were known and had begun.
begun as (
    select
        device_id,
        pet_id,
        assigned_from,
        assigned_to,
        greatest(known_from, assigned_from) as begun_from,
        coalesce(known_to, {{ open_end }}) as begun_to
    from known_assignments
    where
        device_id in (select followed_devices.device_id from followed_devices)
        and assigned_from < coalesce(known_to, {{ open_end }})
),

assignment_moments as (
    select
        device_id,
        begun_from as moment_ts
    from begun
    union
    select
        device_id,
        begun_to as moment_ts
    from begun
    union
    select
        device_id,
        assigned_to as moment_ts
    from begun
    where assigned_to > begun_from and assigned_to < begun_to
),

assignment_spans as (
    select
        device_id,
        moment_ts as span_from,
        lead(moment_ts) over (partition by device_id order by moment_ts) as span_to
    from assignment_moments
),

claims as (
    select
        spans.device_id,
        spans.span_from,
        spans.span_to,
        begun.pet_id,
        begun.assigned_from,
        begun.assigned_to,
        max(begun.assigned_from) over (partition by spans.device_id, spans.span_from) as latest_from
    from assignment_spans as spans
    inner join begun
        on
            spans.device_id = begun.device_id
            and spans.span_from >= begun.begun_from
            and spans.span_from < begun.begun_to
),

-- An open assignment ends where a later one of the same device begins, as in segments.sql.
worn_by_then as (
    select
        device_id,
        min(pet_id) as pet_id,
        span_from as valid_from,
        span_to as valid_to
    from claims
    where (assigned_to is null and assigned_from = latest_from) or assigned_to > span_from
    group by device_id, span_from, span_to
    having count(distinct pet_id) = 1
),

refusals as (
    select
        worn.device_id,
        greatest(worn.valid_from, ownerships.owned_from, refused.held_from) as refused_from,
        least(worn.valid_to, ownerships.owned_to, refused.held_to) as refused_to
    from worn_now as worn
    inner join owned_now as ownerships on worn.pet_id = ownerships.pet_id
    inner join refused_now as refused on ownerships.owner_id = refused.owner_id
    union all
    select
        worn.device_id,
        greatest(worn.valid_from, ownerships.known_from, refused.held_from) as refused_from,
        least(worn.valid_to, coalesce(ownerships.known_to, {{ open_end }}), refused.held_to) as refused_to
    from worn_by_then as worn
    inner join owned_by_then as ownerships on worn.pet_id = ownerships.pet_id
    inner join refused_by_then as refused on ownerships.owner_id = refused.owner_id
),

reached as (
    select
        device_id,
        refused_from,
        refused_to,
        max(refused_to) over (
            partition by device_id order by refused_from, refused_to
            rows between unbounded preceding and 1 preceding
        ) as reached_to
    from refusals
    where refused_from < refused_to
),

-- Those that overlap or touch are one.
numbered as (
    select
        device_id,
        refused_from,
        refused_to,
        sum(case when reached_to is null or refused_from > reached_to then 1 else 0 end) over (
            partition by device_id order by refused_from, refused_to
            rows between unbounded preceding and current row
        ) as span_number
    from reached
)

select
    device_id,
    min(refused_from) as valid_from,
    nullif(max(refused_to), {{ open_end }}) as valid_to
from numbered
group by device_id, span_number
