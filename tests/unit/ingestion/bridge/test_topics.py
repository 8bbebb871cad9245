"""Names of MQTT topics, and the address of the MQTT broker."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingestion.bridge.topics import BadTopicError, Place, parse_topic
from ingestion.settings import MqttSettings

LEVELS = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=64)


@given(clinic_id=LEVELS, device_id=LEVELS)
def test_a_topic_names_clinic_and_device(clinic_id: str, device_id: str) -> None:
    assert parse_topic(f"petwellness/{clinic_id}/{device_id}/telemetry") == Place(clinic_id, device_id)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "petwellness/c1/telemetry",
        "petwellness//collar-1/telemetry",
        "petwellness/c1//telemetry",
        "petwellness/c1/collar-1/status",
        "petwellness/c1/collar-1/telemetry/",
        "petwellness/c1/collar-1/telemetry\n",
        "/petwellness/c1/collar-1/telemetry",
        "petwellness/c1/x/collar-1/telemetry",
        "petwellness/c 1/collar-1/telemetry",
        "petwellness/c1/hündin/telemetry",
        f"petwellness/c1/{'x' * 65}/telemetry",
    ],
)
def test_any_other_name_is_refused(topic: str) -> None:
    with pytest.raises(BadTopicError, match="petwellness/"):
        parse_topic(topic)


def test_the_address_gives_host_port_and_tls() -> None:
    def parts(url: str) -> tuple[str, int, bool]:
        settings = MqttSettings(url=url)
        return settings.host, settings.port, settings.tls

    assert parts("mqtt://broker") == ("broker", 1883, False)
    assert parts("mqtts://broker") == ("broker", 8883, True)
    assert parts("mqtt://127.0.0.1:11883/") == ("127.0.0.1", 11883, False)
    assert parts("mqtt://[::1]:1884") == ("::1", 1884, False)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "broker:1883",
        "http://broker",
        "mqtt://",
        "mqtt://broker:x",
        "mqtt://broker:70000",
        "mqtt://user:secret@broker",
        "mqtt://broker/petwellness/#",
    ],
)
def test_another_address_is_an_error_that_shows_no_secret(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MqttSettings(url=url)
    assert "secret" not in caught.value.errors()[0]["msg"]
