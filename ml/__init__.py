"""Datasets, training, gates, registry and scoring. Tables are its only input: it knows neither Dagster, `ingestion` nor `lake`."""
