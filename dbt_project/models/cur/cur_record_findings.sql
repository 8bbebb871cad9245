{% set feeds = record_feeds() %}
{{ record_model(feeds, finding_key(), after=staged_tables(feeds) + ['cur.pets', 'cur.owners']) }}
{% set keys = touched_keys() %}
{% set touched = touched_in_cte('finding_key', keys) %}
{% set record = [
    'feed', 'entity_id', 'stream_id', 'kafka_partition', 'kafka_offset', 'changed_at', 'arrival_ts'
] | join(',\n        ') %}

{{ with_touched('finding_key', keys) }}
records as (
    {%- for feed in feeds %}
    {%- set attributes = attribute_names(feed) %}
    select
        '{{ feed }}' as feed,
        {{ entity_id(feed) }} as entity_id,
        op = 'delete' as is_deletion,
        changed_at,
        arrival_ts,
        stream_id,
        kafka_partition,
        kafka_offset,
        record_md5,
        {{ is_dated_ahead() }} as is_ahead,
        {{ 'pet_id' if 'pet_id' in attributes else 'cast(null as varchar)' }} as pet_id,
        {{ 'owner_id' if 'owner_id' in attributes else 'cast(null as varchar)' }} as owner_id,
        {{ 'visit_ts' if 'visit_ts' in attributes else 'changed_at' }} as happened_at,
        {{ 'dob' if 'dob' in attributes else 'cast(null as date)' }} as dob,
        {{ 'birth_year' if 'birth_year' in attributes else 'cast(null as integer)' }} as birth_year
    from {{ ref('stg_' ~ feed) }}
    where {{ is_touched("'" ~ feed ~ ":' || " ~ entity_id(feed), touched) }}
    {%- if not loop.last %}
    union all
    {%- endif %}
    {%- endfor %}
),

-- Records at one instant of one entity: the last in the order of changes wins.
ranked as (
    select
        feed,
        entity_id,
        changed_at,
        arrival_ts,
        stream_id,
        kafka_partition,
        kafka_offset,
        is_deletion,
        record_md5,
        first_value(stream_id) over (
            partition by feed, entity_id, changed_at order by {{ change_order(descending=true) }}
        ) as last_stream_id,
        first_value(is_deletion) over (
            partition by feed, entity_id, changed_at order by {{ change_order(descending=true) }}
        ) as last_is_deletion,
        first_value(record_md5) over (
            partition by feed, entity_id, changed_at order by {{ change_order(descending=true) }}
        ) as last_md5
    from records
    where not is_ahead
),

known_pets as (
    select
        pet_id,
        dob,
        birth_year
    from {{ ref('cur_pets') }}
    where is_current
),

known_owners as (
    select
        owner_id,
        is_deleted
    from {{ ref('cur_owners') }}
    where is_current
),

-- What each record says of a pet: a pet's own record of itself, any other of the pet it names.
statements as (
    select
        records.feed,
        records.entity_id,
        records.changed_at,
        records.arrival_ts,
        records.stream_id,
        records.kafka_partition,
        records.kafka_offset,
        records.happened_at,
        records.pet_id,
        records.owner_id,
        case when records.feed = 'pets' then records.dob else known_pets.dob end as dob,
        case when records.feed = 'pets' then records.birth_year else known_pets.birth_year end as birth_year,
        known_pets.pet_id is not null as is_known_pet
    from records
    left join known_pets on records.pet_id = known_pets.pet_id
    where not records.is_deletion
),

findings as (
    select
        {{ record }},
        'clock_ahead' as finding,
        true as is_set_aside,
        cast(null as varchar) as named_id
    from records
    where is_ahead
    union all
    select
        {{ record }},
        case when stream_id = last_stream_id then 'duplicate_key' else 'contradicted' end as finding,
        true as is_set_aside,
        cast(null as varchar) as named_id
    from ranked
    where is_deletion <> last_is_deletion or (not is_deletion and record_md5 <> last_md5)
    union all
    select
        {{ record }},
        'before_birth' as finding,
        false as is_set_aside,
        pet_id as named_id
    from statements
    where
        feed in ('pets', 'clinic_visits')
        and (
            dob > cast(happened_at as date)
            or (dob is null and birth_year > extract(year from happened_at))
        )
    union all
    select
        {{ record }},
        'unknown_pet' as finding,
        false as is_set_aside,
        pet_id as named_id
    from statements
    where pet_id is not null and not is_known_pet
    union all
    select
        statements.feed,
        statements.entity_id,
        statements.stream_id,
        statements.kafka_partition,
        statements.kafka_offset,
        statements.changed_at,
        statements.arrival_ts,
        'unknown_owner' as finding,
        false as is_set_aside,
        statements.owner_id as named_id
    from statements
    left join known_owners on statements.owner_id = known_owners.owner_id
    where statements.owner_id is not null and known_owners.owner_id is null
    union all
    -- The owner is gone and what the pet's history says now still names it: the last record that says so.
    select
        last_words.feed,
        last_words.entity_id,
        last_words.stream_id,
        last_words.kafka_partition,
        last_words.kafka_offset,
        last_words.changed_at,
        last_words.arrival_ts,
        'owner_gone' as finding,
        false as is_set_aside,
        last_words.owner_id as named_id
    from (
        select
            records.feed,
            records.entity_id,
            records.stream_id,
            records.kafka_partition,
            records.kafka_offset,
            records.changed_at,
            records.arrival_ts,
            records.owner_id
        from records
        inner join {{ ref('cur_pets') }} as pets
            on records.entity_id = pets.pet_id and records.record_md5 = pets.record_md5
        where records.feed = 'pets' and not records.is_deletion and pets.is_current and not pets.is_deleted
        qualify
            row_number() over (
                partition by records.entity_id
                order by records.is_ahead, {{ change_order(descending=true, alias='records') }}
            ) = 1
    ) as last_words
    inner join known_owners
        on last_words.owner_id = known_owners.owner_id and known_owners.is_deleted
)

select
    feed,
    entity_id,
    finding,
    is_set_aside,
    named_id,
    changed_at,
    arrival_ts,
    stream_id,
    kafka_partition,
    kafka_offset
from findings
