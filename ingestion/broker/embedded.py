"""An in-memory Kafka broker for one machine: librdkafka's mock cluster, from the library inside the wheel.

It speaks the real protocol to any process on this machine. Its limits decide how
it is used: about 5 MB kept per partition, after which the oldest messages vanish
without a word (`simulation.publisher` waits for the collector), nothing survives a stop, no
admin requests. Stream ids are minted at each start because offsets start again
at 0. Client configuration is in `client`.
"""

import ctypes
import fcntl
import hashlib
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

# Messages kept per partition are 5 MiB; this leaves room for what a batch adds.
MAX_UNLANDED_BYTES = 4_000_000
# For a lock that somebody who only asks may have for a moment.
LOCK_PATIENCE_S = 1.0
LOCK_POLL_S = 0.02
_RD_KAFKA_PRODUCER = 0
_BROKER_ID = 1


class EmbeddedBrokerError(Exception):
    """The embedded broker could not be started."""


class BrokerCard(msgspec.Struct, frozen=True):
    """How to reach a running embedded broker: address, its process, stream id by topic."""

    bootstrap_servers: str
    pid: int
    streams: dict[str, str]


class CardLock:
    """Held as long as a card is true: a lock beside it, which the kernel lets go when its process ends, however.

    The process id on a card may be another process's by now; who holds the lock serves.
    """

    def __init__(self, card_path: Path) -> None:
        self._path = card_path.with_suffix(".lock")
        # A bare descriptor: a broker that nobody refers to goes on serving, and its lock has to stay.
        self._held: int | None = None

    def hold(self) -> bool:
        """Take the lock; False when somebody else has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _lock(file, fcntl.LOCK_EX):
            # Also who only asks has it for a moment.
            if time.monotonic() > deadline:
                os.close(file)
                return False
            time.sleep(LOCK_POLL_S)
        self._held = file
        return True

    def release(self) -> None:
        """Let it go. Safe to call twice."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def is_held(self) -> bool:
        """Whether anybody has it, this process included."""
        try:
            with self._path.open("rb") as file:
                return not _lock(file.fileno(), fcntl.LOCK_SH)
        except FileNotFoundError:
            return False


def _lock(file: int, kind: int) -> bool:
    """Lock a file if that is possible at once; whether it was."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_card(path: Path) -> BrokerCard | None:
    """The card of the embedded broker that serves there now; None if there is none, or it was killed."""
    try:
        card = msgspec.json.decode(path.read_bytes(), type=BrokerCard)
    except FileNotFoundError:
        return None
    return card if CardLock(path).is_held() else None


class EmbeddedBroker:
    """A broker that lives inside this process while the context is open.

    `topics` gives partitions by topic. The card is written when it listens and
    removed when it stops.
    """

    def __init__(self, topics: Mapping[str, int], card_path: Path) -> None:
        self._topics = dict(topics)
        self._card_path = card_path
        self._lock = CardLock(card_path)
        self._library: Any = None
        self._handle: int | None = None
        self._cluster: int | None = None
        self.card: BrokerCard | None = None

    def __enter__(self) -> "EmbeddedBroker":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> BrokerCard:
        """Listen on a free port of 127.0.0.1 and write the card. Raises EmbeddedBrokerError."""
        if not self._lock.hold():
            running = read_card(self._card_path)
            whose = f" of process {running.pid}" if running is not None else ""
            raise EmbeddedBrokerError(
                f"an embedded broker{whose} already serves {self._card_path.parent}; stop it first"
            )
        try:
            return self._listen()
        except BaseException:
            self.stop()
            raise

    def _listen(self) -> BrokerCard:
        self._library = _load_library()
        reason = ctypes.create_string_buffer(512)
        configuration = self._library.rd_kafka_conf_new()
        # Errors only: it warns of missing bootstrap servers, which nothing here has.
        self._library.rd_kafka_conf_set(configuration, b"log_level", b"3", reason, len(reason))
        self._handle = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, configuration, reason, len(reason))
        if not self._handle:
            raise EmbeddedBrokerError(f"librdkafka could not start: {reason.value.decode()}")
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._handle, 1)
        if not self._cluster:
            raise EmbeddedBrokerError("librdkafka could not start its mock cluster")
        # The default waits 3 s for more members before the first assignment.
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        for topic, partitions in self._topics.items():
            code = self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)
            if code:
                raise EmbeddedBrokerError(f"topic '{topic}' could not be created (librdkafka error {code})")
        address = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        prefix = stream_prefix(self._card_path)
        streams = {topic: f"{prefix}.{topic}.{uuid.uuid4().hex}" for topic in self._topics}
        self.card = BrokerCard(address, os.getpid(), streams)
        self._write_card(self.card)
        return self.card

    def _write_card(self, card: BrokerCard) -> None:
        self._card_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._card_path.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(card))
        temporary.replace(self._card_path)

    def stop(self) -> None:
        """Stop listening; everything in the broker is gone. Safe to call twice."""
        if self.card is not None and read_card(self._card_path) == self.card:
            self._card_path.unlink()
        self.card = None
        if self._cluster:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._cluster = None
        if self._handle:
            self._library.rd_kafka_destroy(self._handle)
            self._handle = None
        self._lock.release()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Forget a partition's messages before an offset, as retention does."""
        code = self._library.rd_kafka_mock_partition_delete_records(
            self._cluster, topic.encode(), partition, before
        )
        if code:
            raise EmbeddedBrokerError(f"records of '{topic}' could not be deleted (librdkafka error {code})")

    def set_round_trip_ms(self, milliseconds: int) -> None:
        """Answer every request so much later from now on."""
        self._library.rd_kafka_mock_broker_set_rtt(self._cluster, _BROKER_ID, milliseconds)

    def set_down(self, is_down: bool) -> None:
        """Close all connections and take none, or take them again; what is stored stays."""
        change = "rd_kafka_mock_broker_set_down" if is_down else "rd_kafka_mock_broker_set_up"
        getattr(self._library, change)(self._cluster, _BROKER_ID)


def stream_prefix(card_path: Path) -> str:
    """What the stream ids of every embedded broker of one state folder start with.

    One broker serves a folder at a time, so a stream of this prefix that is not on
    the current card is gone for good.
    """
    place = f"{socket.gethostname()}:{card_path.absolute()}"
    return f"embedded-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def _load_library() -> Any:
    """librdkafka as the confluent-kafka wheel carries it, with the signatures used here."""
    import confluent_kafka

    package = Path(confluent_kafka.__file__).parent
    found = [
        *package.parent.glob("confluent_kafka.libs/librdkafka*.so*"),
        *package.glob(".dylibs/librdkafka*.dylib"),
    ]
    if not found:
        raise EmbeddedBrokerError(
            f"no librdkafka beside {package}: install the confluent-kafka wheel, "
            "or set PETWELLNESS_KAFKA_BOOTSTRAP_SERVERS to a real broker"
        )
    library = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_rtt": (number, [pointer, ctypes.c_int32, number]),
        "rd_kafka_mock_broker_set_down": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_broker_set_up": (number, [pointer, ctypes.c_int32]),
        "rd_kafka_mock_partition_delete_records": (
            number,
            [pointer, text, ctypes.c_int32, ctypes.c_int64],
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
