{# Hashes of typed columns: one encoding for change detection, surrogate keys
   and fingerprints. #}

{# Text of one typed value: integers and decimals as written, times as epoch
   microseconds, dates as ISO. `kind` is one of text, number, boolean, date,
   timestamp, json. #}
{% macro canonical_text(column, kind) -%}
    {%- if kind == 'text' -%}{{ return(column) }}
    {%- elif kind == 'timestamp' -%}{{ return("cast(" ~ epoch_us(column) ~ " as varchar)") }}
    {%- elif kind == 'date' -%}{{ return(iso_date(column)) }}
    {%- elif kind == 'json' -%}{{ return(json_text(column)) }}
    {%- elif kind in ('number', 'boolean') -%}{{ return("cast(" ~ column ~ " as varchar)") }}
    {%- else -%}
        {{ exceptions.raise_compiler_error("canonical_text: unknown kind '" ~ kind ~ "' of column " ~ column) }}
    {%- endif -%}
{%- endmacro %}

{# MD5 over typed columns, `fields` being a list of [column, kind]. Every value
   is written as <length>:<text> and null as ~, so that no two different rows
   share an encoding. #}
{% macro typed_md5(fields) -%}
    md5(
        {%- for column, kind in fields %}
        {%- set text = canonical_text(column, kind) %}
        {% if not loop.first %}|| {% endif %}coalesce(cast(length({{ text }}) as varchar) || ':' || {{ text }}, '~')
        {%- endfor %}
    )
{%- endmacro %}

{# Hash of an identifier that anl may show: stable within one salt, useless
   without it. Null stays null. The salt is read, never spelled out: SQL goes to
   logs. It is a secret and no data, so it is no source of the model's lineage. #}
{% macro salted_hash(column) -%}
    {%- set salts = api.Relation.create(database=target.database, schema='raw', identifier='hash_salt') -%}
    {{ sha256_hex("(select hash_salt.salt from " ~ salts ~ " as hash_salt) || ':' || " ~ column) }}
{%- endmacro %}
