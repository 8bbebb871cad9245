{# What account usage says of a statement: every statement of a node carries, as
   JSON, the run it belongs to, the asset and node it was for, and dbt's target.
   `governance.account_usage.costs` adds credits up by them. Names only: a tag is kept for a year. #}

{% macro query_tag() -%}
    {%- set built = graph.nodes.get(model.get('attached_node') or '') or model -%}
    {#- In a schema of one's own the table's name has its layer, too; an asset's key does not. -#}
    {%- set layer = built.config.schema or built.schema -%}
    {%- set table = built.alias[layer | length + 1:] if built.alias.startswith(layer ~ '_') else built.alias -%}
    {{ return(tojson({
        'app': 'dbt',
        'run': var('run_id') or invocation_id,
        'asset': none if built.resource_type == 'test' else layer ~ '/' ~ table,
        'node': model.unique_id,
        'target': target.name,
    })) }}
{%- endmacro %}

{# dbt-snowflake asks the session for the tag before; it is the profile's, always. #}
{% macro snowflake__set_query_tag() -%}
    {%- do run_query("alter session set query_tag = " ~ text_literal(query_tag())) -%}
    {{ return(target.query_tag) }}
{%- endmacro %}

{% macro snowflake__unset_query_tag(original_query_tag) -%}
    {%- do run_query("alter session set query_tag = " ~ text_literal(original_query_tag)) -%}
{%- endmacro %}
