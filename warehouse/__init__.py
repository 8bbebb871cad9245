"""Lake to warehouse, and warehouse to readers.

What a load is says `ledger`; `duckdb` loads the embedded warehouse and writes the copy that
readers use, `snowflake` loads Snowflake beside its pipes. `reconcile` holds lake and raw
against each other, `gaps` says what closes what is missing, `compare` is the one equality
check, `builds` the history of builds, `environments` which warehouse an environment has.
What a table means is dbt's business.
"""
