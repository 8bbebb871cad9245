"""Apache Kafka on this machine without containers: `local` runs a broker, `python -m infrastructure.kafka` is its command."""
