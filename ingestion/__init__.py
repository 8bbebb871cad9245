"""How data gets in: contracts, broker, collector, lake, extracts, loading, simulator.

Nothing here knows Dagster; `petwellness_orchestration` wires these parts.
"""
