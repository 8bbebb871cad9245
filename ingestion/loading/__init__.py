"""Lake to warehouse, and warehouse to readers.

What a load is says `ledger`; `duckdb_raw` loads the embedded warehouse, `snowflake_raw`
Snowflake beside its pipes (`snowflake_pipes`). `reconcile` and `snowflake_reconcile` hold
lake and raw against each other, `gaps` says what closes what is missing, `publish` writes
the copy that readers use, `compare` is the one equality check. What a table means is
dbt's business.
"""
