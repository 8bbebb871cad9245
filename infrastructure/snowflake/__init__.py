"""The Snowflake account as code: what SnowDDL makes of `config/` for an environment.

`config/` says what is the same everywhere (databases, schemas, warehouses, roles,
users, policies), `environments/` what differs, `code_objects` what follows from
schemas in the code (tables of raw, scores and builds; pipes). `planning` runs SnowDDL, with or without an account;
`plans/` holds what a plan for an empty account says (production's; of the others
what differs), so that a change is read as SQL. Loading rows is not done here (`warehouse`), nor are dbt's tables.
"""
