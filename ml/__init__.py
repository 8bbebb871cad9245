"""Datasets, training, gates, registry and scoring. Knows neither Dagster nor `ingestion`."""
