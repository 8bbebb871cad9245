{# Everything that DuckDB and Snowflake say differently. Models call these and
   never a dialect's own function. #}

{# Microseconds since 1970 as an integer. #}
{% macro epoch_us(expression) %}{{ return(adapter.dispatch('epoch_us', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__epoch_us(expression) %}{{ return("epoch_us(" ~ expression ~ ")") }}{% endmacro %}
{% macro snowflake__epoch_us(expression) %}{{ return("date_part(epoch_microsecond, " ~ expression ~ ")") }}{% endmacro %}

{# A date as YYYY-MM-DD whatever the session's format is. #}
{% macro iso_date(expression) %}{{ return(adapter.dispatch('iso_date', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__iso_date(expression) %}{{ return("strftime(" ~ expression ~ ", '%Y-%m-%d')") }}{% endmacro %}
{% macro snowflake__iso_date(expression) %}{{ return("to_char(" ~ expression ~ ", 'YYYY-MM-DD')") }}{% endmacro %}

{# Canonical text of a semi-structured column. #}
{% macro json_text(expression) %}{{ return(adapter.dispatch('json_text', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__json_text(expression) %}{{ return("cast(" ~ expression ~ " as varchar)") }}{% endmacro %}
{% macro snowflake__json_text(expression) %}{{ return("to_json(" ~ expression ~ ")") }}{% endmacro %}

{# A boolean, or a time written in ISO 8601, at a path of keys (`push.value`) of a
   semi-structured column; null where there is none. #}
{% macro json_boolean(expression, path) %}{{ return(adapter.dispatch('json_boolean', 'petwellness')(expression, path)) }}{% endmacro %}
{% macro duckdb__json_boolean(expression, path) %}{{ return("cast(json_extract_string(" ~ expression ~ ", '$." ~ path ~ "') as boolean)") }}{% endmacro %}
{% macro snowflake__json_boolean(expression, path) %}{{ return("cast(get_path(" ~ expression ~ ", '" ~ path ~ "') as boolean)") }}{% endmacro %}

{% macro json_timestamp(expression, path) %}{{ return(adapter.dispatch('json_timestamp', 'petwellness')(expression, path)) }}{% endmacro %}
{% macro duckdb__json_timestamp(expression, path) %}{{ return("cast(json_extract_string(" ~ expression ~ ", '$." ~ path ~ "') as timestamp)") }}{% endmacro %}
{% macro snowflake__json_timestamp(expression, path) %}{{ return("cast(cast(get_path(" ~ expression ~ ", '" ~ path ~ "') as varchar) as timestamp_ntz(6))") }}{% endmacro %}

{# A typed null for a semi-structured column. #}
{% macro json_type() %}{{ return(adapter.dispatch('json_type', 'petwellness')()) }}{% endmacro %}
{% macro duckdb__json_type() %}{{ return("json") }}{% endmacro %}
{% macro snowflake__json_type() %}{{ return("variant") }}{% endmacro %}

{# 64-bit hash used only to find candidates before an exact comparison: fast,
   not the same on both engines, never stored. #}
{% macro candidate_hash(columns) %}{{ return(adapter.dispatch('candidate_hash', 'petwellness')(columns)) }}{% endmacro %}
{% macro default__candidate_hash(columns) %}{{ return("hash(" ~ columns | join(", ") ~ ")") }}{% endmacro %}

{# 16 hexadecimal digits as an unsigned integer that sums without overflow in a 38-digit decimal. #}
{% macro hex_to_number(expression) %}{{ return(adapter.dispatch('hex_to_number', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__hex_to_number(expression) %}{{ return("cast(cast(('0x' || " ~ expression ~ ") as ubigint) as decimal(38, 0))") }}{% endmacro %}
{% macro snowflake__hex_to_number(expression) %}{{ return("to_number(" ~ expression ~ ", 'XXXXXXXXXXXXXXXX')") }}{% endmacro %}

{# SHA-256 in lower-case hexadecimal. #}
{% macro sha256_hex(expression) %}{{ return(adapter.dispatch('sha256_hex', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__sha256_hex(expression) %}{{ return("sha256(" ~ expression ~ ")") }}{% endmacro %}
{% macro snowflake__sha256_hex(expression) %}{{ return("sha2(" ~ expression ~ ", 256)") }}{% endmacro %}

{# The least microsecond step before a timestamp. #}
{% macro microsecond_before(expression) %}{{ return(adapter.dispatch('microsecond_before', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__microsecond_before(expression) %}{{ return("(" ~ expression ~ " - interval 1 microsecond)") }}{% endmacro %}
{% macro snowflake__microsecond_before(expression) %}{{ return("dateadd(microsecond, -1, " ~ expression ~ ")") }}{% endmacro %}

{# 24 hours after a timestamp. #}
{% macro day_after(expression) %}{{ return(adapter.dispatch('day_after', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__day_after(expression) %}{{ return("(" ~ expression ~ " + interval 24 hour)") }}{% endmacro %}
{% macro snowflake__day_after(expression) %}{{ return("dateadd(hour, 24, " ~ expression ~ ")") }}{% endmacro %}

{# The date after a date. #}
{% macro next_date(expression) %}{{ return(adapter.dispatch('next_date', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__next_date(expression) %}{{ return("cast(" ~ expression ~ " + 1 as date)") }}{% endmacro %}
{% macro snowflake__next_date(expression) %}{{ return("dateadd(day, 1, " ~ expression ~ ")") }}{% endmacro %}

{# A text as a literal. #}
{% macro text_literal(value) %}{{ return("'" ~ (value | string | replace("'", "''")) ~ "'") }}{% endmacro %}

{# Midnight `days` days after the start of a date. #}
{% macro midnight_after(expression, days=1) %}{{ return(adapter.dispatch('midnight_after', 'petwellness')(expression, days)) }}{% endmacro %}
{% macro duckdb__midnight_after(expression, days) %}{{ return("cast(" ~ expression ~ " + " ~ days ~ " as timestamp)") }}{% endmacro %}
{% macro snowflake__midnight_after(expression, days) %}{{ return("cast(dateadd(day, " ~ days ~ ", " ~ expression ~ ") as timestamp_ntz(6))") }}{% endmacro %}

{# Whole days from the first date to the second. #}
{% macro days_between(earlier, later) %}{{ return("datediff('day', " ~ earlier ~ ", " ~ later ~ ")") }}{% endmacro %}

{# Whole minutes from one time to a later one, both at whole minutes; negative where it is not later. #}
{% macro minutes_between(earlier, later) %}{{ return("datediff('minute', " ~ earlier ~ ", " ~ later ~ ")") }}{% endmacro %}

{# Sets of the minutes of an hour as the bits 0 to 59 of an integer. #}
{% macro minute_bit(timestamp) %}{{ return(adapter.dispatch('minute_bit', 'petwellness')(timestamp)) }}{% endmacro %}
{% macro duckdb__minute_bit(timestamp) %}{{ return("(cast(1 as bigint) << cast(extract(minute from " ~ timestamp ~ ") as integer))") }}{% endmacro %}
{% macro snowflake__minute_bit(timestamp) %}{{ return("bitshiftleft(1, extract(minute from " ~ timestamp ~ "))") }}{% endmacro %}

{# Union of sets, an aggregate; null of none. #}
{% macro bits_or(expression) %}{{ return(adapter.dispatch('bits_or', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__bits_or(expression) %}{{ return("bit_or(" ~ expression ~ ")") }}{% endmacro %}
{% macro snowflake__bits_or(expression) %}{{ return("bitor_agg(" ~ expression ~ ")") }}{% endmacro %}

{# Intersection of two sets. #}
{% macro bits_and(first, second) %}{{ return(adapter.dispatch('bits_and', 'petwellness')(first, second)) }}{% endmacro %}
{% macro duckdb__bits_and(first, second) %}{{ return("(" ~ first ~ " & " ~ second ~ ")") }}{% endmacro %}
{% macro snowflake__bits_and(first, second) %}{{ return("bitand(" ~ first ~ ", " ~ second ~ ")") }}{% endmacro %}

{# Size of a set. Snowflake counts no bits: its hexadecimal digits are counted by how many bits each has. #}
{% macro bit_count(expression) %}{{ return(adapter.dispatch('bit_count', 'petwellness')(expression)) }}{% endmacro %}
{% macro duckdb__bit_count(expression) %}{{ return("bit_count(" ~ expression ~ ")") }}{% endmacro %}
{% macro snowflake__bit_count(expression) -%}
    {%- set digits = "to_char(" ~ expression ~ ", 'XXXXXXXXXXXXXXX')" -%}
    {{ return(
        "(regexp_count(" ~ digits ~ ", '[1248]') + 2 * regexp_count(" ~ digits ~ ", '[3569AC]')"
        ~ " + 3 * regexp_count(" ~ digits ~ ", '[7BDE]') + 4 * regexp_count(" ~ digits ~ ", 'F'))"
    ) }}
{%- endmacro %}

{# How many different minutes of an hour the rows of a group fall into that meet `condition`. A bit for each
   minute costs one integer a group; counting distinct values costs a table. #}
{% macro distinct_minutes(expression, condition='true') -%}
    {{ return(bit_count(bits_or("case when " ~ condition ~ " then " ~ minute_bit(expression) ~ " else 0 end"))) }}
{%- endmacro %}

{# Whole hours that begin between two times. #}
{% macro hours_between(earlier, later) %}{{ return("datediff('hour', " ~ earlier ~ ", " ~ later ~ ")") }}{% endmacro %}

{# A time plus whole hours or minutes, which may be a column. #}
{% macro hours_after(expression, hours) %}{{ return(adapter.dispatch('hours_after', 'petwellness')(expression, hours)) }}{% endmacro %}
{% macro duckdb__hours_after(expression, hours) %}{{ return("(" ~ expression ~ " + to_hours(" ~ hours ~ "))") }}{% endmacro %}
{% macro snowflake__hours_after(expression, hours) %}{{ return("dateadd(hour, " ~ hours ~ ", " ~ expression ~ ")") }}{% endmacro %}

{% macro minutes_after(expression, minutes) %}{{ return(adapter.dispatch('minutes_after', 'petwellness')(expression, minutes)) }}{% endmacro %}
{% macro duckdb__minutes_after(expression, minutes) %}{{ return("(" ~ expression ~ " + to_minutes(" ~ minutes ~ "))") }}{% endmacro %}
{% macro snowflake__minutes_after(expression, minutes) %}{{ return("dateadd(minute, " ~ minutes ~ ", " ~ expression ~ ")") }}{% endmacro %}

{# Statements as one transaction, so that nobody reads between a deletion and what
   takes its place. dbt opens one around a model on DuckDB, where hooks share it; on
   Snowflake every statement is its own, and hooks come after: what they note is
   missing after a crash in between, and the next run builds again. #}
{% macro in_one_transaction(dml) %}{{ return(adapter.dispatch('in_one_transaction', 'petwellness')(dml)) }}{% endmacro %}
{% macro duckdb__in_one_transaction(dml) %}{{ return(dml) }}{% endmacro %}
{% macro snowflake__in_one_transaction(dml) %}{{ return(snowflake_dml_explicit_transaction(dml)) }}{% endmacro %}

{# The time on the clocks of `zone` at a UTC time, and back; neither has a zone. `zone` is an expression: an IANA name
   that cur_timezones has. #}
{% macro local_ts(expression, zone) %}{{ return(adapter.dispatch('local_ts', 'petwellness')(expression, zone)) }}{% endmacro %}
{% macro duckdb__local_ts(expression, zone) %}{{ return("timezone(" ~ zone ~ ", timezone('UTC', " ~ expression ~ "))") }}{% endmacro %}
{% macro snowflake__local_ts(expression, zone) %}{{ return("convert_timezone('UTC', " ~ zone ~ ", " ~ expression ~ ")") }}{% endmacro %}

{% macro utc_ts(local, zone) %}{{ return(adapter.dispatch('utc_ts', 'petwellness')(local, zone)) }}{% endmacro %}
{% macro duckdb__utc_ts(local, zone) %}{{ return("timezone('UTC', timezone(" ~ zone ~ ", " ~ local ~ "))") }}{% endmacro %}
{% macro snowflake__utc_ts(local, zone) %}{{ return("convert_timezone(" ~ zone ~ ", 'UTC', " ~ local ~ ")") }}{% endmacro %}
