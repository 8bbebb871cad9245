"""The embedded warehouse: one DuckDB file, loaded from the lake, and the copy that readers use."""
