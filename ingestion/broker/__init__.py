"""The broker: an embedded one for a single machine, and the client configuration for it and for real Kafka.

Consuming into the lake is `ingestion.collector`.
"""
