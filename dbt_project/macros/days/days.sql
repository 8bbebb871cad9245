{# Which event dates a run rebuilds, and how. A daily model deletes those
   literal dates and inserts them again; nothing joins over history. #}

{# Pure: the days, as sorted ISO strings, of which a window contains one of
   `days`: the `window_days` days that end on that day and `days_after` days after it.
   None (every day) stays none. #}
{% macro expand_days(days, window_days, days_after=0) -%}
    {%- if days is none -%}{{ return(none) }}{%- endif -%}
    {%- set found = {} -%}
    {%- for day in days -%}
        {%- set first = modules.datetime.datetime.strptime(day | string, '%Y-%m-%d') -%}
        {%- for step in range(-days_after, window_days) -%}
            {%- do found.update({(first + modules.datetime.timedelta(days=step)).strftime('%Y-%m-%d'): true}) -%}
        {%- endfor -%}
    {%- endfor -%}
    {{ return(found.keys() | sort) }}
{%- endmacro %}

{# Pure: [[first, after_last], ...], the half-open runs of consecutive days. #}
{% macro day_ranges(days) -%}
    {%- set ranges = [] -%}
    {%- for day in expand_days(days, 1) -%}
        {%- set next = (modules.datetime.datetime.strptime(day, '%Y-%m-%d') + modules.datetime.timedelta(days=1)).strftime('%Y-%m-%d') -%}
        {%- if ranges and ranges[-1][1] == day -%}
            {%- set last = ranges.pop() -%}
            {%- do ranges.append([last[0], next]) -%}
        {%- else -%}
            {%- do ranges.append([day, next]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(ranges) }}
{%- endmacro %}

{# CTEs ending in `numbers` (number): 0 to 99,999. Counted by their digits: no engine's own series function is needed. #}
{% macro day_numbers() -%}
    digits as (
        {%- for digit in range(10) %}
        select {{ digit }} as digit
        {%- if not loop.last %}
        union all
        {%- endif %}
        {%- endfor %}
    ),

    numbers as (
        select
            ones.digit + 10 * tens.digit + 100 * hundreds.digit
            + 1000 * thousands.digit + 10000 * ten_thousands.digit as number
        from digits as ones
        cross join digits as tens
        cross join digits as hundreds
        cross join digits as thousands
        cross join digits as ten_thousands
    )
{%- endmacro %}

{# Predicate: a date column lies in `days` (none: every day, []: no day). #}
{% macro date_in_days(column, days) -%}
    {%- if days is none -%}true
    {%- elif not days -%}false
    {%- else -%}
        {{ column }} in ({% for day in days %}date '{{ day }}'{% if not loop.last %}, {% endif %}{% endfor %})
    {%- endif -%}
{%- endmacro %}

{# Predicate: a timestamp column lies in `days`, as ranges that let a scan skip
   row groups. #}
{% macro ts_in_days(column, days) -%}
    {%- if days is none -%}true
    {%- elif not days -%}false
    {%- else -%}
        (
        {%- for first, after_last in day_ranges(days) %}
            {% if not loop.first %}or {% endif %}({{ column }} >= timestamp '{{ first }} 00:00:00' and {{ column }} < timestamp '{{ after_last }} 00:00:00')
        {%- endfor %}
        )
    {%- endif -%}
{%- endmacro %}

{# Predicate: [valid_from, valid_to), open where valid_to is null, has a moment
   in `days`; so that a join reads the spans of those days and not of all history. #}
{% macro span_in_days(valid_from, valid_to, days) -%}
    {%- if days is none -%}true
    {%- elif not days -%}false
    {%- else -%}
        (
        {%- for first, after_last in day_ranges(days) %}
            {% if not loop.first %}or {% endif %}({{ valid_from }} < timestamp '{{ after_last }} 00:00:00' and ({{ valid_to }} is null or {{ valid_to }} > timestamp '{{ first }} 00:00:00'))
        {%- endfor %}
        )
    {%- endif -%}
{%- endmacro %}

{# Days this run rebuilds of the model at hand: none means all of them. They
   are the dirty days and, for each kind of record input named in
   meta.inputs, the days whose fingerprint in cur.day_inputs is not the one
   the model was last built from; each widened by meta.window_days and
   meta.days_after. With meta.judges_hours also the days that change as
   time goes on. A model with versioned rows is built for all days when a
   current version is new.

   Found once in an invocation: the model's SQL, its hooks and its strategy mean the same days. #}
{% macro model_days() -%}
    {%- if not execute -%}{{ return(none) }}{%- endif -%}
    {%- set found = graph.setdefault('model_days', {}).setdefault(invocation_id, {}) -%}
    {%- if model.unique_id not in found -%}{%- do found.update({model.unique_id: find_model_days()}) -%}{%- endif -%}
    {{ return(found[model.unique_id]) }}
{%- endmacro %}

{% macro find_model_days() -%}
    {%- if not is_incremental() or var('dirty_days') is none or own_schema() -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set meta = config.get('meta') or {} -%}
    {%- if meta.get('versioned_by') and lacks_current_versions(meta['versioned_by']) -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set days = var('dirty_days') | map('string') | list + missed_days(model.unique_id) -%}
    {%- if meta.get('inputs') -%}
        {%- set changed = run_query(changed_inputs_sql(meta['inputs'])) -%}
        {%- set days = days + changed.columns[0].values() | map('string') | list -%}
    {%- endif -%}
    {%- set days = expand_days(days, meta.get('window_days', 1), meta.get('days_after', 0)) -%}
    {%- if meta.get('judges_hours') -%}
        {%- set waiting = run_query(waiting_days_sql()) -%}
        {%- set days = days + waiting.columns[0].values() | map('string') | list -%}
    {%- endif -%}
    {{ return(expand_days(days, 1)) }}
{%- endmacro %}

{# Days that tests look at (none: every day): those that the run is about, unless it says otherwise. A run that builds
   no day says so, since its tables may contradict any. #}
{% macro tested_days() -%}
    {{ return(var('tested_days', var('dirty_days'))) }}
{%- endmacro %}

{# Predicate: a day later than the last that the model at hand holds; false when all days are built anyway. #}
{% macro after_last_day_of_this(column, days) -%}
    {%- if days is none -%}false
    {%- else -%}
        {{ column }} > (select coalesce(max(built.event_date), date '0001-01-01') from {{ this }} as built)
    {%- endif -%}
{%- endmacro %}

{# Predicate: the day is over at var as_of_ts. #}
{% macro over_as_of(column) -%}
    {%- if var('as_of_ts') is none -%}true
    {%- else -%}{{ midnight_after(column) }} <= timestamp '{{ var("as_of_ts") }}'
    {%- endif -%}
{%- endmacro %}

{# Days on which a model that judges hours can change as the present moves on:
   those since the present of its last build, and those soon after one with
   telemetry that have none and so no fingerprint, because an alert may expire on
   them. #}
{% macro waiting_days_sql() -%}
    select {{ iso_date('event_date') }} as event_date
    from (
        select event_date from {{ ref('cur_day_inputs') }}
        {%- for step in range(1, expiry_days() + 1) %}
        union
        select cast({{ midnight_after('event_date', step) }} as date) as event_date from {{ ref('cur_day_inputs') }}
        {%- endfor %}
    ) as candidates
    where
        event_date not in (select event_date from {{ ref('cur_day_inputs') }})
        or event_date >= (
            select coalesce(max(event_date), date '0001-01-01')
            from {{ ref('cur_applied_inputs') }}
            where model_name = '{{ this.schema }}.{{ this.identifier }}' and input_kind = 'present'
        )
{%- endmacro %}

{% macro changed_inputs_sql(kinds, model_name=none) -%}
    select distinct {{ iso_date("coalesce(present.event_date, applied.event_date)") }} as event_date
    from (
        select input_kind, event_date, fingerprint
        from {{ ref('cur_day_inputs') }}
        where input_kind in ('{{ kinds | join("', '") }}')
    ) as present
    full outer join (
        select input_kind, event_date, fingerprint
        from {{ ref('cur_applied_inputs') }}
        where model_name = '{{ model_name or this.schema ~ '.' ~ this.identifier }}' and input_kind in ('{{ kinds | join("', '") }}')
    ) as applied
        on present.input_kind = applied.input_kind and present.event_date = applied.event_date
    where present.fingerprint is distinct from applied.fingerprint
{%- endmacro %}

{# Daily models with record inputs that a model reads, itself or by another daily model: [node, ...]. #}
{% macro read_models_with_inputs(unique_id) -%}
    {%- set found = {} -%}
    {%- for parent_id in (graph.nodes.get(unique_id) or {}).get('depends_on', {}).get('nodes', []) -%}
        {%- set parent = graph.nodes.get(parent_id) or {} -%}
        {%- if 'daily' in (parent.get('config') or {}).get('tags', []) -%}
            {%- if (parent.config.meta or {}).get('inputs') -%}{%- do found.update({parent_id: parent}) -%}{%- endif -%}
            {%- for node in read_models_with_inputs(parent_id) -%}{%- do found.update({node.unique_id: node}) -%}{%- endfor -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(found.values() | list) }}
{%- endmacro %}

{# Post-hook of a daily model with record inputs: remember, in the model's own
   transaction, what it was built from. A day of which a model that it reads has
   not taken in its inputs is left out, and no present is later than that of such
   a model: the model at hand was built alone, and has them to take in then. #}
{% macro record_applied_inputs() -%}
    {%- set kinds = (config.get('meta') or {}).get('inputs', []) -%}
    {%- set applied, inputs = ref('cur_applied_inputs'), ref('cur_day_inputs') -%}
    {%- if execute and not own_schema() -%}
    {%- set read = read_models_with_inputs(model.unique_id) -%}
    {%- set judged = read | selectattr('config.meta.judges_hours', 'true') | list -%}
    delete from {{ applied }} where model_name = '{{ this.schema }}.{{ this.identifier }}';
    insert into {{ applied }} (model_name, input_kind, event_date, fingerprint)
    select '{{ this.schema }}.{{ this.identifier }}', input_kind, event_date, fingerprint
    from {{ inputs }}
    where
        input_kind in ('{{ kinds | join("', '") }}')
        {%- for node in read %}
        and {{ iso_date('event_date') }} not in (
            {{ changed_inputs_sql(node.config.meta['inputs'], full_table_name(node)) | indent(12) }}
        )
        {%- endfor %}
    {%- if (config.get('meta') or {}).get('judges_hours') %}
    union all
    select
        '{{ this.schema }}.{{ this.identifier }}',
        'present',
        -- The day of the first hour that is not judged yet, the day before right after midnight.
        least(
            cast({{ minutes_after(hours_after('moment', -1), -grace_minutes()) }} as date)
            {%- for _ in judged %}, read_{{ loop.index }}.event_date{% endfor %}
        ),
        cast({{ epoch_us('moment') }} as varchar)
    from (select {{ data_present() }} as moment) as present
    {%- for node in judged %}
    inner join {{ applied }} as read_{{ loop.index }}
        on read_{{ loop.index }}.model_name = '{{ full_table_name(node) }}' and read_{{ loop.index }}.input_kind = 'present'
    {%- endfor %}
    where moment is not null
    {%- endif %}
    {%- endif -%}
{%- endmacro %}

{# Incremental strategy replace_days: delete the literal dates, insert what the
   model selected for them. Of a model with versioned rows only those of current
   versions are deleted: the others could not be computed again. #}
{% macro get_incremental_replace_days_sql(arg_dict) -%}
    {%- set columns = arg_dict['dest_columns'] | map(attribute='quoted') | join(', ') -%}
    {%- set versioned_by = (config.get('meta') or {}).get('versioned_by') -%}
    {%- set dml -%}
    delete from {{ arg_dict['target_relation'] }}
    where
        {{ date_in_days('event_date', model_days()) }}
        {%- if versioned_by %}
        and (feature_name, feature_version) in (
            select feature_name, feature_version from {{ ref(versioned_by) }} where status = 'current'
        )
        {%- endif %};
    insert into {{ arg_dict['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arg_dict['temp_relation'] }}
    {%- endset -%}
    {{ return(in_one_transaction(dml)) }}
{%- endmacro %}

{# Whether the last day of the model at hand has no row of a feature version
   that is current in `catalogue`: its definition is new, and no day has it. #}
{% macro lacks_current_versions(catalogue) -%}
    {%- set missing -%}
        select count(*)
        from {{ ref(catalogue) }} as catalogue
        left join (
            select distinct feature_name, feature_version
            from {{ this }}
            where event_date = (select max(event_date) from {{ this }})
        ) as built
            on catalogue.feature_name = built.feature_name and catalogue.feature_version = built.feature_version
        where catalogue.status = 'current' and built.feature_name is null
    {%- endset -%}
    {{ return(run_query(missing).columns[0].values()[0] > 0) }}
{%- endmacro %}
