"""The lake: immutable objects that are the truth the warehouse is built from.

`store` writes and reads objects, `layout` names them, `landing` holds the
landing protocol, `extract` lands record extracts through it. How messages are
consumed and decoded lives in `ingestion.collector`.
"""
