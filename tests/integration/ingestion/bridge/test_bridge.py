"""The bridge between a real MQTT broker and Kafka: content, order, receipt, and either side going away."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaError
from waiting import DEADLINE_S, IGNORING_SIGINT, until

from ingestion.bridge import engine
from ingestion.bridge.engine import KafkaLostError
from ingestion.bridge.mqtt import (
    Connection,
    MqttRefusedError,
    MqttTakenOverError,
    MqttUnreachableError,
    Received,
)
from ingestion.broker.client import UnknownTopicError
from ingestion.collector.consent import ConsentSnapshot
from ingestion.collector.engine import Collector
from ingestion.settings import CollectorSettings, MqttSettings
from lake import layout
from lake.landing import list_manifests, utc_now
from lake.store import LocalStore


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop without waiting long for a Kafka that is switched off."""
    monkeypatch.setattr(engine, "FLUSH_S", 0.5)


def payloads(messages: list[Any]) -> Counter[bytes]:
    return Counter(message.value() for message in messages)


def sent(messages: list[tuple[str, str, bytes]]) -> set[bytes]:
    return {payload for _, _, payload in messages}


def open_lake(home: Path) -> LocalStore:
    """A lake in which nobody opted out."""
    store = LocalStore(home / "lake")
    store.put_new(layout.consent_key("s"), msgspec.json.encode(ConsentSnapshot("s", utc_now(), [])))
    return store


def test_content_order_key_and_time_of_receipt_are_kept(world, make_events) -> None:
    messages = make_events(500)
    bridge = world.bridge().until_serving()
    before_ms = time.time_ns() // 1_000_000
    world.publish(messages)
    until(lambda: bridge.report.acknowledged == 500, "everything is acknowledged")
    after_ms = time.time_ns() // 1_000_000
    arrived = world.messages()
    assert payloads(arrived) == dict.fromkeys(sent(messages), 1)
    for device in {device for _, device, _ in messages}:
        mine = [message.value() for message in arrived if message.key() == device.encode()]
        assert mine == [payload for _, other, payload in messages if other == device]
    assert all(before_ms <= message.timestamp()[1] <= after_ms for message in arrived)
    assert bridge.report.received == 500
    assert bridge.report.redelivered == bridge.report.interruptions == 0


def test_what_cannot_be_carried_is_set_aside_with_its_reason(world, make_events) -> None:
    [good] = make_events(1)
    large = b"x" * 950_000
    bridge = world.bridge().until_serving()
    world.publish(
        [
            ("petwellness/c1/collar-1/status", "", b"awake"),
            ("petwellness//collar-1/telemetry", "", bytes([0, 255])),
            ("petwellness/c1/collar-1/telemetry", "", large),
            good,
        ]
    )
    until(lambda: bridge.report.acknowledged == 4, "everything is acknowledged")
    assert payloads(world.messages()) == {good[2]: 1}
    refused = [
        ({name: value.decode() for name, value in message.headers()}, message.value(), message.key())
        for message in world.messages("telemetry.refused")
    ]
    assert refused == [
        ({"reason": "topic", "size": "5", "mqtt_topic": "petwellness/c1/collar-1/status"}, b"awake", None),
        (
            {"reason": "topic", "size": "2", "mqtt_topic": "petwellness//collar-1/telemetry"},
            bytes([0, 255]),
            None,
        ),
        (
            {"reason": "oversized", "size": "950000", "mqtt_topic": "petwellness/c1/collar-1/telemetry"},
            large[: 64 * 1024],
            None,
        ),
    ]
    assert bridge.report.refused == {"topic": 2, "oversized": 1}
    assert "3 refused (1 oversized, 2 topic)" in bridge.report.line()


def test_a_message_too_large_for_kafka_is_set_aside(world, make_events) -> None:
    [good] = make_events(1)
    bridge = world.bridge().until_serving()
    world.refuse_next(KafkaError.MSG_SIZE_TOO_LARGE)
    world.publish([("petwellness/c1/collar-1/telemetry", "", b"x" * 70_000)])
    world.publish([good])
    until(lambda: bridge.report.acknowledged == 2, "everything is acknowledged")
    assert payloads(world.messages()) == {good[2]: 1}
    [refused] = world.messages("telemetry.refused")
    assert refused.value() == b"x" * 65_536
    assert bridge.report.refused == {"kafka": 1}


@pytest.mark.parametrize(
    "code", [KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.INVALID_RECORD]
)
def test_what_kafka_refuses_for_now_is_tried_again(world, make_events, code: int) -> None:
    messages = make_events(20)
    bridge = world.bridge().until_serving()
    world.refuse_next(code)
    world.publish(messages)
    until(lambda: bridge.report.acknowledged == 20, "everything is acknowledged")
    assert bridge.report.interruptions == 1
    assert any("did not take a message for topic telemetry" in line for line in bridge.told)
    assert set(payloads(world.messages())) == sent(messages)
    assert not bridge.report.refused


def test_a_producer_that_refuses_at_once_ends_the_session_and_not_the_bridge(world, make_events) -> None:
    """What a message has shown of its topic, the producer says of the next without asking."""
    settings = MqttSettings(url=world.mosquitto.url, connect_timeout_s=5)
    session = engine._Session(
        world.kafka(), settings, "telemetry", Connection(settings), engine.BridgeReport(), None, None
    )
    world.refuse_next(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    [first, second] = [Received(topic, payload, 0, False, 0) for topic, _, payload in make_events(2)]
    session._forward(first)
    session._producer.flush(20)
    with pytest.raises(KafkaLostError, match="authorization failed"):
        session._raise_failure()
    session._failure = None
    session._forward(second)
    with pytest.raises(
        KafkaLostError, match=r"did not take a message for topic telemetry.*authorization failed"
    ):
        session._raise_failure()
    session.close()


def test_nothing_is_acknowledged_before_kafka_has_it(world, make_events) -> None:
    messages = make_events(40)
    bridge = world.bridge().until_serving()
    world.kafka_down()
    world.publish(messages)
    until(lambda: bridge.report.received == 40, "everything is with the bridge")
    bridge.stop()
    assert bridge.report.acknowledged == 0
    world.kafka_up()
    again = world.bridge()
    until(lambda: again.report.acknowledged == 40, "everything is acknowledged")
    assert again.report.redelivered == 40
    assert set(payloads(world.messages())) == sent(messages)


def test_kafka_comes_back_and_everything_goes_on(world, make_events) -> None:
    messages = make_events(40)
    bridge = world.bridge().until_serving()
    world.kafka_down()
    world.publish(messages[:20])
    until(lambda: bridge.report.received == 20, "the first half is with the bridge")
    world.kafka_up()
    world.publish(messages[20:])
    until(lambda: bridge.report.acknowledged == 40, "everything is acknowledged")
    assert bridge.report.interruptions == 0
    assert set(payloads(world.messages())) == sent(messages)


def test_no_more_is_in_flight_than_allowed(world, make_events) -> None:
    bridge = world.bridge(receive_maximum=10).until_serving()
    world.kafka_down()
    world.publish(make_events(100))
    world.publish(make_events(30, first=100), qos=0)
    until(lambda: bridge.report.received >= 11, "the window is full")
    most = bridge.report.received
    # The MQTT broker answers others meanwhile, so it had its chance to send more.
    world.publish([("elsewhere", "", b"")] * 100)
    assert bridge.report.received == most == 11
    assert bridge.report.acknowledged == 0
    world.kafka_up()
    until(lambda: bridge.report.acknowledged >= 100, "everything that is kept is acknowledged")


def test_an_mqtt_broker_that_restarts_loses_nothing(world, make_events) -> None:
    messages = make_events(90)
    bridge = world.bridge().until_serving()
    world.publish(messages[:30])
    until(lambda: bridge.report.acknowledged == 30, "the first third is acknowledged")
    world.kafka_down()
    world.publish(messages[30:60])
    until(lambda: bridge.report.received == 60, "the second third is with the bridge")
    world.mosquitto.stop()
    until(lambda: bridge.report.interruptions > 0, "the bridge noticed")
    world.kafka_up()
    world.mosquitto.start()
    world.publish(messages[60:])
    until(lambda: bridge.report.acknowledged == 90, "everything is acknowledged")
    found = payloads(world.messages())
    assert set(found) == sent(messages)
    assert bridge.report.redelivered == 30
    assert bridge.report.forgotten == 0
    # Twice at most: once from each session.
    assert max(found.values()) <= 2


def test_a_lost_session_is_told(world, mosquitto_at) -> None:
    bridge = world.bridge().until_serving()
    world.mosquitto.stop()
    (world.home / "mosquitto-0" / "mosquitto.db").unlink()
    world.mosquitto.start()
    until(lambda: bridge.report.forgotten == 1, "the bridge noticed")
    assert any("forgot this session" in line for line in bridge.told)


def start_bridge(world, **more: str) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "PETWELLNESS_HOME": str(world.home / "bridge"),
        "PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS": world.kafka().bootstrap_servers,
        "PETWELLNESS_MQTT_URL": world.mosquitto.url,
        **more,
    }
    process = subprocess.Popen(
        [*IGNORING_SIGINT, sys.executable, "-m", "petwellness_orchestration.cli", "bridge"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    assert "bridge runs" in process.stdout.readline()
    return process


def test_a_killed_bridge_loses_nothing_and_the_duplicates_key_sets_repeats_aside(world, make_events) -> None:
    messages = make_events(3000)
    process = start_bridge(world, PETWELLNESS_MQTT_RECEIVE_MAXIMUM="100")
    try:
        world.publish(messages[:1000])
        for part in (messages[1000:2000], messages[2000:]):
            with world.mosquitto.publisher() as publish:
                for topic, _, payload in part:
                    publish(topic, payload)
                # In the middle: some are in Kafka, acknowledged or not, others still with the MQTT broker.
                process.send_signal(signal.SIGKILL)
                process.wait(DEADLINE_S)
            process = start_bridge(world, PETWELLNESS_MQTT_RECEIVE_MAXIMUM="100")
        until(lambda: set(payloads(world.messages())) == sent(messages), "everything is in Kafka")
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, told
        assert "bridge stopped" in told
    finally:
        process.kill()
        process.wait(DEADLINE_S)

    store = open_lake(world.home)
    Collector(world.kafka(embedded=True), store, CollectorSettings(), ["telemetry"]).drain()
    rows = pa.concat_tables(
        pq.read_table(pa.BufferReader(store.get(manifest.source_file))) for manifest in list_manifests(store)
    )
    days = [moment.date() for moment in rows["event_ts"].to_pylist()]
    keys = Counter(zip(rows["device_id"].to_pylist(), rows["event_id"].to_pylist(), days, strict=True))
    assert len(keys) == 3000
    assert sum(keys.values()) == rows.num_rows >= 3000
    print(f"{rows.num_rows - 3000} repeated")


def test_on_the_embedded_broker_a_message_is_acknowledged_once_it_is_landed(world, make_events) -> None:
    store = open_lake(world.home)
    bridge = world.bridge(kafka=world.kafka(embedded=True), store=store).until_serving()
    world.publish(make_events(30))
    until(lambda: len(world.messages()) == 30, "the embedded broker has everything")
    assert bridge.report.acknowledged == 0
    Collector(world.kafka(embedded=True), store, CollectorSettings(), ["telemetry"]).drain()
    until(lambda: bridge.report.acknowledged == 30, "everything is acknowledged")


def fails_with(running: Any, kind: type[Exception], *texts: str) -> None:
    running.thread.join(20)
    assert isinstance(running.error, kind), running.error
    for text in texts:
        assert text in str(running.error)


def test_two_bridges_of_one_name_are_told_and_lose_nothing(world, make_events) -> None:
    messages = make_events(50)
    bridges = [world.bridge().until_serving() for _ in range(2)]
    until(lambda: any("PETWELLNESS_MQTT_CLIENT_ID" in line for b in bridges for line in b.told), "the hint")
    world.publish(messages)
    bridges[1].stop()
    until(lambda: set(payloads(world.messages())) == sent(messages), "everything is in Kafka")


@contextmanager
def answering(*, to_subscribe: bytes, afterwards: bytes = b"") -> Iterator[str]:
    """An MQTT broker that says what mosquitto 2.0 does not: its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def play() -> None:
            with server.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(bytes([0x20, 3, 0, 0, 0]))
                number = peer.recv(1000)[2:4]
                peer.sendall(bytes([0x90, 4, *number, 0]) + to_subscribe + afterwards)
                peer.recv(1000)

        player = threading.Thread(target=play, daemon=True)
        player.start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        player.join(10)


def test_a_bridge_that_is_told_of_another_of_its_name_ends(world) -> None:
    with answering(to_subscribe=b"\x01", afterwards=b"\xe0\x01\x8e") as url:
        fails_with(world.bridge(url=url), MqttTakenOverError, "PETWELLNESS_MQTT_CLIENT_ID")


def test_a_refused_subscription_is_named(world) -> None:
    with answering(to_subscribe=b"\x87") as url:
        fails_with(world.bridge(url=url), MqttRefusedError, "petwellness/#", "PETWELLNESS_MQTT_TOPIC_FILTER")


def test_an_mqtt_broker_that_is_not_there_is_named(world) -> None:
    world.mosquitto.stop()
    fails_with(world.bridge(), MqttUnreachableError, str(world.mosquitto.port), "PETWELLNESS_MQTT_URL")


def test_wrong_credentials_are_named_and_not_shown(world, mosquitto_at, program) -> None:
    passwords = world.home / "passwords"
    subprocess.run(
        [program("mosquitto_passwd", "mosquitto"), "-b", "-c", str(passwords), "collector", "right"],
        check=True,
    )
    mosquitto = mosquitto_at("allow_anonymous false", f"password_file {passwords}")
    wrong = world.bridge(url=mosquitto.url, username="collector", password="wrong-one")
    fails_with(wrong, MqttRefusedError, "PETWELLNESS_MQTT_PASSWORD", str(mosquitto.port))
    assert "wrong-one" not in str(wrong.error)
    world.bridge(url=mosquitto.url, username="collector", password="right").until_serving()


def test_a_filter_that_is_none_is_named(world) -> None:
    fails_with(
        world.bridge(topic_filter="petwellness/#/x"),
        MqttRefusedError,
        "/#/x",
        "PETWELLNESS_MQTT_TOPIC_FILTER",
    )


def test_a_topic_that_kafka_does_not_have_is_named(world) -> None:
    running = world.bridge(refused_topic="telemetry.elsewhere")
    fails_with(running, UnknownTopicError, "telemetry.elsewhere", "create it")


def test_tls_is_checked_against_the_given_authority(world, mosquitto_at, program) -> None:
    folder = world.home / "tls"
    folder.mkdir()
    subprocess.run(
        [
            *(program("openssl", "openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    mosquitto = mosquitto_at(
        "allow_anonymous true", f"certfile {folder}/cert.pem", f"keyfile {folder}/key.pem"
    )
    url = mosquitto.url.replace("mqtt://", "mqtts://")
    fails_with(world.bridge(url=url), MqttUnreachableError, "certificate")
    world.bridge(url=url, tls_ca=str(folder / "cert.pem")).until_serving()
