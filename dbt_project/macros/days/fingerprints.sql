{# Fingerprints of the records that a day's tables read besides telemetry: sums
   of row hashes, so they depend on no order and add up over days. #}

{# A row's number, 0 to 2^64 - 1, from typed fields; 38 digits hold 5e18 of them. #}
{% macro row_number_of(fields) -%}
    {{ hex_to_number("substr(" ~ typed_md5(fields) ~ ", 1, 16)") }}
{%- endmacro %}

{# The running sum of `changes` (a CTE's body with change_date and hash_sum) at
   each row of the CTE `days` (event_date), or of the one named: one row per event
   date. It costs changes + days, however long each of them counts. #}
{% macro running_fingerprint(kind, days='days') -%}
    {%- set changes = caller() -%}
    select
        event_date,
        '{{ kind }}' as input_kind,
        hash_sum
    from (
        select
            change_date as event_date,
            is_day,
            sum(hash_sum) over (order by change_date) as hash_sum
        from (
            {{ changes | indent(12) }}
            union all
            select
                event_date as change_date,
                cast(0 as decimal(38, 0)) as hash_sum,
                true as is_day
            from {{ days }}
        ) as changes
    ) as running
    where is_day
{%- endmacro %}

{# One row per event date: what overlaps the day [valid_from, valid_to). A
   version's hash counts from the first day it overlaps to the last. #}
{% macro overlapping_fingerprint(kind, relation, fields, days='days') -%}
    {% call running_fingerprint(kind, days) -%}
    select
        cast(valid_from as date) as change_date,
        {{ row_number_of(fields) | indent(8) }} as hash_sum,
        false as is_day
    from {{ relation }}
    union all
    select
        {{ next_date("cast(" ~ microsecond_before('valid_to') ~ " as date)") }} as change_date,
        -{{ row_number_of(fields) | indent(8) }} as hash_sum,
        false as is_day
    from {{ relation }}
    where valid_to is not null
    {%- endcall %}
{%- endmacro %}

{# As overlapping_fingerprint, of what a day sees of a version: `fields` on each
   day it overlaps and, on a day within which it begins or ends, that moment
   too. A version that ends today leaves the fingerprints of its earlier days as
   they were; a bound that is itself read as a value is named in `fields`. #}
{% macro clipped_fingerprint(kind, relation, fields, days='days') -%}
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
    {{ overlapping_fingerprint(kind, pieces, fields + [['bound_kind', 'text'], ['bound_ts', 'timestamp']], days) }}
{%- endmacro %}

{# One row per event date: every record known at the day's end. `extracts` are
   part of it, because a complete extract states what is absent. #}
{% macro known_fingerprint(kind, feeds) -%}
    {% call running_fingerprint(kind) -%}
    select
        known_date as change_date,
        hash_sum,
        false as is_day
    from {{ ref('cur_record_days') }}
    where feed in ('{{ feeds | join("', '") }}')
    union all
    select
        {{ known_date('coalesce(arrival_ts, extracted_at)') }} as change_date,
        {{ row_number_of([['extract_id', 'text'], ['feed', 'text'], ['source_system', 'text'], ['complete', 'boolean'], ['extracted_at', 'timestamp']]) | indent(8) }} as hash_sum,
        false as is_day
    from {{ source('raw', 'extracts') }}
    where feed in ('{{ feeds | join("', '") }}')
    {%- endcall %}
{%- endmacro %}

{# The first day at whose end (midnight, inclusive) a record that arrived at
   `arrival` was known. #}
{% macro known_date(arrival) -%}
    cast({{ microsecond_before(arrival) }} as date)
{%- endmacro %}
