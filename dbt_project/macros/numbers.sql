{# Doubles appear only here: in the last ratio, from exact sums and counts. #}

{# Ratio as a double; null when either side is null or the divisor is zero. #}
{% macro ratio_of(numerator, denominator) -%}
    cast({{ numerator }} as double) / nullif(cast({{ denominator }} as double), 0)
{%- endmacro %}

{# Mean from a sum and a count; null when nothing was measured. #}
{% macro mean_of(total, measurements) -%}
    {{ ratio_of(total, measurements) }}
{%- endmacro %}
