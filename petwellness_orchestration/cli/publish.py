"""`petwellness simulate` and `replay`: publish waves, or a live fleet, with the embedded broker if none is set.

What is published comes from `sources`; flow control and the wave ledger are
`simulation.publisher`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from contracts.memory import release_memory
from ingestion.broker.client import BrokerClient, connect
from petwellness_orchestration import sources
from petwellness_orchestration.cli.console import say
from petwellness_orchestration.cli.signals import stop_on_signals
from petwellness_orchestration.lake_access import reach_lake
from petwellness_orchestration.settings import PlatformSettings, load_settings

# 16 partitions of 4 MB each are in flight at most; enough that producer and
# collector seldom wait for each other.
EMBEDDED_PARTITIONS = {"telemetry": 16, "telemetry.campusiot": 4, "telemetry.movebank": 4}

LIVE_INTERVAL_S = 5.0


@contextmanager
def broker(settings: PlatformSettings, more_topics: Sequence[str] = ()) -> Iterator[BrokerClient]:
    """The broker to publish to: an embedded one of this process, unless Kafka is set.

    `more_topics` are those beyond telemetry that an embedded one should have.
    """
    if not settings.is_broker_embedded:
        yield connect(settings.broker, settings.state.home)
        return
    from ingestion.broker.embedded import EmbeddedBroker

    topics = EMBEDDED_PARTITIONS | dict.fromkeys(more_topics, 1)
    with EmbeddedBroker(topics, settings.state.broker_card_path) as embedded:
        address = embedded.card.bootstrap_servers if embedded.card else ""
        say(f"embedded broker listens on {address}")
        yield connect(settings.broker, settings.state.home)


def publish_source(serve: bool) -> None:
    """Publish every wave of the source that has not been seen landed; with `serve` stay up afterwards."""
    from simulation.publisher import publish_waves

    settings = load_settings()
    home = settings.state.home
    sources.check_collected(settings)
    store = reach_lake(settings)
    with broker(settings) as client, sources.publishing(home) as all_have_landed:
        for report in publish_waves(client, store, sources.waves(settings)):
            if report.already_landed:
                say(f"wave {report.wave_id}: landed before, not published again")
            else:
                say(f"wave {report.wave_id}: {report.messages:,} messages published and landed")
        all_have_landed()
        sources.write_truth(settings)
        release_memory()
        if serve:
            sys.stdin.read()


def publish_live() -> None:
    """Publish the fleet's events as they fall due until SIGINT or SIGTERM."""
    from simulation.publisher import LivePublisher

    settings = load_settings()
    stop = stop_on_signals()
    store = reach_lake(settings)
    simulated = sources.fleet(settings)
    sent = 0
    with broker(settings) as client, LivePublisher(client, store) as publisher:
        say(f"live fleet of {simulated.config.collars} collars; Ctrl-C stops it")
        while not stop.is_set():
            for batch in simulated.live_batches(datetime.now(UTC).replace(tzinfo=None)):
                publisher.send(batch)
                sent += len(batch)
            stop.wait(LIVE_INTERVAL_S)
    say(f"live fleet stopped after {sent:,} messages")
