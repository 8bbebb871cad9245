{# Which days a build rebuilt, for those who come after it: the published copy
   and the checks look at these days only. #}

{# Pre-hook of every model: the embedded warehouse notes the days that a daily
   model is about to rebuild (a null date: all of them) in raw.rebuilt_days. It
   runs in the model's transaction and before the model, which would hide what
   has changed. #}
{% macro note_rebuilt_days() %}{{ return(adapter.dispatch('note_rebuilt_days', 'petwellness')()) }}{% endmacro %}
{% macro default__note_rebuilt_days() %}{% endmacro %}
{% macro duckdb__note_rebuilt_days() -%}
    {%- if execute and 'daily' in (config.get('tags') or []) and not own_schema() -%}
        {%- set days = model_days() -%}
        {%- set rows = [] -%}
        {%- for day in ([none] if days is none else days) -%}
            {%- set event_date = 'null' if day is none else "date '" ~ day ~ "'" -%}
            {%- do rows.append("('" ~ this.schema ~ "." ~ this.identifier ~ "', " ~ event_date ~ ", " ~ var('build_seq') ~ ")") -%}
        {%- endfor -%}
        {%- if rows -%}
            insert into raw.rebuilt_days (table_name, event_date, build_seq) values {{ rows | join(', ') }}
        {%- endif -%}
    {%- endif -%}
{%- endmacro %}
