{# What became of a visit. A source that states no status lists visits that took place. #}
{% macro visit_status(status='status') -%}
    coalesce({{ status }}, 'completed')
{%- endmacro %}

{# Predicate: a visit that took place. #}
{% macro is_completed_visit(status='status') -%}
    {{ visit_status(status) }} = 'completed'
{%- endmacro %}
