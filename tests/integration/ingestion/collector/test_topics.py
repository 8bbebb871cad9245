"""What the collector subscribes to: a topic that does not exist is an error, not silence, whatever broker it is."""

import threading
from typing import Any

import pytest

from ingestion.broker.client import UnknownTopicError
from petwellness_orchestration.collecting import drain_telemetry, serve_telemetry
from petwellness_orchestration.settings import load_settings

World = Any
MISSING = "telemetry.movebank"


@pytest.fixture
def configured(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The platform's settings on this world, with its topic and one that its broker does not have."""
    monkeypatch.setenv("PETWELLNESS_HOME", str(world.home))
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", world.bootstrap_servers)
    monkeypatch.setenv("PETWELLNESS_COLLECTOR_TOPICS", f"{world.topic}, {MISSING}")
    return world


def test_a_subscribed_topic_that_does_not_exist_is_named_with_the_setting(configured: World) -> None:
    configured.send([configured.event(0)])
    settings = load_settings()
    fix = rf"no topic {MISSING}; create it there, or take it out of PETWELLNESS_COLLECTOR_TOPICS"
    with pytest.raises(UnknownTopicError, match=fix):
        drain_telemetry(settings, configured.store, print)
    with pytest.raises(UnknownTopicError, match=fix):
        serve_telemetry(settings, threading.Event(), 0)
    # Nothing was landed by half, and asking has created nothing.
    assert configured.client().existing_topics([MISSING]) == []
    assert not [*configured.store.list("_claims/")]


@pytest.mark.only_on("embedded", "Kafka creates no topics for consumers")
def test_a_topic_that_a_client_made_the_embedded_broker_create_is_none_of_it(configured: World) -> None:
    """librdkafka's mock cluster creates whatever it is asked for."""
    asking = configured.client().producer()
    assert MISSING in asking.list_topics(MISSING, timeout=10).topics
    assert configured.client().existing_topics([configured.topic, MISSING]) == [configured.topic]
    with pytest.raises(UnknownTopicError, match=MISSING):
        configured.client().streams([configured.topic, MISSING])


def test_only_topics_of_the_setting_are_collected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(world.home))
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", world.bootstrap_servers)
    world.send([world.event(0), world.event(1)])
    assert drain_telemetry(load_settings(), world.store, print)["rows"] == 2
