"""Snowflake: sessions, loads beside its pipes, and what differs between lake and raw."""
