{# What was known when, along one axis: the state of each entity of `feed` at
   any moment t, from changes with changed_at <= t that were known by t. #}

{# One row per entity and span [known_from, known_to) in which the same change
   was the last known; spans in which the entity is deleted are left out.
   Columns: the id, `columns`, known_from, known_to (null: still so). `only`
   is a predicate on the change log. #}
{% macro known_history(feed, records, extracts, columns, only='true') -%}
{%- set id = entity_id(feed) -%}
with {{ change_log(feed, records, extracts, 'any') }},

    moments as (
        select
            {{ id }},
            greatest(known_from, changed_at) as known_from
        from change_log
        where {{ only }}
        union
        select
            {{ id }},
            superseded_at as known_from
        from change_log
        where superseded_at is not null and {{ only }}
    ),

    spans as (
        select
            {{ id }},
            known_from,
            lead(known_from) over (partition by {{ id }} order by known_from) as known_to
        from moments
    ),

    states as (
        select
            spans.{{ id }},
            spans.known_from,
            spans.known_to,
            change_log.is_deletion
            {%- for column in columns %},
            change_log.{{ column }}
            {%- endfor %}
        from spans
        inner join change_log
            on
                spans.{{ id }} = change_log.{{ id }}
                and spans.known_from >= change_log.known_from
                and spans.known_from >= change_log.changed_at
                and (change_log.superseded_at is null or change_log.superseded_at > spans.known_from)
        qualify
            row_number() over (
                partition by spans.{{ id }}, spans.known_from
                order by {{ change_order(descending=true, alias='change_log') }}
            ) = 1
    )

select
    {{ ([id] + columns) | join(',\n    ') }},
    known_from,
    known_to
from states
where not is_deletion
{%- endmacro %}

{# Predicate: `alias`, a row of known_history, was in force at `moment`. #}
{% macro known_at(alias, moment) -%}
{{ moment }} >= {{ alias }}.known_from and ({{ alias }}.known_to is null or {{ alias }}.known_to > {{ moment }})
{%- endmacro %}
