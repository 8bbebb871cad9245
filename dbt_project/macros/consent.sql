{# How consent flags are read: the one rule of the models, the same as in
   contracts/consent.py. The last said value of a flag holds; a record
   that does not mention it changes nothing, and neither does a deletion. A flag
   that was never said is no, but for analytics, where a setting decides. #}

{# Purposes of consent that are channels of messages. #}
{% macro message_channels() -%}
    {{ return(['push', 'sms', 'email']) }}
{%- endmacro %}

{# Every purpose of consent. #}
{% macro consent_flags() -%}
    {{ return(['analytics', 'share_research'] + message_channels()) }}
{%- endmacro %}

{# Whether a flag is a yes, from what was said of it last (null: nothing ever).
   The platform says what silence is for analytics; a dbt that was told nothing
   takes it for a refusal. #}
{% macro allows(flag, last_said) -%}
    {%- set analytics_default = env_var('PETWELLNESS_CONSENT_ANALYTICS_DEFAULT', 'refuse') -%}
    {%- if analytics_default not in ['allow', 'refuse'] -%}
        {{ exceptions.raise_compiler_error(
            "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT is '" ~ analytics_default ~ "': set it to allow or refuse"
        ) }}
    {%- endif -%}
    {%- set silence = flag == 'analytics' and analytics_default == 'allow' -%}
    coalesce({{ last_said }}, {{ 'true' if silence else 'false' }})
{%- endmacro %}

{# CTE `consent_statements`: one row per record of an owner and flag that it says
   yes or no to. said_at: from when on that holds, for a record dated more than
   a day after its receipt (a wrong clock) from its receipt. is_first_record: the
   record is the first that there is of its owner. #}
{% macro consent_statements() -%}
    dated_records as (
        select
            owner_id,
            op,
            consent_flags,
            case when changed_at > {{ day_after('arrival_ts') }} then arrival_ts else changed_at end as said_at,
            arrival_ts,
            stream_id,
            kafka_partition,
            kafka_offset
        from {{ ref('stg_owners') }}
    ),

    numbered_records as (
        select
            owner_id,
            op,
            consent_flags,
            said_at,
            arrival_ts,
            stream_id,
            kafka_partition,
            kafka_offset,
            row_number() over (partition by owner_id order by {{ statement_order() }}) = 1 as is_first_record
        from dated_records
    ),

    consent_statements as (
        {%- for flag in consent_flags() %}
        select
            owner_id,
            '{{ flag }}' as flag,
            {{ json_boolean('consent_flags', flag ~ '.value') }} as is_allowed,
            {{ json_timestamp('consent_flags', flag ~ '.at') }} as stated_at,
            said_at,
            arrival_ts,
            stream_id,
            kafka_partition,
            kafka_offset,
            is_first_record
        from numbered_records
        where op <> 'delete' and {{ json_boolean('consent_flags', flag ~ '.value') }} is not null
        {% if not loop.last -%}union all{%- endif %}
        {%- endfor %}
    )
{%- endmacro %}

{# The order in which statements of one owner and flag follow each other. #}
{% macro statement_order(descending=false, alias='') -%}
    {%- set suffix = ' desc' if descending else '' -%}
    {%- set prefix = alias ~ '.' if alias else '' -%}
    {%- for column in ['said_at', 'arrival_ts', 'stream_id', 'kafka_partition', 'kafka_offset'] -%}
        {{ prefix }}{{ column }}{{ suffix }}{% if not loop.last %}, {% endif %}
    {%- endfor -%}
{%- endmacro %}

{# CTEs ending in `consents`: one row per statement, [held_from, held_to) being
   how long it was the last said of its owner and flag (held_to null: it still
   is). Before an owner's first record a refusal in it is taken to have held,
   too. A moment without a row: nothing had been said. #}
{% macro consents() -%}
    {{ consent_statements() }},

    consents as (
        select
            owner_id,
            flag,
            is_allowed,
            stated_at,
            case
                when is_first_record and not is_allowed then timestamp '0001-01-01 00:00:00'
                else said_at
            end as held_from,
            lead(said_at) over (partition by owner_id, flag order by {{ statement_order() }}) as held_to
        from consent_statements
    )
{%- endmacro %}

{# CTEs ending in `known_consents`: one row per owner, flag and span [known_from,
   known_to) in which the same statement was the last known. #}
{% macro known_consents() -%}
    {{ consent_statements() }},

    statement_moments as (
        select distinct
            owner_id,
            flag,
            greatest(arrival_ts, said_at) as known_from
        from consent_statements
    ),

    statement_spans as (
        select
            owner_id,
            flag,
            known_from,
            lead(known_from) over (partition by owner_id, flag order by known_from) as known_to
        from statement_moments
    ),

    known_consents as (
        select
            spans.owner_id,
            spans.flag,
            spans.known_from,
            spans.known_to,
            statements.is_allowed
        from statement_spans as spans
        inner join consent_statements as statements
            on
                spans.owner_id = statements.owner_id
                and spans.flag = statements.flag
                and spans.known_from >= statements.arrival_ts
                and spans.known_from >= statements.said_at
        qualify
            row_number() over (
                partition by spans.owner_id, spans.flag, spans.known_from
                order by {{ statement_order(descending=true, alias='statements') }}
            ) = 1
    )
{%- endmacro %}
