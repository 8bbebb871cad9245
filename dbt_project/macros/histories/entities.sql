{# The typed columns of every record feed, in the order of
   contracts/columns.py: [column, kind, SQL type]. One list for
   staging, change detection and histories. #}

{% macro record_feeds() -%}
    {{ return([
        'owners', 'pets', 'devices', 'clinics', 'device_assignments', 'clinic_visits', 'appointments', 'breeds',
        'visit_documents', 'engagement'
    ]) }}
{%- endmacro %}

{# The staging tables of feeds, as schema.table. #}
{% macro staged_tables(feeds) -%}
    {%- set tables = [] -%}
    {%- for feed in feeds -%}{%- do tables.append('stg.' ~ feed) -%}{%- endfor -%}
    {{ return(tables) }}
{%- endmacro %}

{% macro entity_id(feed) -%}
    {{ return({
        'owners': 'owner_id',
        'pets': 'pet_id',
        'devices': 'device_id',
        'clinics': 'clinic_id',
        'device_assignments': 'assignment_id',
        'clinic_visits': 'visit_id',
        'appointments': 'appointment_id',
        'breeds': 'breed_id',
        'visit_documents': 'document_id',
        'engagement': 'engagement_id',
    }[feed]) }}
{%- endmacro %}

{% macro entity_attributes(feed) -%}
    {{ return({
        'owners': [
            ['name', 'text', 'varchar'],
            ['contact_phone', 'text', 'varchar'],
            ['contact_email', 'text', 'varchar'],
            ['address', 'text', 'varchar'],
            ['district', 'text', 'varchar'],
            ['quarter', 'text', 'varchar'],
            ['age_band', 'text', 'varchar'],
            ['sex', 'text', 'varchar'],
            ['consent_flags', 'json', json_type()],
        ],
        'pets': [
            ['owner_id', 'text', 'varchar'],
            ['name', 'text', 'varchar'],
            ['species', 'text', 'varchar'],
            ['breed', 'text', 'varchar'],
            ['breed_type', 'text', 'varchar'],
            ['is_crossbreed', 'boolean', 'boolean'],
            ['dob', 'date', 'date'],
            ['birth_year', 'number', 'integer'],
            ['sex', 'text', 'varchar'],
            ['is_neutered', 'boolean', 'boolean'],
            ['microchip_id', 'text', 'varchar'],
            ['color', 'text', 'varchar'],
            ['weight_kg', 'number', 'decimal(6, 3)'],
        ],
        'devices': [
            ['hardware_serial', 'text', 'varchar'],
            ['vendor', 'text', 'varchar'],
            ['model', 'text', 'varchar'],
            ['firmware_version', 'text', 'varchar'],
            ['status', 'text', 'varchar'],
            ['expected_events_per_day', 'number', 'integer'],
        ],
        'clinics': [
            ['name', 'text', 'varchar'],
            ['district', 'text', 'varchar'],
            ['timezone', 'text', 'varchar'],
        ],
        'device_assignments': [
            ['device_id', 'text', 'varchar'],
            ['pet_id', 'text', 'varchar'],
            ['assigned_from', 'timestamp', 'timestamp'],
            ['assigned_to', 'timestamp', 'timestamp'],
        ],
        'clinic_visits': [
            ['pet_id', 'text', 'varchar'],
            ['clinic_id', 'text', 'varchar'],
            ['visit_ts', 'timestamp', 'timestamp'],
            ['visit_end_ts', 'timestamp', 'timestamp'],
            ['status', 'text', 'varchar'],
            ['visit_type', 'text', 'varchar'],
            ['is_unplanned', 'boolean', 'boolean'],
            ['reason', 'text', 'varchar'],
            ['outcome', 'text', 'varchar'],
            ['diagnosis_codes', 'json', json_type()],
            ['weight_kg', 'number', 'decimal(6, 3)'],
            ['next_vaccine_due', 'date', 'date'],
        ],
        'appointments': [
            ['pet_id', 'text', 'varchar'],
            ['clinic_id', 'text', 'varchar'],
            ['scheduled_ts', 'timestamp', 'timestamp'],
            ['status', 'text', 'varchar'],
            ['visit_id', 'text', 'varchar'],
        ],
        'breeds': [
            ['species', 'text', 'varchar'],
            ['breed', 'text', 'varchar'],
            ['breed_group', 'text', 'varchar'],
            ['min_weight_kg', 'number', 'decimal(6, 3)'],
            ['max_weight_kg', 'number', 'decimal(6, 3)'],
            ['min_height_cm', 'number', 'decimal(5, 1)'],
            ['max_height_cm', 'number', 'decimal(5, 1)'],
            ['min_life_expectancy_years', 'number', 'decimal(4, 1)'],
            ['max_life_expectancy_years', 'number', 'decimal(4, 1)'],
        ],
        'visit_documents': [
            ['visit_id', 'text', 'varchar'],
            ['pet_id', 'text', 'varchar'],
            ['document_uri', 'text', 'varchar'],
            ['media_type', 'text', 'varchar'],
            ['page_count', 'number', 'integer'],
            ['sha256', 'text', 'varchar'],
            ['ocr_engine', 'text', 'varchar'],
            ['ocr_fields', 'json', json_type()],
            ['ocr_confidence', 'number', 'decimal(4, 3)'],
            ['review_status', 'text', 'varchar'],
            ['validator_id', 'text', 'varchar'],
            ['validated_at', 'timestamp', 'timestamp'],
        ],
        'engagement': [
            ['owner_id', 'text', 'varchar'],
            ['channel', 'text', 'varchar'],
            ['action', 'text', 'varchar'],
            ['occurred_at', 'timestamp', 'timestamp'],
            ['duration_s', 'number', 'integer'],
            ['appointment_id', 'text', 'varchar'],
        ],
    }[feed]) }}
{%- endmacro %}

{# Only the columns' names. #}
{% macro attribute_names(feed) -%}
    {%- set names = [] -%}
    {%- for column, kind, sql_type in entity_attributes(feed) -%}{%- do names.append(column) -%}{%- endfor -%}
    {{ return(names) }}
{%- endmacro %}

{# What landing files call a column. Their names never change, so that old files stay readable; from staging on
   a boolean is is_*. #}
{% macro landed_name(column) -%}
    {{ return({'is_neutered': 'neutered'}.get(column, column)) }}
{%- endmacro %}

{# One cleaning rule per kind: text is trimmed and empty text is null; e-mail
   addresses are lower case. Ids are left as they came. #}
{% macro clean_attribute(column, kind, sql_type) -%}
    {%- if column == 'contact_email' -%}nullif(lower(trim({{ column }})), '')
    {%- elif kind == 'text' and not column.endswith('_id') -%}nullif(trim({{ column }}), '')
    {%- elif kind == 'text' -%}nullif({{ column }}, '')
    {%- else -%}{{ landed_name(column) }}
    {%- endif -%}
{%- endmacro %}
