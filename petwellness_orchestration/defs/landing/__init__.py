"""Into the lake: record extracts, consent snapshot, collector drain."""
