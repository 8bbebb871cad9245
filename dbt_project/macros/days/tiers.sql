{# Days of tables with a retention limit that are in cold storage: `raw.cold_days`
   lists those that are not in the warehouse. A build brings a day back whole, from
   the rows that stg keeps, or stops. #}

{# Days of a table with a limit that are in cold storage and that a model reading it
   builds in this run, for its own inputs' sake; so they have to be built here first.
   [] for a model without a limit. #}
{% macro missed_days(unique_id) -%}
    {%- set node = graph.nodes.get(unique_id) or {} -%}
    {%- set missed = [] -%}
    {%- if has_limit(node) and has_cold_days() -%}
        {%- set cold = run_query("
            select " ~ iso_date('event_date') ~ " as event_date
            from " ~ source('raw', 'cold_days') ~ "
            where table_name = '" ~ full_table_name(node) ~ "'
        ").columns[0].values() | map('string') | list -%}
        {%- for reader in graph.nodes.values() if cold and reader.resource_type == 'model' and unique_id in reader.depends_on.nodes -%}
            {%- set inputs = (reader.config.meta or {}).get('inputs', []) -%}
            {%- if inputs -%}
                {%- set changed = run_query(changed_inputs_sql(inputs, full_table_name(reader))) -%}
                {%- do missed.extend(changed.columns[0].values() | map('string') | select('in', cold)) -%}
            {%- endif -%}
            {%- do missed.extend(missed_days(reader.unique_id) | select('in', cold)) -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(missed) }}
{%- endmacro %}

{# Pre-hook: stop a model that would be built from a table whose day is in cold
   storage only, since it would read an empty day. In a whole build that table comes
   first and has the day again. #}
{% macro refuse_cold_days() -%}
    {%- set inputs = [] -%}
    {%- for unique_id in model.depends_on.nodes if execute -%}
        {%- set node = graph.nodes.get(unique_id) or {} -%}
        {%- if has_limit(node) -%}
            {%- do inputs.append(full_table_name(node)) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if inputs and has_cold_days() -%}
        {%- set cold = run_query("
            select table_name, " ~ iso_date('min(event_date)') ~ " as first_date, count(*) as day_count
            from " ~ source('raw', 'cold_days') ~ "
            where table_name in ('" ~ inputs | join("', '") ~ "') and " ~ date_in_days('event_date', model_days()) ~ "
            group by table_name
        ") -%}
        {%- for row in cold.rows -%}
            {%- do exceptions.raise_compiler_error(
                this ~ " would be built without " ~ row[2] ~ " days of " ~ row[0] ~ " that are in cold storage, from "
                ~ row[1] ~ " on: build that table with it, or `petwellness restore` them"
            ) -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{# Post-hook, in the model's own transaction: days that were just built are in the
   warehouse. #}
{% macro forget_cold_days() -%}
    {%- if execute and has_limit(model) and not own_schema() -%}
    delete from {{ source('raw', 'cold_days') }}
    where table_name = '{{ full_table_name(model) }}' and {{ date_in_days('event_date', model_days()) }};
    {%- endif -%}
{%- endmacro %}

{# Whether any day was in cold storage when this invocation began: builds only bring days back. #}
{% macro has_cold_days() -%}
    {%- if not load_relation(source('raw', 'cold_days')) -%}{{ return(false) }}{%- endif -%}
    {{ return(rows_once("select table_name from " ~ source('raw', 'cold_days') ~ " limit 1") | length > 0) }}
{%- endmacro %}

{# Whether a node of the project states how long its days stay in the warehouse. #}
{% macro has_limit(node) -%}
    {{ return(((node.get('config') or {}).get('meta') or {}).get('retention') is not none) }}
{%- endmacro %}

{% macro full_table_name(node) -%}
    {{ return(node['schema'] ~ '.' ~ node['alias']) }}
{%- endmacro %}
