{# Disjoint spans of a device's time, made from its assignments. #}

{# CTEs ending in `segments`: which pet wore which device in [segment_from,
   segment_to). `assignments` is a relation or CTE with device_id, pet_id,
   assignment_id, assigned_from, assigned_to. An open assignment ends where a
   later one of the same device begins. A span that several pets claim is
   ambiguous and has no pet. segment_to is 9999-12-31 when open. `per` names
   further columns to partition by (the day at which this was known). Consent
   and erasure have the same rule (ingestion/collector/attribution.py, held
   equal by a test). #}
{% macro device_segments(assignments, per=[]) -%}
    {%- set keys = per + ['device_id'] -%}
    {%- set by_key = keys | join(', ') -%}
    starts as (
        select
            {{ by_key }},
            assigned_from,
            lead(assigned_from) over (partition by {{ by_key }} order by assigned_from) as next_assigned_from
        from (
            select distinct {{ by_key }}, assigned_from
            from {{ assignments }}
        ) as distinct_starts
    ),

    clipped as (
        select
            {% for key in keys %}assignments.{{ key }}, {% endfor %}
            assignments.pet_id,
            assignments.assignment_id,
            assignments.assigned_from,
            coalesce(
                assignments.assigned_to, starts.next_assigned_from, timestamp '9999-12-31 00:00:00'
            ) as assigned_to
        from {{ assignments }} as assignments
        inner join starts
            on
                assignments.assigned_from = starts.assigned_from
                {%- for key in keys %}
                and assignments.{{ key }} = starts.{{ key }}
                {%- endfor %}
    ),

    intervals as (
        select {{ by_key }}, pet_id, assignment_id, assigned_from, assigned_to
        from clipped
        where assigned_from < assigned_to
    ),

    boundaries as (
        select {{ by_key }}, assigned_from as boundary_ts from intervals
        union
        select {{ by_key }}, assigned_to as boundary_ts from intervals
    ),

    spans as (
        select
            {{ by_key }},
            boundary_ts as segment_from,
            lead(boundary_ts) over (partition by {{ by_key }} order by boundary_ts) as segment_to
        from boundaries
    ),

    segments as (
        select
            {% for key in keys %}spans.{{ key }}, {% endfor %}
            spans.segment_from,
            spans.segment_to,
            case when count(distinct intervals.pet_id) = 1 then min(intervals.pet_id) end as pet_id,
            case when count(distinct intervals.pet_id) = 1 then min(intervals.assignment_id) end as assignment_id,
            case when count(distinct intervals.pet_id) = 1 then 'assigned' else 'ambiguous' end as pet_resolution
        from spans
        inner join intervals
            on
                spans.segment_from >= intervals.assigned_from
                and spans.segment_to <= intervals.assigned_to
                {%- for key in keys %}
                and spans.{{ key }} = intervals.{{ key }}
                {%- endfor %}
        group by {% for key in keys %}spans.{{ key }}, {% endfor %}spans.segment_from, spans.segment_to
    )
{%- endmacro %}

{# CTEs ending in `merged`: spans [valid_from, valid_to) of `key`, contiguous and
   open at the end, made from the CTE `states`, whose rows say what `columns` are
   from `moment` on. Neighbours that are equal in all columns are one span. #}
{% macro merged_neighbours(states, key, moment, columns) -%}
    compared as (
        select
            {{ key }},
            {{ moment }} as valid_from,
            {%- for column in columns %}
            {{ column }},
            lag({{ column }}) over (partition by {{ key }} order by {{ moment }}) as previous_{{ column }},
            {%- endfor %}
            row_number() over (partition by {{ key }} order by {{ moment }}) as ordinal
        from {{ states }}
    ),

    merged as (
        select
            {{ key }},
            {%- for column in columns %}
            {{ column }},
            {%- endfor %}
            valid_from,
            lead(valid_from) over (partition by {{ key }} order by valid_from) as valid_to
        from compared
        where
            ordinal = 1
            {%- for column in columns %}
            or {{ column }} is distinct from previous_{{ column }}
            {%- endfor %}
    )
{%- endmacro %}
