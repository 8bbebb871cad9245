{# Where a model lands: schemas are exactly stg, cur, anl, ml, and a model's
   name carries its layer (dbt names are unique in a project) while its table
   does not: cur_owners builds cur.owners. In a schema of one's own (a
   developer's, a pull request's) all layers are in one, so that there the table
   keeps the layer: dev_anna.cur_owners. #}

{# The developer's or pull request's schema that this build goes to; none: to the layers.

   Such a build reads the shared tables and changes none: it is whole, keeps no
   marks of what it was built from, and notes nothing in raw. #}
{% macro own_schema() -%}
    {{ return(none if target.schema == 'stg' else target.schema) }}
{%- endmacro %}

{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (own_schema() or custom_schema_name or target.schema) | trim }}
{%- endmacro %}

{% macro generate_alias_name(custom_alias_name=none, node=none) -%}
    {%- set prefix = node.config.schema ~ '_' -%}
    {%- if custom_alias_name -%}
        {{ custom_alias_name | trim }}
    {%- elif node.config.schema and node.name.startswith(prefix) and not own_schema() -%}
        {{ node.name[prefix | length:] }}
    {%- else -%}
        {{ node.name }}
    {%- endif -%}
{%- endmacro %}
