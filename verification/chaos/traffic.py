"""What is sent, and what has to become of it: messages with a known fate, and the ledger of those delivered.

Every message's fate (row, reject with its reason, dropped for consent) is decided
here when it is made; the ledger fills from the broker's delivery reports.
"""

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

ROW = "row"
DROPPED = "dropped"
# Household of these devices refused analytics.
OPTED_OUT = ("collar-out-1", "collar-out-2")
DEVICES = 40

# The embedded broker forgets silently beyond 5 MB in a partition.
MAX_PARTITION_BYTES = 3_800_000
BURST = 50
# Once enough was sent, only so many that there is something to collect until the last fault fired.
TRICKLE = 600


@dataclass(frozen=True, slots=True)
class Record:
    """One produced message and its fate: ROW, DROPPED or the reason of its rejection.

    `keeps_payload` is false for rejects that mention an opted-out device.
    """

    value: bytes | None
    fate: str
    event_id: str | None
    keeps_payload: bool = True


Ledger = dict[tuple[str, int], dict[int, Record]]
"""Delivered records by (stream_id, partition) and offset."""


def messages(seed: int) -> Iterator[Record]:
    """Messages without end: about 90 % good, 5 % bad in eight ways, 5 % of opted-out devices."""
    draws = random.Random(seed)
    number = 0
    while True:
        number += 1
        draw = draws.random()
        if draw < 0.90:
            event = _event(seed, number, f"collar-{number % DEVICES:03}", draws)
            yield Record(_bytes(event), ROW, event["event_id"])
        elif draw < 0.95:
            yield _bad(seed, number, draws)
        else:
            event = _event(seed, number, draws.choice(OPTED_OUT), draws)
            if draw < 0.99:
                yield Record(_bytes(event), DROPPED, None)
            else:
                yield Record(_bytes(event | {"battery_pct": 400}), "range", None, keeps_payload=False)


def _event(seed: int, number: int, device_id: str, draws: random.Random) -> dict[str, Any]:
    moment = datetime.now(UTC) - timedelta(seconds=draws.uniform(1, 3600))
    return {
        "device_id": device_id,
        "event_ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_id": f"e-{seed}-{number}",
        "accel_x_g": round(draws.uniform(-2, 2), 4),
        "step_count": draws.randrange(100),
        "gps_lat": round(47 + draws.random(), 7),
        "gps_long": round(8 + draws.random(), 7),
        "battery_pct": round(draws.uniform(0, 100), 1),
        "schema_version": 1,
    }


def _bad(seed: int, number: int, draws: random.Random) -> Record:
    event = _event(seed, number, f"collar-{number % DEVICES:03}", draws)
    value: bytes | None
    match draws.randrange(8):
        case 0:
            value, reason = None, "empty"
        case 1:
            value, reason = b"", "empty"
        case 2:
            value, reason = _bytes(event)[:-1], "malformed"
        case 3:
            value, reason = _bytes(event) + _bytes(event), "malformed"
        case 4:
            value, reason = _bytes(event | {"battery_pct": 150}), "range"
        case 5:
            value, reason = _bytes(event | {"step_count": True}), "type"
        case 6:
            del event["device_id"]
            value, reason = _bytes(event), "missing"
        case _:
            value, reason = _bytes(event | {"event_ts": "2020-01-01T00:00:00Z"}), "clock"
    return Record(value, reason, None)


def _bytes(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode()


@dataclass
class Traffic:
    """A producer in a thread of its own: at least `count` messages, and on until it is told to end.

    Sends `rate` messages a second to partitions in turn. `ledger` is complete after `finish()`.
    With `transactional` each burst is a transaction and every fourth is aborted: what readers
    of committed messages never see is not in the ledger, and offsets have gaps.
    """

    producer: Any
    topic: str
    partitions: int
    seed: int
    count: int
    rate: int
    ledger: Ledger
    stream_id: str
    bounded: bool
    # End of each partition's log as far as acknowledged.
    ends: dict[int, int]
    transactional: bool = False
    aborted: int = 0
    sent: int = 0
    delivered: int = 0
    errors: list[str] = field(default_factory=list)
    _enough: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to produce."""
        for partition in range(self.partitions):
            self.ledger.setdefault((self.stream_id, partition), {})
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._thread.start()

    def enough(self) -> None:
        """Stop once `count` is reached."""
        self._enough.set()

    @property
    def started(self) -> bool:
        return self._thread is not None

    def abandon(self) -> None:
        """Stop now, whatever was sent."""
        self.count = 0
        self._enough.set()
        if self._thread is not None:
            self._thread.join()

    def cut_short(self, timeout_s: float = 60.0) -> None:
        """Send no more, and wait until what was sent is acknowledged. Raises TimeoutError, RuntimeError."""
        self.count = 0
        self.finish(timeout_s)

    @property
    def count_reached(self) -> bool:
        return self.sent >= self.count

    def finish(self, timeout_s: float) -> None:
        """Wait until everything is sent and acknowledged. Raises TimeoutError, RuntimeError."""
        self.enough()
        assert self._thread is not None
        self._thread.join(timeout_s)
        left = self.producer.flush(timeout_s)
        if self._thread.is_alive() or left:
            raise TimeoutError(f"{left} messages were not delivered within {timeout_s:.0f} s")
        if self.errors:
            raise RuntimeError(f"{len(self.errors)} messages were not delivered, the first: {self.errors[0]}")

    def _run(self) -> None:
        try:
            self._produce()
        except Exception as error:
            self.errors.append(f"the producer ended: {type(error).__name__}: {error}")

    def _produce(self) -> None:
        source, sizes = messages(self.seed), [0] * self.partitions
        due, bursts = time.monotonic(), 0
        if self.transactional:
            self.producer.init_transactions(60)
        while not (self._enough.is_set() and self.sent >= self.count):
            if self.bounded and max(sizes) > MAX_PARTITION_BYTES:
                self.errors.append("the embedded broker is full before the scenario was through")
                return
            burst: list[tuple[int, int, Record]] = []
            if self.transactional:
                self.producer.begin_transaction()
            for _ in range(BURST):
                record, partition = next(source), self.sent % self.partitions
                sizes[partition] += len(record.value or b"") + 64
                self._send(record, partition, burst)
                self.sent += 1
            bursts += 1
            if self.transactional:
                self._end_transaction(burst, commit=bursts % 4 != 0)
            rate = min(self.rate, TRICKLE) if self.count_reached else self.rate
            due = max(due + BURST / rate, time.monotonic() - 1)
            while (left_s := due - time.monotonic()) > 0:
                self.producer.poll(left_s)

    def _end_transaction(self, burst: list[tuple[int, int, Record]], commit: bool) -> None:
        self.producer.flush(60)
        if commit:
            self.producer.commit_transaction(60)
            for partition, offset, record in burst:
                self._deliver(partition, offset, record)
        else:
            self.producer.abort_transaction(60)
            self.aborted += len(burst)

    def _send(self, record: Record, partition: int, burst: list[tuple[int, int, Record]]) -> None:
        def report(error: Any, message: Any) -> None:
            if error is not None:
                self.errors.append(f"{message.topic()}[{message.partition()}]: {error.str()}")
            elif self.transactional:
                burst.append((partition, message.offset(), record))
            else:
                self._deliver(partition, message.offset(), record)

        self.producer.produce(
            self.topic, record.value, b"k", partition, timestamp=int(time.time() * 1000), on_delivery=report
        )

    def _deliver(self, partition: int, offset: int, record: Record) -> None:
        delivered = self.ledger[self.stream_id, partition]
        if offset in delivered:
            self.errors.append(f"offset {offset} of partition {partition} was delivered twice")
        delivered[offset] = record
        self.ends[partition] = max(self.ends.get(partition, 0), offset + 1)
        self.delivered += 1
