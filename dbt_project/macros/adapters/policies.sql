{# Who sees what on Snowflake. A column says in its YAML what it is,

     meta: {pii: true}             a direct identifier of a person: masked
     meta: {row_filter: clinic}    the clinic whose people may see the row

   and every table that dbt creates has the policies of schema `governance` from
   its first moment: they stand in the statement that creates it, since a policy
   goes with the table that is replaced, and one put on afterwards would leave the
   new table open until then. The policies are infrastructure/snowflake's. #}

{# The emulator knows no policies. Told by the account, not by a switch, so that on
   an account nobody can leave them out. #}
{% macro has_policies() -%}
    {{ return(target.type == 'snowflake' and target.account | lower != 'fakesnow') }}
{%- endmacro %}

{# What a column's YAML says of it under `key`; none: nothing. #}
{% macro column_meta(column, key) -%}
    {{ return(((column.get('config') or {}).get('meta') or {}).get(key)) }}
{%- endmacro %}

{# The policy that hides a column's values, which have to be of its type. #}
{% macro mask_of(column) -%}
    {%- set masks = {'varchar': 'hide_text', 'variant': 'hide_variant'} -%}
    {%- if column['data_type'] not in masks -%}
        {%- do exceptions.raise_compiler_error(
            "no mask hides " ~ model.alias ~ "." ~ column['name'] ~ " (" ~ column['data_type']
            ~ "): add one to infrastructure/snowflake/config/petwellness/governance and to mask_of"
        ) -%}
    {%- endif -%}
    {{ return('governance.' ~ masks[column['data_type']]) }}
{%- endmacro %}

{# The column by which the model at hand shows clinics their own rows; none: it shows them nothing. #}
{% macro clinic_column() -%}
    {%- for column in model.columns.values() if column_meta(column, 'row_filter') == 'clinic' -%}
        {{ return(column['name']) }}
    {%- endfor -%}
    {{ return(none) }}
{%- endmacro %}

{# dbt's column list of a table with a contract, with the policies. What an increment
   creates is a temporary table, which its session alone sees and reads. #}
{% macro snowflake__get_table_columns_and_constraints() -%}
    {%- if not has_policies() or is_incremental() -%}
        {{ return(table_columns_and_constraints()) }}
    {%- endif -%}
    {%- set parts = [] -%}
    {%- set columns = model['columns'].values() | list -%}
    {%- for definition in adapter.render_raw_columns_constraints(raw_columns=model['columns']) -%}
        {%- set column = columns[loop.index0] -%}
        {%- set mask = ' with masking policy ' ~ mask_of(column) if column_meta(column, 'pii') else '' -%}
        {%- do parts.append(definition ~ mask) -%}
    {%- endfor -%}
    {%- do parts.extend(adapter.render_raw_model_constraints(raw_constraints=model['constraints'])) -%}
    {%- set row_filter = ' with row access policy governance.own_clinic on (' ~ clinic_column() ~ ')' if clinic_column() else '' -%}
    {{ return('(\n    ' ~ parts | join(',\n    ') ~ '\n)' ~ row_filter) }}
{%- endmacro %}

{# Post-hook of every model: what a clinic may see is a view of its own in schema
   `clinic`, over a table that carries the row filter. Users of one clinic read that
   schema and nothing else, so a table without a filter is out of their reach, and
   grants on single tables, which go with a table that is replaced, are not needed.
   A build into somebody's own schema shows clinics nothing. #}
{% macro show_clinics_their_rows() %}{{ return(adapter.dispatch('show_clinics_their_rows', 'petwellness')()) }}{% endmacro %}
{% macro default__show_clinics_their_rows() %}{% endmacro %}
{% macro snowflake__show_clinics_their_rows() -%}
    {%- if execute and has_policies() and clinic_column() and not own_schema() -%}
        create or replace secure view {{ api.Relation.create(database=this.database, schema='clinic', identifier=this.identifier) }} as
        select {{ model.columns.keys() | join(', ') }} from {{ this }}
    {%- endif -%}
{%- endmacro %}
