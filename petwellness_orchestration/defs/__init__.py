"""Dagster definitions by step of the flow; each folder is loaded by `definitions.py`."""
