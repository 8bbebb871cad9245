"""Lake to warehouse and warehouse to readers, for the embedded warehouse.

`duckdb_raw` loads landed ranges by ledger, `reconcile` holds lake and raw
against each other, `publish` writes the copy that readers use, `compare` is the
one equality check. What a table means is dbt's business.
"""
