{# Slowly changing dimensions, type 2, computed from the full change log: the
   same log gives the same history, however late its records came and in
   whatever runs they were loaded. #}

{# The history of `feed`: one row per entity and version, [valid_from,
   valid_to), contiguous from the first version on. Several changes at one
   instant: the last in the order of changes wins. Neighbours that are equal are
   one, and so are deleted ones; the change that first said it opens the version.
   A deletion is a version with is_deleted that carries the attributes last said
   before it; one before any content is no version.
   With `known_at` (a SQL timestamp) it is the history as it was known then;
   with `touched` (SQL of ids) only that of those entities. #}
{% macro scd2_history(feed, records, extracts, known_at=none, touched=none) -%}
{%- set id = entity_id(feed) -%}
{%- set attributes = entity_attributes(feed) -%}
{%- set state_columns = (
    [id, 'changed_at', 'is_deletion', 'ingested_at', 'source_system', 'record_md5', 'content_ordinal']
) | join(',\n            ') -%}
with {{ change_log(feed, records, extracts, known_at, touched) }},

    ordered_changes as (
        select
            {{ change_log_columns(feed) }},
            row_number() over (partition by {{ id }} order by {{ change_order() }}) as ordinal
        from change_log
    ),

    compared_changes as (
        select
            {{ id }},
            changed_at,
            is_deletion,
            ingested_at,
            source_system,
            record_md5,
            ordinal,
            lag(is_deletion) over (partition by {{ id }} order by ordinal) as previous_is_deletion,
            lag(record_md5) over (partition by {{ id }} order by ordinal) as previous_md5
        from ordered_changes
    ),

    -- Changes that say something else than the one before. A deletion among them follows its last content.
    turns as (
        select
            {{ id }},
            changed_at,
            is_deletion,
            ingested_at,
            source_system,
            record_md5,
            case when is_deletion then ordinal - 1 else ordinal end as content_ordinal,
            row_number() over (partition by {{ id }}, changed_at order by ordinal desc) as from_last_at_instant
        from compared_changes
        where {{ says_something_else() }}
    ),

    compared_states as (
        select
            {{ state_columns }},
            lag(is_deletion) over (partition by {{ id }} order by changed_at) as previous_is_deletion,
            lag(record_md5) over (partition by {{ id }} order by changed_at) as previous_md5
        from turns
        where from_last_at_instant = 1
    ),

    openings as (
        select
            {{ state_columns }},
            lead(changed_at) over (partition by {{ id }} order by changed_at) as next_changed_at
        from compared_states
        where previous_is_deletion is null or {{ says_something_else() }}
    )

select
    {{ typed_md5([['openings.' ~ id, 'text'], ['openings.changed_at', 'timestamp']]) | indent(4) }} as {{ id | replace('_id', '_sk') }},
    openings.{{ id }},
    {%- for column, kind, sql_type in attributes %}
    contents.{{ column }},
    {%- endfor %}
    openings.changed_at as valid_from,
    openings.next_changed_at as valid_to,
    openings.next_changed_at is null as is_current,
    openings.is_deletion as is_deleted,
    openings.source_system,
    contents.record_md5,
    openings.ingested_at as created_at
from openings
inner join ordered_changes as contents
    on openings.{{ id }} = contents.{{ id }} and openings.content_ordinal = contents.ordinal
{%- endmacro %}

{# Predicate: a change, or a state, says something else than the one before it, of which previous_is_deletion and
   previous_md5 tell. Without one before it only content does. #}
{% macro says_something_else() -%}
    (
            case
                when is_deletion then not coalesce(previous_is_deletion, true)
                else coalesce(previous_is_deletion, true) or previous_md5 <> record_md5
            end
        )
{%- endmacro %}

{# The feeds whose whole histories are kept; of the others cur has the present state. #}
{% macro histories() -%}
    {{ return(['owners', 'pets', 'devices', 'clinics', 'device_assignments', 'clinic_visits']) }}
{%- endmacro %}

{# A model of the histories of `feed`. #}
{% macro history_model(feed) -%}
{{ record_model([feed], entity_id(feed), after=['stg.' ~ feed]) }}
{{ scd2_history(feed, ref('stg_' ~ feed), source('raw', 'extracts'), touched=touched_keys()) }}
{%- endmacro %}

{# A model of the present state of `feed`: the current version of what exists. #}
{% macro current_state_model(feed) -%}
{{ record_model([feed], entity_id(feed), after=['stg.' ~ feed]) }}
with history as (
    {{ scd2_history(feed, ref('stg_' ~ feed), source('raw', 'extracts'), touched=touched_keys()) | indent(4) }}
)

select
    {{ entity_id(feed) }},
    {%- for column in attribute_names(feed) %}
    {{ column }},
    {%- endfor %}
    valid_from as changed_at,
    source_system,
    record_md5,
    created_at
from history
where is_current and not is_deleted
{%- endmacro %}

{# CTE `<name>`: of every entity of `feed` and every row of the CTE `days`
   (event_date, end_ts) the version in force at end_ts as it was known at
   end_ts; deleted ones left out. Reads the CTE `change_log` made with
   known_at='any'; `only` is a predicate that limits it. #}
{% macro known_versions(feed, name, only='true') -%}
    {%- set id = entity_id(feed) -%}
    {{ name }}_ranked as (
        select
            days.event_date,
            days.end_ts,
            change_log.is_deletion,
            change_log.{{ id }},
            {%- for column, kind, sql_type in entity_attributes(feed) %}
            change_log.{{ column }},
            {%- endfor %}
            row_number() over (
                partition by days.event_date, change_log.{{ id }}
                order by {{ change_order(descending=true, alias='change_log') }}
            ) as from_last
        from days
        inner join change_log
            on
                days.end_ts >= change_log.known_from
                and days.end_ts >= change_log.changed_at
                and (change_log.superseded_at is null or change_log.superseded_at > days.end_ts)
        where {{ only }}
    ),

    {{ name }} as (
        select
            event_date,
            end_ts,
            {{ ([id] + attribute_names(feed)) | join(',\n            ') }}
        from {{ name }}_ranked
        where from_last = 1 and not is_deletion
    )
{%- endmacro %}
