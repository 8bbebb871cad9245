"""What Snowflake's account usage says: what each asset and model costs, and who read personal data.

`questions` has the SQL and the shapes of its answers, `costs` and `budgets` are plain
functions over such rows, `access_audit` fills a table of the account. Nothing here opens
a session (`warehouse.snowflake.session`) or alerts anybody. The embedded
warehouse has no account: DuckDB is a file, without users, credits or a history of access.
"""
