{# Days of tables with a retention limit that are in cold storage. `raw.cold_days`
   lists those that are not in the warehouse. A build brings a day back whole or
   not at all. #}

{# Post-hook, in the model's own transaction: days that were just built are in the
   warehouse. Runs before the model's own hooks, so that `model_days` still gives
   the days of this run. #}
{% macro forget_cold_days() -%}
    {%- if (config.get('meta') or {}).get('retention') -%}
    delete from {{ source('raw', 'cold_days') }}
    where table_name = '{{ this.schema }}.{{ this.identifier }}' and {{ date_in_days('event_date', model_days()) }}
    {%- endif -%}
{%- endmacro %}

{# Stop a model that would build `days` (none: every day) from a table that has one
   of them in cold storage only: it would read an empty day. That table comes
   first in every whole build and then holds them again. #}
{% macro refuse_cold_days(days) -%}
    {%- set inputs = [] -%}
    {%- for unique_id in (graph.nodes.get(model.unique_id) or {}).get('depends_on', {}).get('nodes', []) -%}
        {%- set node = graph.nodes.get(unique_id) or {} -%}
        {%- if node.get('config', {}).get('meta', {}).get('retention') -%}
            {%- do inputs.append(node['schema'] ~ '.' ~ node['alias']) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if inputs and load_relation(source('raw', 'cold_days')) -%}
        {%- set cold = run_query("
            select table_name, " ~ iso_date('min(event_date)') ~ " as first_date, count(*) as day_count
            from " ~ source('raw', 'cold_days') ~ "
            where table_name in ('" ~ inputs | join("', '") ~ "') and " ~ date_in_days('event_date', days) ~ "
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
