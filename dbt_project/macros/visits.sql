{# Predicate: a visit that took place. A source that states no status lists visits that did. #}
{% macro is_completed_visit() -%}
    coalesce(status, 'completed') = 'completed'
{%- endmacro %}
