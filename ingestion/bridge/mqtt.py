"""One connection to the MQTT broker: a session that is kept, acknowledgements by hand, typed errors.

Everything happens in the caller's thread: nothing is read, and nobody is
acknowledged, outside of `turn` and `acknowledge`. What to do with messages is
`engine`'s business.
"""

import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestion.settings import MqttSettings

URL_SETTING = "PETWELLNESS_MQTT_URL"
CREDENTIAL_SETTINGS = "PETWELLNESS_MQTT_USERNAME and PETWELLNESS_MQTT_PASSWORD"
CLIENT_ID_SETTING = "PETWELLNESS_MQTT_CLIENT_ID"
FILTER_SETTING = "PETWELLNESS_MQTT_TOPIC_FILTER"

# How long acknowledgements and the goodbye may take to leave.
GOODBYE_S = 2.0

_SESSION_TAKEN_OVER = 0x8E
_FAILURE = 0x80


class MqttError(Exception):
    """Base of what goes wrong between bridge and MQTT broker."""


class MqttUnreachableError(MqttError):
    """No MQTT broker answers at the address; the text names it and the setting to change."""


class MqttRefusedError(MqttError):
    """The MQTT broker refused the connection or the subscription."""


class MqttLostError(MqttError):
    """The connection ended; whatever was not acknowledged comes again."""


class MqttTakenOverError(MqttError):
    """Another client connected under the same client id. Coming back would throw that one out."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came; `mid` is its number within this connection, 0 when it needs no acknowledgement."""

    topic: str | None
    payload: bytes
    mid: int
    redelivered: bool
    received_ms: int


class Connection:
    """An open, subscribed connection. Raises MqttUnreachableError, MqttRefusedError, MqttTakenOverError."""

    def __init__(self, settings: "MqttSettings") -> None:
        self._settings = settings
        self._inbox: deque[Received] = deque()
        self._connected: Any = None
        self._subscribed: Any = None
        self._goodbye: Any = None
        self.session_present = False
        self._client = self._build()
        try:
            self._open()
        except MqttError:
            self.close()
            raise

    def turn(self, timeout_s: float) -> None:
        """Read and write what there is, waiting at most so long. Raises MqttLostError, MqttTakenOverError."""
        self._check(self._client.loop(timeout_s))

    def turn_without_reading(self) -> None:
        """Write what there is and keep the connection alive. Raises MqttLostError, MqttTakenOverError."""
        self._check(self._client.loop_write() if self._client.want_write() else 0)
        self._check(self._client.loop_misc())

    def take(self) -> Received | None:
        """The next message that was read, in order; None if there is none."""
        return self._inbox.popleft() if self._inbox else None

    def acknowledge(self, mid: int) -> None:
        """Tell the MQTT broker that it need not keep a message. In the order of receipt, as MQTT demands."""
        self._client.ack(mid, 1)

    def close(self) -> None:
        """Say goodbye once everything written has left; the session stays with the broker."""
        until = time.monotonic() + GOODBYE_S
        with contextlib.suppress(MqttError, OSError):
            while self._client.want_write() and time.monotonic() < until:
                self.turn_without_reading()
            self._client.disconnect()

    def _build(self) -> Any:
        import paho.mqtt.client as paho

        settings = self._settings
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=paho.MQTTv5,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_s
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else None
            client.username_pw_set(settings.username, password)
        if settings.tls:
            client.tls_set(ca_certs=settings.tls_ca)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _open(self) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        from paho.mqtt.subscribeoptions import SubscribeOptions

        settings = self._settings
        wishes = Properties(PacketTypes.CONNECT)
        wishes.SessionExpiryInterval = settings.session_expiry_s
        wishes.ReceiveMaximum = settings.receive_maximum
        try:
            self._client.connect(
                settings.host, settings.port, settings.keepalive_s, clean_start=False, properties=wishes
            )
        except OSError as error:  # ssl.SSLError and socket.timeout among them.
            raise self._unreachable(error.strerror or str(error) or type(error).__name__) from error
        until = time.monotonic() + settings.connect_timeout_s
        self._wait_for("_connected", until)
        if self._connected.value >= _FAILURE:
            raise MqttRefusedError(
                f"MQTT broker {self._address} refused the connection ({self._connected}); "
                f"check {CREDENTIAL_SETTINGS}"
            )
        # Only a first subscription is told of retained messages; each further one would repeat them.
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        try:
            self._client.subscribe(settings.topic_filter, options=options)
        except ValueError as error:
            raise MqttRefusedError(
                f"'{settings.topic_filter}' is no filter of MQTT topics; correct {FILTER_SETTING}"
            ) from error
        self._wait_for("_subscribed", until)
        if self._subscribed.value >= _FAILURE:
            raise MqttRefusedError(
                f"MQTT broker {self._address} refused the subscription to '{settings.topic_filter}' "
                f"({self._subscribed}); let the user read it or change {FILTER_SETTING}"
            )

    def _wait_for(self, answer: str, until: float) -> None:
        while getattr(self, answer) is None:
            try:
                self.turn(0.05)
            except MqttLostError as error:
                if self._connected is not None and self._connected.value >= _FAILURE:
                    return
                raise self._unreachable(str(error)) from error
            if time.monotonic() > until:
                raise self._unreachable(f"no answer within {self._settings.connect_timeout_s:.0f} s")

    def _check(self, code: int) -> None:
        if self._goodbye is not None and self._goodbye.value == _SESSION_TAKEN_OVER:
            raise MqttTakenOverError(
                f"another client connected to MQTT broker {self._address} as '{self._settings.client_id}'; "
                f"stop one of the two or give it its own {CLIENT_ID_SETTING}"
            )
        if code or self._goodbye is not None:
            raise MqttLostError(
                f"MQTT broker {self._address}: the connection ended ({self._goodbye or code})"
            )

    @property
    def _address(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"

    def _unreachable(self, why: str) -> MqttUnreachableError:
        return MqttUnreachableError(
            f"MQTT broker {self._address} cannot be reached ({why}); check it or {URL_SETTING}"
        )

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        self._connected = reason
        self.session_present = flags.session_present

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self._subscribed = reasons[0]

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        # The broker's own reason comes first; that the socket is closed then comes on top.
        self._goodbye = self._goodbye or reason

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = None
        self._inbox.append(
            Received(
                topic,
                message.payload,
                message.mid if message.qos else 0,
                bool(message.dup),
                time.time_ns() // 1_000_000,
            )
        )
