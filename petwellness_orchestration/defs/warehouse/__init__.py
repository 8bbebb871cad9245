"""dbt models as assets, and the published copy."""
