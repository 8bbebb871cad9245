"""The collector: consumes topics, decodes, and lands ranges in the lake exactly once.

`engine` drives it, `decode` turns messages into columns, `consent` knows which
devices opted out. The landing protocol itself is in `lake.landing`.
"""
