{# Increments of record models: a run rewrites what new loads touched and
   nothing else. A model says in meta.records

     feeds  whose records it is made of,
     key    its column by which touched rows are found and replaced,
     after  the record models it reads, as schema.table; none: it reads raw.

   It remembers in raw.build_marks, in its own transaction, up to which load it
   was built, so that a run that died is made up for by the next. Loads and
   builds share one pool and never run at once. Marks and ledger are the
   build's own bookkeeping and no input: they are read at run time only. #}

{% macro record_model(feeds, key, after=[]) -%}
    {{ config(
        materialized='incremental',
        incremental_strategy='replace_touched',
        on_schema_change='fail',
        meta={'records': {'feeds': feeds, 'key': key, 'after': after}},
        post_hook=['{{ record_build_mark() }}']
    ) }}
{%- endmacro %}

{# SQL: the newest load that the model at hand can take in. A model that reads
   others goes as far as the least of them; null while one has no mark. #}
{% macro newest_load_sql() -%}
    {%- set after = config.get('meta')['records']['after'] -%}
    {%- if after -%}
        select case when count(*) = {{ after | length }} then min(load_seq) end as load_seq
        from {{ source('raw', 'build_marks') }}
        where mark in ('{{ after | join("', '") }}')
    {%- else -%}
        select coalesce(max(load_seq), 0) as load_seq
        from (
            select load_seq from {{ source('raw', 'load_history') }}
            union all
            select load_seq from {{ source('raw', 'redactions') }}
        ) as loads
    {%- endif -%}
{%- endmacro %}

{% macro record_build_mark() -%}
    {%- if execute and not own_schema() -%}
        delete from {{ source('raw', 'build_marks') }} where mark = '{{ this.schema }}.{{ this.identifier }}';
        insert into {{ source('raw', 'build_marks') }} (mark, load_seq)
        select '{{ this.schema }}.{{ this.identifier }}', newest.load_seq
        from ({{ newest_load_sql() }}) as newest
        where newest.load_seq is not null
    {%- endif -%}
{%- endmacro %}

{# Rows of a query on ledgers and marks, asked once in an invocation. A model asks several times for its touched keys,
   and others for the same loads; while dbt runs nothing is loaded, and a model's mark moves when it is built.
   dbt's `graph` is one dictionary for all of its nodes. #}
{% macro rows_once(query) -%}
    {%- set asked = graph.setdefault('rows_once', {}).setdefault(invocation_id, {}) -%}
    {%- if query not in asked -%}{%- do asked.update({query: run_query(query).rows}) -%}{%- endif -%}
    {{ return(asked[query]) }}
{%- endmacro %}

{# The loads this run takes in, [after, up to and with]; none: the model is
   built whole, because it is new, somebody asked, or a redaction took rows out
   of raw since, of which nothing is left that could say whose they were. #}
{% macro loads_to_take_in() -%}
    {%- if not execute or not is_incremental() or var('dirty_days') is none or own_schema() -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set found = rows_once(
        "select (select max(load_seq) from " ~ source('raw', 'build_marks')
        ~ " where mark = '" ~ this.schema ~ "." ~ this.identifier ~ "') as built_load, ("
        ~ newest_load_sql() ~ ") as newest_load, (select max(load_seq) from " ~ source('raw', 'redactions')
        ~ ") as redacted_load"
    )[0] -%}
    {%- if found[0] is none or found[1] is none or (found[2] or 0) > found[0] -%}
        {{ return(none) }}
    {%- endif -%}
    {{ return([found[0] | int, found[1] | int]) }}
{%- endmacro %}

{# Ranges of `feed` that `loads` brought, neighbours joined:
   [[stream_id, kafka_partition, start_offset, end_offset], ...]. #}
{% macro loaded_ranges(feed, loads) -%}
    {%- set rows = rows_once(
        "select stream_id, kafka_partition, start_offset, end_offset from " ~ source('raw', 'load_history')
        ~ " where feed = '" ~ feed ~ "' and load_seq > " ~ loads[0] ~ " and load_seq <= " ~ loads[1]
        ~ " order by stream_id, kafka_partition, start_offset, end_offset"
    ) -%}
    {%- set ranges = [] -%}
    {%- for stream_id, partition, first, after_last in rows -%}
        {%- set last = ranges[-1] if ranges else none -%}
        {%- if last and last[0] == stream_id and last[1] == partition | int and last[3] >= first | int -%}
            {%- do ranges.append([last[0], last[1], last[2], [last[3], after_last | int] | max]) -%}
            {%- do ranges.pop(-2) -%}
        {%- else -%}
            {%- do ranges.append([stream_id, partition | int, first | int, after_last | int]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(ranges) }}
{%- endmacro %}

{# The rest of `select ... from <relation> as records`: only records in `ranges`.
   The streams and the widest bounds of offsets are there for the scan, which
   skips row groups by them. #}
{% macro only_in_ranges(ranges) -%}
    {%- if not ranges -%}where false
    {%- else -%}
        inner join (
            values
            {%- for stream_id, partition, first, after_last in ranges %}
            ({{ text_literal(stream_id) }}, {{ partition }}, {{ first }}, {{ after_last }})
            {%- if not loop.last %}, {% endif %}
            {%- endfor %}
        ) as loaded (stream_id, kafka_partition, start_offset, end_offset)
            on
                records.stream_id = loaded.stream_id
                and records.kafka_partition = loaded.kafka_partition
                and records.kafka_offset >= loaded.start_offset
                and records.kafka_offset < loaded.end_offset
        {%- set streams = [] -%}
        {%- for range in ranges -%}
            {%- do streams.append(text_literal(range[0])) if text_literal(range[0]) not in streams -%}
        {%- endfor %}
        where
            records.stream_id in ({{ streams | join(', ') }})
            and records.kafka_offset >= {{ ranges | map(attribute=2) | min }}
            and records.kafka_offset < {{ ranges | map(attribute=3) | max }}
    {%- endif -%}
{%- endmacro %}

{# Pairs of complete extracts of `feed` between which changes are derived since
   `loads`, or are no longer, because another came between: [[earlier stream,
   later stream], ...]. #}
{% macro changed_neighbours(feed, loads) -%}
    {%- set rows = rows_once(
        "select source_system, stream_id, load_seq from ("
        ~ "select extracts.source_system, extracts.stream_id, extracts.extracted_at, extracts.arrival_ts,"
        ~ " max(history.load_seq) as load_seq from "
        ~ source('raw', 'extracts') ~ " as extracts inner join " ~ source('raw', 'load_history')
        ~ " as history on extracts.stream_id = history.stream_id and extracts.feed = history.feed"
        ~ " where extracts.complete and extracts.feed = '" ~ feed ~ "' and history.load_seq <= " ~ loads[1]
        ~ " group by extracts.source_system, extracts.stream_id, extracts.extracted_at, extracts.arrival_ts"
        ~ ") as loaded order by source_system, " ~ extract_order()
    ) -%}
    {%- set pairs = [] -%}
    {%- set last = {} -%}
    {%- set last_known = {} -%}
    {%- for source_system, stream_id, load_seq in rows -%}
        {%- set is_new = load_seq | int > loads[0] -%}
        {%- set before = last.get(source_system) -%}
        {%- set known_before = last_known.get(source_system) -%}
        {%- if before and (is_new or before != known_before) -%}
            {%- do pairs.append([before, stream_id]) -%}
        {%- endif -%}
        {%- if not is_new -%}
            {%- if known_before and before != known_before -%}
                {%- do pairs.append([known_before, stream_id]) -%}
            {%- endif -%}
            {%- do last_known.update({source_system: stream_id}) -%}
        {%- endif -%}
        {%- do last.update({source_system: stream_id}) -%}
    {%- endfor -%}
    {{ return(pairs) }}
{%- endmacro %}

{# Whether the loads that this run takes in have nothing of any of these feeds; false where the model is built whole. #}
{% macro brings_nothing(feeds) -%}
    {%- set loads = loads_to_take_in() -%}
    {%- if loads is none -%}{{ return(false) }}{%- endif -%}
    {%- for feed in feeds if loaded_ranges(feed, loads) or changed_neighbours(feed, loads) -%}
        {{ return(false) }}
    {%- endfor -%}
    {{ return(true) }}
{%- endmacro %}

{# SQL: days at whose ends new records became known; none: everything. #}
{% macro touched_dates(feeds) -%}
    {%- set loads = loads_to_take_in() -%}
    {%- if loads is none -%}{{ return(none) }}{%- endif -%}
    {%- set parts = [] -%}
    {%- for feed in feeds -%}
        {%- set ranges = loaded_ranges(feed, loads) -%}
        {%- if ranges -%}
            {%- do parts.append(
                "select " ~ known_date('records.arrival_ts') ~ " as known_date from " ~ ref('stg_' ~ feed)
                ~ " as records " ~ only_in_ranges(ranges)
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(parts | join(" union all ") or "select cast(null as date) as known_date where false") }}
{%- endmacro %}

{# SQL: times of receipt of new records. Exact repeats share theirs, so staging
   looks again at what was received at those instants and at nothing else. none: everything. #}
{% macro touched_instants(feeds) -%}
    {%- set loads = loads_to_take_in() -%}
    {%- if loads is none -%}{{ return(none) }}{%- endif -%}
    {%- set parts = [] -%}
    {%- for feed in feeds -%}
        {%- set ranges = loaded_ranges(feed, loads) -%}
        {%- if ranges -%}
            {%- do parts.append(
                "select records.arrival_ts from " ~ source('raw', feed) ~ " as records " ~ only_in_ranges(ranges)
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(parts | join(" union all ") or "select cast(null as timestamp) as arrival_ts where false") }}
{%- endmacro %}

{# SQL: entities of `feed` whose history may differ since the model at hand was
   built; none: all of them. They are those with a new record and those that
   one of two neighbouring complete extracts has and the other has not, for
   pairs that are new or no longer neighbours.

   `versions` is the model of the feed's versions as built so far. With it a
   record that says again, inside a version, what that version says touches
   nothing: a nightly extract of everything then touches only what changed. #}
{% macro touched_entities(feed, versions=none) -%}
    {%- set loads = loads_to_take_in() -%}
    {%- if loads is none -%}{{ return(none) }}{%- endif -%}
    {%- set id = entity_id(feed) -%}
    {%- set pairs = changed_neighbours(feed, loads) -%}
    {%- set sql -%}
        select records.{{ id }}
        from (
            select
                records.{{ id }},
                records.op,
                records.changed_at,
                records.record_md5
            from {{ ref('stg_' ~ feed) }} as records
            {{ only_in_ranges(loaded_ranges(feed, loads)) | indent(12) }}
        ) as records
        {%- if versions %}
        left join {{ versions }} as versions
            on
                records.{{ id }} = versions.{{ id }}
                and records.record_md5 = versions.record_md5
                and records.op <> 'delete'
                {%- if feed in histories() %}
                and records.changed_at > versions.valid_from
                and (versions.valid_to is null or records.changed_at < versions.valid_to)
                and not versions.is_deleted
                {%- else %}
                and records.changed_at > versions.changed_at
                {%- endif %}
        where versions.{{ id }} is null
        {%- endif %}
        {%- if pairs %}
        union all
        select keys.{{ id }}
        from (
            values
            {%- for earlier, later in pairs %}
            ({{ loop.index }}, {{ text_literal(earlier) }}), ({{ loop.index }}, {{ text_literal(later) }})
            {%- if not loop.last %},{% endif %}
            {%- endfor %}
        ) as pairs (pair_number, stream_id)
        inner join {{ ref('stg_' ~ feed) }} as keys
            on pairs.stream_id = keys.stream_id and keys.op = 'snapshot'
        group by pairs.pair_number, keys.{{ id }}
        having count(distinct keys.stream_id) = 1
        {%- endif %}
    {%- endset -%}
    {{ return(sql) }}
{%- endmacro %}

{# SQL: devices that any record of a touched assignment names; none: all of them. #}
{% macro touched_devices() -%}
    {%- set assignments = touched_entities('device_assignments') -%}
    {%- if assignments is none -%}{{ return(none) }}{%- endif -%}
    {{ return(
        "select records.device_id from " ~ ref('stg_device_assignments')
        ~ " as records where records.assignment_id in (" ~ assignments ~ ")"
    ) }}
{%- endmacro %}

{# SQL: pets with a new record, and those that any record of a touched visit names; none: all of them. #}
{% macro touched_pet_contexts() -%}
    {%- set pets = touched_entities('pets') -%}
    {%- if pets is none -%}{{ return(none) }}{%- endif -%}
    {{ return(
        pets ~ " union all select records.pet_id from " ~ ref('stg_clinic_visits')
        ~ " as records where records.visit_id in (" ~ touched_entities('clinic_visits') ~ ")"
    ) }}
{%- endmacro %}

{# SQL: devices whose assignments were touched, and those that such a pet wears or wore; none: all of them. #}
{% macro touched_device_contexts() -%}
    {%- set devices = touched_devices() -%}
    {%- if devices is none -%}{{ return(none) }}{%- endif -%}
    {{ return(
        devices ~ " union all select intervals.device_id from " ~ ref('cur_device_pet_intervals')
        ~ " as intervals where intervals.pet_id in (" ~ touched_pet_contexts() ~ ")"
    ) }}
{%- endmacro %}

{# SQL: keys of cur.record_findings that new records touch; none: all of them.
   A finding is about a record, its entity's other records, and the pet or owner that it names. #}
{% macro touched_findings(feeds) -%}
    {%- set parts = [] -%}
    {%- for feed in feeds -%}
        {%- set entities = touched_entities(feed) -%}
        {%- if entities is none -%}{{ return(none) }}{%- endif -%}
        {%- do parts.append(touched_finding_keys(feed, entity_id(feed), entities)) -%}
        {%- for named in ('pets', 'owners') -%}
            {%- if entity_id(named) in attribute_names(feed) -%}
                {%- do parts.append(touched_finding_keys(feed, entity_id(named), touched_entities(named))) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(parts | join(" union all ")) }}
{%- endmacro %}

{# The column, or expression, by which rows of cur.record_findings are replaced. #}
{% macro finding_key() -%}
    {{ return("feed || ':' || entity_id") }}
{%- endmacro %}

{% macro touched_finding_keys(feed, column, ids) -%}
    {{ return(
        "select '" ~ feed ~ ":' || records." ~ entity_id(feed) ~ " as finding_key from " ~ ref('stg_' ~ feed)
        ~ " as records where records." ~ column ~ " in (" ~ ids ~ ")"
    ) }}
{%- endmacro %}

{# Predicate: the model's key is among `touched`, a query or none. #}
{% macro is_touched(key, touched) -%}
    {%- if touched is none -%}true
    {%- else -%}{{ key }} in ({{ touched }})
    {%- endif -%}
{%- endmacro %}

{# `with`, and the CTE `touched` for models that ask for touched keys more than once; `touched_in_cte` is its SQL. #}
{% macro with_touched(key, touched) -%}
with
    {%- if touched is not none %} touched as (
    select keys.{{ key }}
    from ({{ touched }}) as keys
),
    {%- endif %}
{%- endmacro %}

{% macro touched_in_cte(key, touched) -%}
    {{ return(none if touched is none else 'select touched.' ~ key ~ ' from touched') }}
{%- endmacro %}

{# Incremental strategy replace_touched: delete the touched rows, insert what
   the model selected for them. The model's SQL holds `touched_keys()` too. #}
{% macro get_incremental_replace_touched_sql(arg_dict) -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') -%}
    {%- set dml -%}
    delete from {{ arg_dict['target_relation'] }}
    where {{ is_touched(config.get('meta')['records']['key'], touched_keys()) }};
    insert into {{ arg_dict['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }}
    {%- endset -%}
    {{ return(in_one_transaction(dml)) }}
{%- endmacro %}

{# SQL: which keys new loads touched, by what the model at hand is kept by; none: all of them. A key that is not
   known here is an error: rows found by another one would be replaced, and those that changed would stay. #}
{% macro touched_keys() -%}
    {%- set records = (config.get('meta') or {}).get('records') -%}
    {%- if not records -%}{{ return(none) }}
    {%- elif records['key'] == 'arrival_ts' -%}{{ return(touched_instants(records['feeds'])) }}
    {%- elif records['key'] == finding_key() -%}{{ return(touched_findings(records['feeds'])) }}
    {%- elif records['key'] == 'known_date' -%}{{ return(touched_dates(records['feeds'])) }}
    {%- elif records['key'] == 'pet_id' and 'clinic_visits' in records['feeds'] -%}{{ return(touched_pet_contexts()) }}
    {%- elif records['key'] == 'device_id' and 'pets' in records['feeds'] -%}{{ return(touched_device_contexts()) }}
    {%- elif records['key'] == entity_id(records['feeds'][0]) -%}
        {{ return(touched_entities(records['feeds'][0], this)) }}
    {%- elif records['key'] == 'device_id' and 'device_assignments' in records['feeds'] -%}
        {{ return(touched_devices()) }}
    {%- else -%}
        {{ exceptions.raise_compiler_error(
            "touched_keys: " ~ this ~ " is kept by '" ~ records['key'] ~ "' of " ~ records['feeds'] | join(', ')
            ~ ", and nothing says which of these new loads touch: name a key of record_model() that touched_keys()"
            ~ " in macros/histories/increments.sql knows, or add it there"
        ) }}
    {%- endif -%}
{%- endmacro %}
