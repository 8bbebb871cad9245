"""The Power BI project: generated from the dbt manifest by `python -m powerbi`."""
