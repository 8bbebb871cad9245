"""Checks beyond dbt tests: thresholds, heartbeat, counts across layers."""
