{# Records of one feed from raw to a change log.

   `staged_records` cleans a raw feed and sets exact repeats aside;
   `change_log` adds the deletions and returns that complete extracts imply.
   Histories themselves are in scd2.sql. #}

{# The order of changes (contracts.md, Histories). #}
{% macro change_order(descending=false, alias='') -%}
    {%- set suffix = ' desc' if descending else '' -%}
    {%- set prefix = alias ~ '.' if alias else '' -%}
    {%- for column in ['changed_at', 'arrival_ts', 'stream_id', 'kafka_partition', 'kafka_offset'] -%}
        {{ prefix }}{{ column }}{{ suffix }}{% if not loop.last %}, {% endif %}
    {%- endfor -%}
{%- endmacro %}

{# The order of complete extracts of one source and feed, in which neighbours are found: that of changes. #}
{% macro extract_order() -%}
    extracted_at, coalesce(arrival_ts, extracted_at), stream_id
{%- endmacro %}

{# Predicate: a record dated more than a day after it was received. #}
{% macro is_dated_ahead(alias='') -%}
    {%- set prefix = alias ~ '.' if alias else '' -%}
    {{ prefix }}changed_at > {{ day_after(prefix ~ 'arrival_ts') }}
{%- endmacro %}

{# Every raw record of a feed, cleaned, with `record_md5` over its attributes
   and `repeat_number`: 1 for the record that stays, more for its exact
   repeats (same key, operation, content and times; for a snapshot also the
   same extract, because being in the next extract is a statement). The last
   in the order of changes stays, so that removing the others cannot change
   which of several changes at one instant wins. `touched` limits it to records
   received at those instants (increments.sql). #}
{% macro cleaned_records(feed, touched=none) -%}
    {%- set id = entity_id(feed) -%}
    {%- set same_record -%}
        partition by source_system, {{ id }}, op, changed_at, extracted_at, arrival_ts, record_md5, snapshot_stream_id
                order by {{ change_order(descending=true) }}
    {%- endset -%}
    {%- set attributes = entity_attributes(feed) -%}
    {%- set fields = [] -%}
    {%- for column, kind, sql_type in attributes -%}{%- do fields.append([column, kind]) -%}{%- endfor %}
    cleaned as (
        select
            stream_id,
            kafka_partition,
            kafka_offset,
            arrival_ts,
            ingested_at,
            source_system,
            op,
            changed_at,
            extracted_at,
            {{ id }}
            {%- for column, kind, sql_type in attributes %},
            {{ clean_attribute(column, kind, sql_type) }} as {{ column }}
            {%- endfor %}
        from {{ source('raw', feed) }}
        where {{ is_touched('arrival_ts', touched) }}
    ),

    hashed as (
        select
            cleaned.*,
            case when op = 'snapshot' then stream_id end as snapshot_stream_id,
            {{ typed_md5(fields) | indent(8) }} as record_md5
        from cleaned
    ),

    numbered as (
        select
            hashed.*,
            row_number() over (
                {{ same_record }}
            ) as repeat_number,
            first_value(stream_id) over (
                {{ same_record }}
            ) as kept_stream_id,
            first_value(kafka_partition) over (
                {{ same_record }}
            ) as kept_kafka_partition,
            first_value(kafka_offset) over (
                {{ same_record }}
            ) as kept_kafka_offset
        from hashed
    )
{%- endmacro %}

{# A staging model: the records of `feed` that stay. #}
{% macro staged_records(feed) -%}
{{ record_model([feed], 'arrival_ts') }}
with {{ cleaned_records(feed, touched_keys()) }}

select
    {{ entity_id(feed) }},
    {%- for column, kind, sql_type in entity_attributes(feed) %}
    {{ column }},
    {%- endfor %}
    op,
    changed_at,
    extracted_at,
    arrival_ts,
    ingested_at,
    source_system,
    stream_id,
    kafka_partition,
    kafka_offset,
    record_md5
from numbered
where repeat_number = 1
{%- endmacro %}

{# The columns of a change log of `feed`. #}
{% macro change_log_columns(feed) -%}
    {%- set columns = [
        entity_id(feed), 'changed_at', 'arrival_ts', 'stream_id', 'kafka_partition', 'kafka_offset',
        'is_deletion', 'ingested_at', 'source_system', 'record_md5', 'known_from', 'superseded_at',
    ] + attribute_names(feed) -%}
    {{ columns | join(',\n            ') }}
{%- endmacro %}

{# CTEs ending in `change_log`: one row per change of an entity of `feed`: a
   staged record, or what two neighbouring complete extracts of the same source
   say of an entity that only one of them has, at the later's extracted_at.
   One in the earlier alone is deleted; one in the later alone is there, with the
   content of its row, whenever the source last changed it. Columns: the id,
   change_order's columns, is_deletion, ingested_at, source_system, record_md5
   and attributes (null on deletions), known_from, superseded_at.

   Known from known_from on: the record's arrival_ts; of a derived change the
   moment at which both extracts were known. superseded_at: when an extract
   lying between the two became known, so that they were neighbours no longer.
   Limited to known_from <= t and (superseded_at null or > t) it is the change
   log as it was known at t.

   A record dated more than a day after it was received tells of a wrong clock
   and is no change (cur.record_findings has it); its entity counts as present.

   `known_at` (a SQL timestamp) applies that limit here; 'any' leaves it to the
   reader; without it everything that is known by now counts. `touched` limits
   the log to those entities. #}
{% macro change_log(feed, records, extracts, known_at=none, touched=none) -%}
    {%- set id = entity_id(feed) -%}
    touched_records as (
        select
            {{ ([id] + attribute_names(feed)) | join(',\n            ') }},
            op,
            changed_at,
            arrival_ts,
            ingested_at,
            source_system,
            stream_id,
            kafka_partition,
            kafka_offset,
            record_md5
        from {{ records }}
        where {{ is_touched(id, touched) }}
    ),

    ordered_extracts as (
        select
            source_system,
            stream_id,
            extracted_at,
            claimed_at,
            row_count,
            coalesce(arrival_ts, extracted_at) as arrival_ts,
            row_number() over (partition by source_system order by {{ extract_order() }}) as position
        from {{ extracts }}
        where feed = '{{ feed }}' and complete
    ),

    {% if known_at is none -%}
    neighbours as (
        select
            source_system,
            lag(stream_id) over (partition by source_system order by position) as earlier_stream_id,
            stream_id as later_stream_id,
            extracted_at,
            arrival_ts,
            claimed_at,
            row_count,
            greatest(
                arrival_ts, lag(arrival_ts) over (partition by source_system order by position)
            ) as known_from,
            cast(null as timestamp) as superseded_at
        from ordered_extracts
    ),
    {%- else -%}
    -- Every earlier extract of each, with the moment the nearer ones became known.
    extract_pairs as (
        select
            later.source_system,
            earlier.stream_id as earlier_stream_id,
            later.stream_id as later_stream_id,
            later.extracted_at,
            later.arrival_ts,
            later.claimed_at,
            later.row_count,
            greatest(earlier.arrival_ts, later.arrival_ts) as known_from,
            min(earlier.arrival_ts) over (
                partition by later.source_system, later.position
                order by earlier.position desc
                rows between unbounded preceding and 1 preceding
            ) as between_known_from
        from ordered_extracts as later
        inner join ordered_extracts as earlier
            on later.source_system = earlier.source_system and later.position > earlier.position
    ),

    neighbours as (
        select
            source_system,
            earlier_stream_id,
            later_stream_id,
            extracted_at,
            arrival_ts,
            claimed_at,
            row_count,
            known_from,
            between_known_from as superseded_at
        from extract_pairs
        where between_known_from is null or between_known_from > known_from
    ),
    {%- endif %}

    snapshot_keys as (
        select distinct stream_id, {{ id }}
        from touched_records
        where op = 'snapshot'
    ),

    absences as (
        select
            earlier_keys.{{ id }},
            neighbours.source_system,
            neighbours.later_stream_id,
            neighbours.extracted_at,
            neighbours.arrival_ts,
            neighbours.claimed_at,
            neighbours.row_count,
            neighbours.known_from,
            neighbours.superseded_at
        from neighbours
        inner join snapshot_keys as earlier_keys on neighbours.earlier_stream_id = earlier_keys.stream_id
        left join snapshot_keys as later_keys
            on neighbours.later_stream_id = later_keys.stream_id and earlier_keys.{{ id }} = later_keys.{{ id }}
        where later_keys.{{ id }} is null
    ),

    -- Of several rows of an entity the last counts; a wrong clock is not later than a right one.
    presences as (
        select
            later_rows.{{ id }},
            {%- for column in attribute_names(feed) %}
            later_rows.{{ column }},
            {%- endfor %}
            later_rows.stream_id,
            later_rows.kafka_offset,
            later_rows.ingested_at,
            later_rows.source_system,
            later_rows.record_md5,
            neighbours.extracted_at,
            neighbours.arrival_ts,
            neighbours.known_from,
            neighbours.superseded_at
        from neighbours
        inner join touched_records as later_rows
            on neighbours.later_stream_id = later_rows.stream_id and later_rows.op = 'snapshot'
        left join snapshot_keys as earlier_keys
            on neighbours.earlier_stream_id = earlier_keys.stream_id and later_rows.{{ id }} = earlier_keys.{{ id }}
        where neighbours.earlier_stream_id is not null and earlier_keys.{{ id }} is null
        qualify
            row_number() over (
                partition by neighbours.earlier_stream_id, later_rows.stream_id, later_rows.{{ id }}
                order by ({{ is_dated_ahead('later_rows') }}), {{ change_order(descending=true, alias='later_rows') }}
            ) = 1
    ),

    every_change as (
        select
            {{ id }},
            changed_at,
            arrival_ts,
            stream_id,
            kafka_partition,
            kafka_offset,
            op = 'delete' as is_deletion,
            ingested_at,
            source_system,
            record_md5,
            {%- for column, kind, sql_type in entity_attributes(feed) %}
            {{ column }},
            {%- endfor %}
            arrival_ts as known_from,
            cast(null as timestamp) as superseded_at
        from touched_records
        where not ({{ is_dated_ahead() }})
        union all
        select
            {{ id }},
            extracted_at as changed_at,
            arrival_ts,
            later_stream_id as stream_id,
            0 as kafka_partition,
            -- After the extract's own rows, whose offsets are their row numbers.
            row_count as kafka_offset,
            true as is_deletion,
            claimed_at as ingested_at,
            source_system,
            cast(null as varchar) as record_md5,
            {%- for column, kind, sql_type in entity_attributes(feed) %}
            cast(null as {{ sql_type }}) as {{ column }},
            {%- endfor %}
            known_from,
            superseded_at
        from absences
        union all
        select
            {{ id }},
            extracted_at as changed_at,
            arrival_ts,
            stream_id,
            0 as kafka_partition,
            kafka_offset,
            false as is_deletion,
            ingested_at,
            source_system,
            record_md5,
            {%- for column in attribute_names(feed) %}
            {{ column }},
            {%- endfor %}
            known_from,
            superseded_at
        from presences
    ),

    change_log as (
        select
            {{ change_log_columns(feed) }}
        from every_change
        {%- if known_at is not none and known_at != 'any' %}
        where known_from <= {{ known_at }} and (superseded_at is null or superseded_at > {{ known_at }})
        {%- endif %}
    )
{%- endmacro %}
