{# Post-hook of every model and seed: the table has the columns that its YAML declares
   and no other. What a YAML leaves out nobody decided of, and readers' copy would not
   have. A model with a contract is compared by dbt, before it is built. #}
{% macro refuse_undeclared_columns() -%}
    {%- if execute and not model.config.get('contract', {}).get('enforced') -%}
        {%- set declared = model.columns.keys() | map('lower') | list -%}
        {%- set found = get_columns_in_relation(this) | map(attribute='name') | map('lower') | list -%}
        {%- set undeclared = found | reject('in', declared) | list -%}
        {%- set absent = declared | reject('in', found) | list -%}
        {%- if undeclared or absent -%}
            {%- set file = (model.patch_path or model.original_file_path).split('://') | last -%}
            {%- set wrong = [] -%}
            {%- if undeclared -%}{%- do wrong.append('has columns that its YAML does not declare: ' ~ undeclared | join(', ')) -%}{%- endif -%}
            {%- if absent -%}{%- do wrong.append('lacks columns that its YAML declares: ' ~ absent | join(', ')) -%}{%- endif -%}
            {%- do exceptions.raise_compiler_error(model.name ~ ' ' ~ wrong | join('; ') ~ '. Mend ' ~ file) -%}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
