{# How a table is built on the embedded warehouse: with as few statements as it takes. dbt's own
   materializations serve every kind of table that DuckDB knows, and look columns up, rename and
   drop in statements of their own: they made up half of a small build. Snowflake's are dbt's. #}

{% materialization table, adapter='duckdb' %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks) }}
    {% call statement('main') -%}
        {{ replace_table_sql(target_relation, compiled_code) }}
    {%- endcall %}
    {{ run_hooks(post_hooks) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{% materialization incremental, adapter='duckdb' %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set is_new = load_cached_relation(this) is none or should_full_refresh() -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks) }}
    {% if is_new %}
        {% call statement('main') -%}
            {{ replace_table_sql(target_relation, compiled_code) }}
        {%- endcall %}
    {% else %}
        {% set columns = unchanged_columns(target_relation, compiled_code) %}
        {% if nothing_to_replace() %}
            {% call noop_statement('main', 'nothing to replace', 'SKIP') -%}
                {{ compiled_code }}
            {%- endcall %}
        {% else %}
            {% set temp_relation = make_temp_relation(target_relation) %}
            {% set strategy = adapter.get_incremental_strategy_macro(context, config.get('incremental_strategy')) %}
            {% call statement('main') -%}
                create temporary table {{ temp_relation }} as (
                    {{ compiled_code }}
                );
                {{ strategy({'target_relation': target_relation, 'temp_relation': temp_relation, 'dest_columns': columns}) }};
                drop table {{ temp_relation }}
            {%- endcall %}
        {% endif %}
    {% endif %}
    {{ run_hooks(post_hooks) }}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}

{% macro replace_table_sql(relation, sql) -%}
    drop table if exists {{ relation }};
    {{ create_table_as(False, relation, sql) }}
{%- endmacro %}

{# Columns of a table that an increment goes into: those that its contract, if it has one, its SQL and
   the table agree on. Fails where they don't. #}
{% macro unchanged_columns(relation, sql) -%}
    {%- set selected = names_with_types(columns_of(sql)) -%}
    {%- if config.get('contract').enforced -%}{%- do refuse_broken_contract(sql, selected) -%}{%- endif -%}
    {%- set columns = columns_of('select * from ' ~ relation) -%}
    {%- set held = names_with_types(columns) -%}
    {%- if selected | sort != held | sort -%}
        {%- do exceptions.raise_compiler_error(
            relation ~ " has other columns than its model: the table alone has ["
            ~ held | reject('in', selected) | join(', ') ~ "], the model alone ["
            ~ selected | reject('in', held) | join(', ') ~ "]. `petwellness rebuild --yes` builds it anew"
        ) -%}
    {%- endif -%}
    {{ return(columns) }}
{%- endmacro %}

{# Columns of a query, which may end with a comment: the adapter puts its bracket into the last line. #}
{% macro columns_of(sql) -%}
    {{ return(adapter.get_column_schema_from_query(sql ~ '\n')) }}
{%- endmacro %}

{# ['name type', ...], in the engine's own words. #}
{% macro names_with_types(columns) -%}
    {%- set found = [] -%}
    {%- for column in columns -%}{%- do found.append(column.name | lower ~ ' ' ~ column.dtype) -%}{%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{# Whether this run has nothing that would take the place of rows of the model at hand: no day to rebuild, and of none
   of its feeds a new record. A model that adds days after its last one finds them by its own query. #}
{% macro nothing_to_replace() -%}
    {%- set records = (config.get('meta') or {}).get('records') -%}
    {%- if records -%}{{ return(brings_nothing(records['feeds'])) }}{%- endif -%}
    {{ return(
        config.get('incremental_strategy') == 'replace_days'
        and model_days() == []
        and 'macro.petwellness.after_last_day_of_this' not in model.depends_on.macros
    ) }}
{%- endmacro %}

{# dbt's comparison of a contract with the model's SQL. DuckDB is asked for its own name of each declared type once
   in an invocation, and not for each model's declared columns again; what differs dbt says. #}
{% macro duckdb__get_assert_columns_equivalent(sql) -%}
    {%- do refuse_broken_contract(sql, names_with_types(columns_of(sql))) -%}
{%- endmacro %}

{% macro refuse_broken_contract(sql, selected) -%}
    {%- set types = graph.setdefault('own_types', {}).setdefault(invocation_id, {}) -%}
    {%- set unknown = model.columns.values() | map(attribute='data_type') | reject('in', types) | unique | list -%}
    {%- if unknown and none not in unknown -%}
        {%- for column in columns_of(nulls_of_types(unknown)) -%}
            {%- do types.update({unknown[loop.index0]: column.dtype}) -%}
        {%- endfor -%}
    {%- endif -%}
    {%- set declared = [] -%}
    {%- for column in model.columns.values() -%}
        {%- do declared.append(column.name | lower ~ ' ' ~ types.get(column.data_type)) -%}
    {%- endfor -%}
    {%- if selected | sort != declared | sort -%}
        {%- do assert_columns_equivalent(sql) -%}
    {%- endif -%}
{%- endmacro %}

{% macro nulls_of_types(types) -%}
    select {% for type in types %}cast(null as {{ type }}) as type_{{ loop.index }}{% if not loop.last %}, {% endif %}{% endfor %}
{%- endmacro %}
