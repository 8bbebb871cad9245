"""A collector that goes on after failures: when the store, the broker or the consent snapshot fails, it starts over.

Starting over is always right, because where to resume is in the lake. Attempts are
apart by a growing delay. The loop of one attempt is in `engine`; who hears of
failures, and how a process is stopped, is the caller's business.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ingestion.broker.client import BrokerUnreachableError, StreamReplacedError, UnknownTopicError
from ingestion.collector.consent import ConsentSnapshotStaleError
from ingestion.collector.engine import Collector, StopTimeoutError
from ingestion.collector.recovery import LogTruncatedError
from lake.store import StoreError

FIRST_DELAY_S = 1.0
LAST_DELAY_S = 60.0
# After so long without a failure the next one is a new one.
CALM_S = 300.0

# What goes away by itself or by somebody's hand outside this process.
PASSING = (
    BrokerUnreachableError,
    ConsentSnapshotStaleError,
    LogTruncatedError,
    StopTimeoutError,
    StoreError,
    StreamReplacedError,
    UnknownTopicError,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """What ended an attempt.

    `retry_in_s` is None after a stop. `left` counts messages that were consumed and not
    landed, by partition: the next attempt, or the next start, takes them up.
    """

    error: Exception
    retry_in_s: float | None
    left: dict[str, int] = field(default_factory=dict)


def log_failure(failure: Failure) -> None:
    """Say what failed, and when it is tried again."""
    _log.error(
        "the collector failed, next attempt in %s s: %s: %s",
        failure.retry_in_s,
        type(failure.error).__name__,
        failure.error,
    )


def serve(
    make: Callable[[], Collector],
    stop: threading.Event,
    on_failure: Callable[[Failure], None] = log_failure,
) -> dict[str, int]:
    """Run collectors that `make` builds, one after another, until `stop` is set; what is left, by partition.

    `on_failure` hears of every attempt that failed. Raised are errors that only a
    change of the program or its settings can mend.
    """
    from confluent_kafka import KafkaException

    delays = _delays()
    left: dict[str, int] = {}
    while True:
        started = time.monotonic()
        collector = None
        try:
            collector = make()
            return collector.run_forever(stop).left_by_partition
        except (*PASSING, KafkaException) as error:
            if time.monotonic() - started >= CALM_S:
                delays = _delays()
            if collector is not None and collector.report.messages:
                left = collector.report.left_by_partition
            delay_s = None if stop.is_set() else next(delays)
            on_failure(Failure(error, delay_s, left))
        if stop.wait(delay_s):
            return left


def _delays() -> Iterator[float]:
    delay_s = FIRST_DELAY_S
    while True:
        yield delay_s
        delay_s = min(LAST_DELAY_S, 2 * delay_s)
