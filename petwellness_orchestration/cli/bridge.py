"""`petwellness bridge`: MQTT into Kafka as a service, with the embedded broker if no Kafka is set."""

from __future__ import annotations

from petwellness_orchestration.cli.console import say
from petwellness_orchestration.cli.publish import broker
from petwellness_orchestration.cli.signals import stop_on_signals
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import load_settings


def run_bridge() -> int:
    """Serve until SIGINT or SIGTERM, then say what was carried."""
    from contracts.decoders import DECODERS
    from contracts.telemetry import COLLAR_DECODER
    from ingestion.bridge.engine import Bridge
    from ingestion.settings import MqttSettings

    settings = load_settings()
    mqtt = MqttSettings()
    stop = stop_on_signals()
    topic = DECODERS[COLLAR_DECODER].topic
    with broker(settings, more_topics=[mqtt.refused_topic]) as client:
        store = open_lake(settings) if client.embedded else None
        report = Bridge(client, mqtt, topic, store=store, tell=say).run(stop)
    say(f"bridge stopped: {report.line()}")
    return 0
