{# The laws of a history: versions of an id follow each other without gap or
   overlap, none is empty, exactly the last is current, neighbours differ. #}

{% test contiguous_history(model, id_column) %}
with versions as (
    select
        {{ id_column }} as entity_id,
        valid_from,
        valid_to,
        is_current,
        is_deleted,
        record_md5,
        lead(valid_from) over (partition by {{ id_column }} order by valid_from) as next_valid_from,
        lag(record_md5) over (partition by {{ id_column }} order by valid_from) as previous_md5,
        lag(is_deleted) over (partition by {{ id_column }} order by valid_from) as previous_is_deleted
    from {{ model }}
)

select
    entity_id,
    valid_from,
    valid_to,
    case
        when valid_from is null then 'valid_from is null'
        when valid_to <= valid_from then 'empty or reversed'
        when valid_to is distinct from next_valid_from then 'gap or overlap'
        when is_current is distinct from (valid_to is null) then 'is_current does not say whether it is the last'
        when previous_md5 = record_md5 and previous_is_deleted = is_deleted then 'same as the version before'
    end as broken_law
from versions
where
    valid_from is null
    or valid_to <= valid_from
    or valid_to is distinct from next_valid_from
    or is_current is distinct from (valid_to is null)
    or (previous_md5 = record_md5 and previous_is_deleted = is_deleted)
{% endtest %}

{# Spans of a key do not overlap and are not empty. #}
{% test disjoint_spans(model, key_column) %}
with spans as (
    select
        {{ key_column }} as span_key,
        valid_from,
        valid_to,
        lead(valid_from) over (partition by {{ key_column }} order by valid_from) as next_valid_from
    from {{ model }}
)

select span_key, valid_from, valid_to, next_valid_from
from spans
where valid_to <= valid_from or valid_to > next_valid_from or (valid_to is null and next_valid_from is not null)
{% endtest %}

{# Spans of a key follow each other without gap or overlap, and none is empty. #}
{% test contiguous_spans(model, key_column) %}
with spans as (
    select
        {{ key_column }} as span_key,
        valid_from,
        valid_to,
        lead(valid_from) over (partition by {{ key_column }} order by valid_from) as next_valid_from
    from {{ model }}
)

select span_key, valid_from, valid_to, next_valid_from
from spans
where valid_to <= valid_from or valid_to is distinct from next_valid_from
{% endtest %}
