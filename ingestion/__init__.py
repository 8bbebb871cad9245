"""How data gets in: bridge, broker, collector, rejects, extracts of real sources.

Nothing here knows Dagster; `petwellness_orchestration` wires these parts.
"""
