"""Tables, pipes and developers' schemas for SnowDDL, from schemas in the code: no I/O, no SQL of our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from contracts.ledgers import LEDGERS
from contracts.registry import FEEDS, TELEMETRY_FEED
from lake.landing import feed_schema
from ml.scoring import SCORES_SCHEMA, SCORES_TABLE
from warehouse import environments
from warehouse.builds.history import TABLES as BUILD_TABLES
from warehouse.snowflake.sql import FILE_FORMAT, LANDING_STAGE, RAW, copied_columns, snowflake_type

if TYPE_CHECKING:
    import pyarrow as pa
    from snowddl.blueprint import PipeBlueprint, TableBlueprint
    from snowddl.config import SnowDDLConfig

OPS = "ops"

DATABASE = environments.DATABASE.lower()

# Document 000 clusters by pet and time; raw knows no pet yet, and stg reads it by arrival.
CLUSTER_BY = {TELEMETRY_FEED: ["to_date(arrival_ts)", "device_id"]}


def add_code_objects(config: SnowDDLConfig) -> None:
    """Add what the YAML files do not spell out: tables and pipes of raw, the table of scores, the history of builds,
    schemas of developers and the right to make those of pull requests."""
    for feed in FEEDS:
        schema = feed_schema(feed)
        config.add_blueprint(_table(config.env_prefix, RAW, feed, schema))
        config.add_blueprint(_pipe(config.env_prefix, feed, schema))
    for name, schema in LEDGERS.items():
        config.add_blueprint(_table(config.env_prefix, RAW, name, schema))
    schema_name, scores = SCORES_TABLE.split(".")
    config.add_blueprint(_table(config.env_prefix, schema_name, scores, SCORES_SCHEMA))
    for name, schema in BUILD_TABLES.items():
        config.add_blueprint(_table(config.env_prefix, OPS, name, schema))
    if config.get_placeholder("PULL_REQUEST_SCHEMAS"):
        _let_dbt_make_schemas(config)
    for developer in config.get_placeholder("DEVELOPERS"):
        _add_developer(config, str(developer))


def _table(env_prefix: str, schema_name: str, name: str, schema: pa.Schema) -> TableBlueprint:
    from snowddl.blueprint import DataType, Ident, SchemaObjectIdent, TableBlueprint, TableColumn

    return TableBlueprint(
        full_name=SchemaObjectIdent(env_prefix, DATABASE, schema_name, name),
        columns=[
            TableColumn(
                name=Ident(field.name), type=DataType(snowflake_type(field)), not_null=not field.nullable
            )
            for field in schema
        ],
        cluster_by=CLUSTER_BY.get(name),
    )


def _pipe(env_prefix: str, feed: str, schema: pa.Schema) -> PipeBlueprint:
    from snowddl.blueprint import PipeBlueprint, SchemaObjectIdent

    return PipeBlueprint(
        full_name=SchemaObjectIdent(env_prefix, DATABASE, RAW, feed),
        auto_ingest=True,
        copy_table_name=SchemaObjectIdent(env_prefix, DATABASE, RAW, feed),
        copy_stage_name=SchemaObjectIdent(env_prefix, DATABASE, RAW, LANDING_STAGE),
        # With its slash: `owners` would match `owners_old`, too.
        copy_path=f"/{feed}/",
        copy_transform={name.upper(): sql for name, sql in copied_columns(schema).items()},
        copy_file_format=SchemaObjectIdent(env_prefix, DATABASE, RAW, FILE_FORMAT),
    )


def _let_dbt_make_schemas(config: SnowDDLConfig) -> None:
    """The right to make, and so to drop, schemas of pull requests, for the role that dbt takes."""
    from snowddl.blueprint import (
        BusinessRoleBlueprint,
        GrantPattern,
        IdentPattern,
        ObjectType,
        TechnicalRoleBlueprint,
        build_role_ident,
    )

    schemas = build_role_ident(config.env_prefix, "pull_request_schemas", config.TECHNICAL_ROLE_SUFFIX)
    config.add_blueprint(
        TechnicalRoleBlueprint(
            full_name=schemas,
            grant_patterns=[
                GrantPattern(
                    privilege="CREATE SCHEMA", on=ObjectType.DATABASE, pattern=IdentPattern(DATABASE)
                )
            ],
            comment="Make schemas of pull requests",
        )
    )
    name = build_role_ident(config.env_prefix, "transformer", config.BUSINESS_ROLE_SUFFIX)
    transformer = config.get_blueprints_by_type(BusinessRoleBlueprint)[str(name)]
    config.add_blueprint(
        transformer.model_copy(update={"technical_roles": [*transformer.technical_roles, schemas]})
    )


def _add_developer(config: SnowDDLConfig, developer: str) -> None:
    """A schema `dev_<name>`, and the role that owns it and reads what is shared."""
    from snowddl.blueprint import (
        AccountObjectIdent,
        BusinessRoleBlueprint,
        IdentPattern,
        SchemaBlueprint,
        SchemaIdent,
        build_role_ident,
    )

    schema = environments.own_schema(environments.OwnSchema.DEVELOPER, developer)
    config.add_blueprint(
        SchemaBlueprint(
            full_name=SchemaIdent(config.env_prefix, DATABASE, schema),
            permission_model="BUILT",
            is_sandbox=True,
            is_transient=True,
            retention_time=0,
            comment=f"What {developer} builds",
        )
    )
    config.add_blueprint(
        BusinessRoleBlueprint(
            full_name=build_role_ident(
                config.env_prefix, f"developer_{developer}", config.BUSINESS_ROLE_SUFFIX
            ),
            schema_owner=[IdentPattern(f"{DATABASE}.{schema}")],
            schema_read=[
                IdentPattern(f"{DATABASE}.{shared}")
                for shared in (RAW, "stg", "cur", "anl", "ml", "governance")
            ],
            warehouse_usage=[AccountObjectIdent(config.env_prefix, "dev_wh")],
            # What dbt creates in a schema of one's own has the policies, too.
            technical_roles=[build_role_ident(config.env_prefix, "policies", config.TECHNICAL_ROLE_SUFFIX)],
            comment=f"{developer} builds in {schema} and reads the rest",
        )
    )
