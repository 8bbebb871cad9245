"""A Snowflake emulator on this machine: fakesnow over HTTP, in a virtual environment of its own.

`local` makes the environment, starts and stops the server and says how to connect,
`objects` creates what an account has before anything is loaded. `server` and
`patches` run inside that environment and import nothing of the platform. What the
emulator cannot do is in `verification.parity.limits`. It is DuckDB underneath: it shows that
statements, drivers and macros work together, not what Snowflake means by them.
"""
