"""What holds for data whatever its use: erasure, personal data, quarantine, archives, costs and access.

Nothing here knows Dagster; `petwellness_orchestration` wires these parts.
"""
