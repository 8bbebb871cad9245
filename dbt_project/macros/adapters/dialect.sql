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
