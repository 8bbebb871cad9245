{# Generic tests on keys and nulls. One test looks at several columns in one
   scan: on 2.4 million rows a test per column costs more than the models. With
   `date_column` only the days that the run tests are looked at. #}

{% test unique_combination(model, columns, date_column=none) %}
{% set in_days = date_in_days(date_column, tested_days()) if date_column else 'true' %}
-- A hash finds candidates without grouping text over all rows.
with repeated_hashes as (
    select {{ candidate_hash(columns) }} as key_hash
    from {{ model }}
    where {{ in_days }}
    group by key_hash
    having count(*) > 1
)

select {{ columns | join(', ') }}, count(*) as row_count
from {{ model }}
where
    {{ in_days }}
    and {{ candidate_hash(columns) }} in (select repeated_hashes.key_hash from repeated_hashes)
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{% test not_null_columns(model, columns, date_column=none) %}
select {{ columns | join(', ') }}
from {{ model }}
where
    {{ date_in_days(date_column, tested_days()) if date_column else 'true' }}
    and ({% for column in columns %}{{ column }} is null{% if not loop.last %} or {% endif %}{% endfor %})
{% endtest %}

{# Every value of `columns` lies in [low, high]; nulls pass. `ranges` maps a column to [low, high]. #}
{% test values_within(model, ranges, date_column=none) %}
select {{ ranges.keys() | join(', ') }}
from {{ model }}
where
    {{ date_in_days(date_column, tested_days()) if date_column else 'true' }}
    and (
        {%- for column, bounds in ranges.items() %}
        {% if not loop.first %}or {% endif %}{{ column }} not between {{ bounds[0] }} and {{ bounds[1] }}
        {%- endfor %}
    )
{% endtest %}

{# Every value of `columns` is one of its accepted ones; nulls pass. `accepted` maps a column to its list. #}
{% test values_among(model, accepted, date_column=none) %}
select {{ accepted.keys() | join(', ') }}
from {{ model }}
where
    {{ date_in_days(date_column, tested_days()) if date_column else 'true' }}
    and (
        {%- for column, values in accepted.items() %}
        {% if not loop.first %}or {% endif %}{{ column }} not in ('{{ values | join("', '") }}')
        {%- endfor %}
    )
{% endtest %}

{# Every value of `column` is an `id_column` of the relation `to`; nulls pass. #}
{% test known_ids(model, column, to, id_column, date_column=none) %}
select distinct {{ column }}
from {{ model }}
where
    {{ date_in_days(date_column, tested_days()) if date_column else 'true' }}
    and {{ column }} not in (select known.{{ id_column }} from {{ to }} as known where known.{{ id_column }} is not null)
{% endtest %}
