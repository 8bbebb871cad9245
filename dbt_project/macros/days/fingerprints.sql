{# Fingerprints of the records that a day's tables read besides telemetry: sums
   of row hashes, so they depend on no order and add up over days. #}

{# A row's number, 0 to 2^64 - 1, from typed fields; 38 digits hold 5e18 of them. #}
{% macro row_number_of(fields) -%}
    {{ hex_to_number("substr(" ~ typed_md5(fields) ~ ", 1, 16)") }}
{%- endmacro %}

{# One row per event date: what overlaps the day [valid_from, valid_to). #}
{% macro overlapping_fingerprint(kind, relation, fields) -%}
    select
        days.event_date,
        '{{ kind }}' as input_kind,
        coalesce(sum(versions.row_hash), 0) as hash_sum
    from days
    left join (
        select valid_from, valid_to, {{ row_number_of(fields) | indent(12) }} as row_hash
        from {{ relation }}
    ) as versions
        on days.end_ts > versions.valid_from and (versions.valid_to is null or versions.valid_to > days.start_ts)
    group by days.event_date
{%- endmacro %}

{# As overlapping_fingerprint, of what a day sees of a version: `fields` on each
   day it overlaps and, on a day within which it begins or ends, that moment
   too. A version that ends today leaves the fingerprints of its earlier days as
   they were; a bound that is itself read as a value is named in `fields`. #}
{% macro clipped_fingerprint(kind, relation, fields) -%}
    {%- set columns = fields | map(attribute=0) | join(', ') -%}
    {%- set pieces -%}
    (
        select {{ columns }}, valid_from, valid_to, 'all' as bound_kind, cast(null as timestamp) as bound_ts
        from {{ relation }}
        union all
        select {{ columns }}, valid_from, {{ midnight_after('cast(valid_from as date)') }}, 'begin', valid_from
        from {{ relation }}
        where valid_from > cast(cast(valid_from as date) as timestamp)
        union all
        select {{ columns }}, cast(cast(valid_to as date) as timestamp), valid_to, 'end', valid_to
        from {{ relation }}
        where valid_to > cast(cast(valid_to as date) as timestamp)
    ) as pieces
    {%- endset -%}
    {{ overlapping_fingerprint(kind, pieces, fields + [['bound_kind', 'text'], ['bound_ts', 'timestamp']]) }}
{%- endmacro %}

{# One row per event date: every record known at the day's end. `extracts` are
   part of it, because a complete extract states what is absent. #}
{% macro known_fingerprint(kind, feeds) -%}
    select
        days.event_date,
        '{{ kind }}' as input_kind,
        coalesce(sum(arrivals.hash_sum), 0) as hash_sum
    from days
    left join (
        select known_date, sum(row_hash) as hash_sum
        from (
            {% for feed in feeds %}
            select
                {{ known_date('arrival_ts') }} as known_date,
                {{ row_number_of([['source_system', 'text'], [entity_id(feed), 'text'], ['op', 'text'], ['changed_at', 'timestamp'], ['arrival_ts', 'timestamp'], ['record_md5', 'text'], ['stream_id', 'text'], ['kafka_partition', 'number'], ['kafka_offset', 'number']]) | indent(16) }} as row_hash
            from {{ ref('stg_' ~ feed) }}
            union all
            {% endfor %}
            select
                {{ known_date('extracted_at') }} as known_date,
                {{ row_number_of([['extract_id', 'text'], ['feed', 'text'], ['source_system', 'text'], ['complete', 'boolean'], ['extracted_at', 'timestamp']]) | indent(16) }} as row_hash
            from {{ source('raw', 'extracts') }}
            where feed in ('{{ feeds | join("', '") }}')
        ) as rows_known
        group by known_date
    ) as arrivals
        on days.event_date >= arrivals.known_date
    group by days.event_date
{%- endmacro %}

{# The first day at whose end (midnight, inclusive) a record that arrived at
   `arrival` was known. #}
{% macro known_date(arrival) -%}
    cast({{ microsecond_before(arrival) }} as date)
{%- endmacro %}
