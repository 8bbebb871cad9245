"""From an MQTT broker into Kafka: names of MQTT topics, the connection, and the bridge itself.

Payloads pass through unread; what they mean is decided in `ingestion.collector`.
"""
