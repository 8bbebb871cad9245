{# Doubles appear only here: in the last ratio, from exact sums and counts. #}

{# Ratio as a double; null when either side is null or the divisor is zero. #}
{% macro ratio_of(numerator, denominator) -%}
    cast({{ numerator }} as double) / nullif(cast({{ denominator }} as double), 0)
{%- endmacro %}

{# Mean from a sum and a count; null when nothing was measured. #}
{% macro mean_of(total, measurements) -%}
    {{ ratio_of(total, measurements) }}
{%- endmacro %}

{# How many times a positive integer goes into another that is not negative, as an integer: without a double, so that
   it is the same on both engines. #}
{% macro whole_times(number, divisor) -%}
    cast(({{ number }} - mod({{ number }}, {{ divisor }})) / {{ divisor }} as integer)
{%- endmacro %}
