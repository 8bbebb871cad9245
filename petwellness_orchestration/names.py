"""Names that several definitions share: asset keys, groups, the pool, owners."""

import dagster as dg

# DuckDB takes one writing process, so everything that opens its file shares a pool.
WAREHOUSE_POOL = "duckdb"

# Two compactions at once would take twice the memory that one is allowed.
COMPACTION_POOL = "compaction"

DATA_OWNER = "team:data-platform"
CLINICAL_OWNER = "team:clinical-data-science"

# Every asset is in one of these, which tests hold the graph and the freshness map to.
GROUPS = ("source", "landing", "raw", "stg", "cur", "anl", "ml", "published", "cold", "ops", "account")
# Costs, access audit and reconciliation, where there is a Snowflake account.
ACCOUNT_GROUP = "account"
# The history of builds, where no published copy stands for all tables.
OPS_GROUP = "ops"

# What a load on Snowflake says of ranges that it left to their pipes.
RANGES_WAITING = "ranges_waiting"

COLLAR_EVENTS = dg.AssetKey(["source", "collar_events"])
CLINIC_RECORDS = dg.AssetKey(["source", "clinic_records"])
CONSENT_SNAPSHOT = dg.AssetKey(["landing", "consent_snapshot"])
CATALOGUE = dg.AssetKey(["landing", "catalogue"])
TELEMETRY_COMPACTED = dg.AssetKey(["landing", "telemetry_compacted"])
LAKE_FILES = dg.AssetKey(["raw", "lake_files"])
REDACTIONS = dg.AssetKey(["landing", "redactions"])
QUARANTINE = dg.AssetKey(["landing", "quarantine"])
LOAD_HISTORY = dg.AssetKey(["raw", "load_history"])
EXTRACTS = dg.AssetKey(["raw", "extracts"])
VISIT_RISK_MODEL = dg.AssetKey(["ml", "visit_risk_model"])
VISIT_RISK_CHAMPION = dg.AssetKey(["ml", "visit_risk_champion"])
VISIT_RISK_SCORES = dg.AssetKey(["anl", "visit_risk_scores"])
PUBLISHED_TABLES = dg.AssetKey(["published", "warehouse_tables"])
COSTS = dg.AssetKey(["operations", "costs"])
RECONCILIATION = dg.AssetKey(["operations", "reconciliation"])
BUILDS = dg.AssetKey(["ops", "builds"])
ACCESS_AUDIT = dg.AssetKey(["ops", "access_audit"])
PUBLISHED_SCORES = dg.AssetKey(["published", "visit_risk_scores"])


def cold_key(schema: str, table: str) -> dg.AssetKey:
    return dg.AssetKey(["cold", schema, table])


def landing_key(feed: str) -> dg.AssetKey:
    return dg.AssetKey(["landing", feed])


def raw_key(feed: str) -> dg.AssetKey:
    return dg.AssetKey(["raw", feed])
