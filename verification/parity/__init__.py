"""The same lake on both warehouses, and every table of both held against each other.

`python -m verification.parity` lands a small world step by step (`world`), loads and builds each step on the embedded
warehouse and on the Snowflake emulator (`targets`), compares all tables (`run`), and holds the list of what the
emulator cannot do to the emulator (`limits`). What equal tables prove, and what not, is in docs/snowflake.md.
"""
