"""Settings of ingestion: where the brokers are, how the collector rotates, and what it refuses.

Read from environment variables with the prefixes named on each class; defaults
are the embedded platform on one machine. Other rooms have settings of their own;
environments and their composition live in `petwellness_orchestration.settings`.
"""

import re
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, NaiveDatetime, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.consent import AnalyticsDefault
from contracts.decoders import DECODERS
from contracts.telemetry import COLLAR_DECODER, NOT_BEFORE


def _names(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


# Several names in one variable, with commas between them.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]


class BrokerSettings(BaseSettings):
    """The Kafka cluster (`PETWELLNESS_KAFKA_*`); empty bootstrap servers mean the embedded broker."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_KAFKA_", frozen=True)

    bootstrap_servers: str = ""
    group_id: str = "petwellness-collector"
    client_id: str = Field(default="petwellness", description="How this process calls itself to the broker.")
    group_instance_id: str | None = Field(
        default=None,
        description="Static membership: a restart within the session timeout keeps its partitions.",
    )
    session_timeout_s: float = Field(default=45.0, gt=0)
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: str | None = None
    # With the start of a command it stays below 30 s until the clear error.
    connect_timeout_s: float = Field(default=10.0, gt=0, le=30)


class CollectorSettings(BaseSettings):
    """What the collector reads, when it closes a range, and what it refuses (`PETWELLNESS_COLLECTOR_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_COLLECTOR_", frozen=True)

    topics: Names = Field(
        default_factory=lambda: (DECODERS[COLLAR_DECODER].topic,),
        description="Kafka topics, with commas between them; each is a decoder's, and must exist.",
    )

    rotate_rows: int = Field(default=500_000, gt=0)
    rotate_bytes: int = Field(default=64 * 1024 * 1024, gt=0, description="Message bytes per range.")
    rotate_age_s: float = Field(default=60.0, gt=0)
    max_held_bytes: int = Field(
        default=256 * 1024 * 1024,
        gt=0,
        description="Messages held at once, buffered and on their way into the lake; beyond, partitions pause.",
    )
    max_message_bytes: int = Field(default=64 * 1024, gt=0)
    consent_max_age_s: float = Field(default=24 * 3600, gt=0)
    not_before: NaiveDatetime = Field(
        default=NOT_BEFORE, description="Messages received before it (UTC) are rejects: their clock is wrong."
    )
    stop_timeout_s: float = Field(
        default=20.0, gt=0, description="How long the service may land what it holds when it is stopped."
    )
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="Prometheus metrics on this port; 0 is off."
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address that metrics are served on.")
    as_service: bool = Field(
        default=False,
        description="Collectors run beside the graph; the drain asset then reports what landed.",
    )

    @field_validator("topics")
    @classmethod
    def _have_decoders(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = [decoder.topic for decoder in DECODERS.values()]
        unknown = [topic for topic in value if topic not in known]
        if unknown or not value:
            raise ValueError(
                f"no decoder reads {', '.join(unknown) or 'no topic'}; give some of {', '.join(known)}"
            )
        return value


class RejectSettings(BaseSettings):
    """When a source's rejects are too many (`PETWELLNESS_REJECTS_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_REJECTS_", frozen=True)

    max_share: Decimal = Field(
        default=Decimal("0.05"), ge=0, le=1, description="Share of a source's messages that may be rejects."
    )
    min_messages: int = Field(default=100, gt=0, description="Fewer messages of a source are not judged.")
    known_source: Literal["warn", "fail"] = Field(
        default="warn",
        description="What too many rejects of a source with history are; a new source's fail.",
    )
    accepted: Names = Field(
        default=(),
        description="Sources whose rejects somebody has looked at and accepts, as `source/decoder@version`.",
    )

    @field_validator("accepted")
    @classmethod
    def _name_source_and_decoder(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [name for name in value if not re.fullmatch(r"[^/@]+/[^/@]+@[^/@]+", name)]:
            raise ValueError(f"give source/decoder@version as `petwellness status` shows it, not {bad[0]!r}")
        return value

    @property
    def known_source_fails(self) -> bool:
        return self.known_source == "fail"


class MqttSettings(BaseSettings):
    """The MQTT broker that `petwellness bridge` subscribes to (`PETWELLNESS_MQTT_*`).

    `url` is `mqtt://host[:port]`, or `mqtts://host[:port]` for TLS (`tls_ca` is a
    file of authorities where the system's do not do). The client id names the
    session that the MQTT broker keeps while the bridge is away: it must stay the
    same, and be another for each bridge.
    """

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_MQTT_", frozen=True)

    url: str = "mqtt://127.0.0.1:1883"
    username: str | None = None
    password: SecretStr | None = None
    tls_ca: str | None = None
    client_id: str = Field(default="petwellness-bridge", min_length=1, max_length=128)
    # Wider than the topics of telemetry, so that a misnamed one is set aside and not overheard.
    topic_filter: str = Field(default="petwellness/#", min_length=1)
    refused_topic: str = Field(default="telemetry.refused", description="Kafka topic for what is set aside.")
    session_expiry_s: int = Field(default=14 * 24 * 3600, gt=0, lt=2**32)
    receive_maximum: int = Field(default=1000, gt=0, lt=2**16, description="Unacknowledged at a time.")
    keepalive_s: int = Field(default=30, gt=0, lt=2**16)
    connect_timeout_s: float = Field(default=10.0, gt=0, le=30)

    @field_validator("url")
    @classmethod
    def _is_mqtt(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.username or parts.password:
            raise ValueError("user and password go into PETWELLNESS_MQTT_USERNAME and ..._PASSWORD")
        # Reading the port checks it.
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.port == 0:
            raise ValueError("give mqtt://host:port, or mqtts://host:port for TLS")
        if parts.path.strip("/"):
            raise ValueError("topics go into PETWELLNESS_MQTT_TOPIC_FILTER, not into the address")
        return value

    @property
    def _parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def tls(self) -> bool:
        return self._parts.scheme == "mqtts"

    @property
    def host(self) -> str:
        return self._parts.hostname or ""

    @property
    def port(self) -> int:
        return self._parts.port or (8883 if self.tls else 1883)


class ConsentSettings(BaseSettings):
    """What silence of a household means (`PETWELLNESS_CONSENT_*`)."""

    model_config = SettingsConfigDict(env_prefix="PETWELLNESS_CONSENT_", frozen=True)

    analytics_default: AnalyticsDefault | None = Field(
        default=None,
        description="`allow` or `refuse`: what holds for analytics while an owner has not said it"
        " (None: the environment's; production has none).",
    )
