{# Upkeep of pull requests' schemas. What is in one is nobody's but the pull request's
   (macros/names.sql); layers, raw and developers' schemas are never dropped here. #}

{# `dbt run-operation drop_schemas --args '{schemas: [pr_17]}'` says what is in them; with
   `dry_run: false` they are dropped. Any other schema than a pull request's stops it before
   the first is dropped; one that is not there is said and no error, since a job that was
   cancelled early never made it. #}
{% macro drop_schemas(schemas, dry_run=true) -%}
    {%- for schema in schemas -%}
        {%- if not modules.re.fullmatch('pr_[1-9][0-9]*', schema) -%}
            {%- do exceptions.raise_compiler_error(
                "'" ~ schema ~ "' is not the schema of a pull request (pr_<number>): nothing was dropped"
            ) -%}
        {%- endif -%}
    {%- endfor -%}
    {%- for schema in schemas -%}
        {%- set relation = api.Relation.create(database=target.database, schema=schema) -%}
        {%- if not adapter.check_schema_exists(target.database, schema) -%}
            {%- do log(schema ~ ": not there", info=true) -%}
        {%- else -%}
            {%- set tables = run_query(
                "select count(*) as table_count from information_schema.tables where lower(table_catalog) = '"
                ~ target.database | lower ~ "' and lower(table_schema) = '" ~ schema ~ "'"
            ).rows[0][0] -%}
            {%- if dry_run -%}
                {%- do log(schema ~ ": would drop " ~ tables ~ " tables; give dry_run: false", info=true) -%}
            {%- else -%}
                {%- do adapter.drop_schema(relation) -%}
                {%- do log(schema ~ ": dropped with " ~ tables ~ " tables", info=true) -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{%- endmacro %}
