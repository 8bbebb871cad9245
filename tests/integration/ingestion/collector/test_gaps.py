"""`petwellness gaps` and the check `no_message_lost` over a real broker and lake."""

import json
from datetime import timedelta
from typing import Any

import pytest

from lake.landing import list_claims, list_manifests, utc_now
from lake.progress import dead_streams
from petwellness_orchestration.cli.gaps import show_gaps
from petwellness_orchestration.defs.landing.checks import no_message_lost
from petwellness_orchestration.resources import PlatformResource

World = Any  # The class of the fixtures; see conftest.


@pytest.fixture(autouse=True)
def _settings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(world.home))
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", world.bootstrap_servers)
    monkeypatch.setenv("PETWELLNESS_KAFKA_GROUP_ID", world.group_id)


def gaps(capsys: pytest.CaptureFixture[str], close_dead: bool = False) -> list[tuple[str, str, int]]:
    """Kind, place and count of all gaps but those of raw, where nothing is loaded in these tests."""
    code = show_gaps("json", close_dead)
    seen = json.loads(capsys.readouterr().out)
    assert seen["broker"] == "asked"
    assert code == seen["open"]
    return [(gap["kind"], gap["where"], gap["count"]) for gap in seen["gaps"] if gap["kind"] != "unloaded"]


def test_what_waits_in_the_log_and_what_it_lost(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    topic = world.topic
    assert gaps(capsys) == []
    world.send(map(world.event, range(3)))
    assert gaps(capsys) == [("waiting", f"{topic}[0] [0, 3)", 3)]
    world.collector().drain()
    assert gaps(capsys) == []
    world.send(map(world.event, range(3, 6)), first=3)
    world.send(map(world.event, range(6, 8)), first=6)
    world.delete_records(6)
    assert gaps(capsys) == [("expired", f"{topic}[0] [3, 6)", 3), ("waiting", f"{topic}[0] [6, 8)", 2)]
    world.collector().drain()
    assert gaps(capsys) == [("lost", f"{world.stream_id()} partition 0 [3, 6)", 3)]


def test_the_check_names_what_the_log_lost_for_a_week(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    platform = PlatformResource()
    assert no_message_lost(platform=platform).passed
    world.send(map(world.event, range(3, 6)), first=3)
    world.send(map(world.event, range(6, 8)), first=6)
    world.delete_records(6)
    world.collector().drain()
    result = no_message_lost(platform=platform)
    assert not result.passed
    assert result.metadata["lost_offsets"].value == 3
    assert result.metadata["ranges"].value == [f"{world.stream_id()} partition 0 [3, 6) the log starts at 6"]
    in_a_week = utc_now() + timedelta(days=8)
    monkeypatch.setattr("lake.landing.utc_now", lambda: in_a_week)
    result = no_message_lost(platform=platform)
    assert result.passed
    assert (result.metadata["lost_offsets"].value, result.metadata["lost_offsets_ever"].value) == (0, 3)


@pytest.mark.only_on("kafka", "the embedded broker has no topics to delete")
def test_claims_of_a_deleted_topic_are_closed_on_demand(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """One range of the old topic was landed but for its manifest, one was only claimed."""
    old = world.stream_id()
    world.send(map(world.event, range(5)))
    world.collector().drain()
    [landed] = list_manifests(world.store)
    world.store.delete(f"_manifests/{old}/00000/{0:020}.json")
    world.claim(5, 9)
    world.broker.delete_topic(world.topic)
    world.broker.create_topic(world.topic, world.partitions)
    world.send(map(world.event, range(2)))
    world.collector().drain()
    assert gaps(capsys) == [
        ("dead", f"{old} partition 0 [0, 5)", 5),
        ("dead", f"{old} partition 0 [5, 9)", 4),
    ]
    assert len(list_claims(world.store)) == len(list_manifests(world.store)) + 2
    assert gaps(capsys, close_dead=True) == [("lost", f"{old} partition 0 [5, 9)", 4)]
    assert dead_streams(world.store) == {old}
    assert landed in list_manifests(world.store)
    assert world.landed().num_rows == 7


@pytest.mark.only_on("embedded", "the broker is not asked")
def test_a_stream_is_declared_dead_by_its_id(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.send(map(world.event, range(3)))
    world.collector().drain()
    assert show_gaps("text", False, ["another"]) == 1
    assert f"nothing of another ever landed; streams that did: {world.stream_id()}" in capsys.readouterr().err
    assert dead_streams(world.store) == frozenset()
    show_gaps("text", False, [world.stream_id()])
    assert dead_streams(world.store) == {world.stream_id()}


def test_a_broker_that_is_away_is_told_and_the_rest_is_found(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.send(map(world.event, range(3)))
    world.claim(0, 3)
    monkeypatch.setenv("PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("PETWELLNESS_KAFKA_CONNECT_TIMEOUT_S", "1")
    assert show_gaps("text", False) == 1
    told = capsys.readouterr().out
    assert "unfinished: claimed, not landed (3 in 1)" in told
    assert "the broker was not asked: broker 127.0.0.1:1 cannot be reached" in told
    assert told.endswith("gaps are open\n")
