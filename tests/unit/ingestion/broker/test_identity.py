"""Identity of streams, and the client configuration that follows from settings."""

from pathlib import Path

import pytest

from ingestion.broker.client import BrokerUnreachableError, client_config, connect, stream_id
from ingestion.broker.embedded import stream_prefix
from ingestion.settings import BrokerSettings
from lake import layout


def test_a_kafka_stream_can_name_objects_whatever_its_ids_contain() -> None:
    identity = stream_id("lkc/ab+c", "telemetry", "Zm/9+w")
    assert identity == "lkc_ab-c.telemetry.Zm_9-w"
    assert layout.claim_key(identity, 0, 0)


def test_embedded_streams_of_two_state_folders_never_share_a_prefix(tmp_path: Path) -> None:
    here, there = stream_prefix(tmp_path / "a" / "broker.json"), stream_prefix(tmp_path / "b" / "broker.json")
    assert here != there
    assert here == stream_prefix(tmp_path / "a" / "broker.json")


def test_credentials_reach_the_client_and_unset_ones_do_not() -> None:
    settings = BrokerSettings.model_validate(
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "u",
            "sasl_password": "p",
        }
    )
    config = client_config(settings, "broker:9092")
    assert config["sasl.password"] == "p"
    assert config["security.protocol"] == "SASL_SSL"
    assert "ssl.ca.location" not in config
    assert "'p'" not in repr(settings)


def test_without_any_broker_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnreachableError, match="PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS"):
        connect(BrokerSettings(), tmp_path)
