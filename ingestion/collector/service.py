"""A collector that goes on after failures: when the store, the broker or the consent snapshot fails, it starts over.

Starting over is always right, because where to resume is in the lake. What failed is
logged once per attempt; attempts are apart by a growing delay. The loop itself is in
`engine`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ingestion.broker.client import BrokerUnreachableError, StreamReplacedError, UnknownTopicError
from ingestion.collector.consent import ConsentSnapshotStaleError
from ingestion.collector.engine import Collector
from ingestion.collector.recovery import LogTruncatedError
from ingestion.collector.report import DrainReport
from ingestion.lake.store import StoreError

FIRST_DELAY_S = 1.0
LAST_DELAY_S = 60.0
# After so long without a failure the next one is a new one.
CALM_S = 300.0

# What goes away by itself or by somebody's hand outside this process.
PASSING = (
    BrokerUnreachableError,
    ConsentSnapshotStaleError,
    LogTruncatedError,
    StoreError,
    StreamReplacedError,
    UnknownTopicError,
)

_log = logging.getLogger(__name__)


def serve(
    make: Callable[[], Collector],
    stop: threading.Event,
    progress: Callable[[DrainReport], None] | None = None,
    on_failure: Callable[[Exception, float], None] | None = None,
) -> None:
    """Run collectors that `make` builds, one after another, until `stop` is set.

    `on_failure` hears what failed and after how many seconds the next attempt starts;
    without it the failure is logged. Errors that only a change of the program or its
    settings can mend are raised.
    """
    from confluent_kafka import KafkaException

    delay_s = FIRST_DELAY_S
    while not stop.is_set():
        started = time.monotonic()
        try:
            make().run_forever(stop, progress)
            return
        except (*PASSING, KafkaException) as error:
            if time.monotonic() - started >= CALM_S:
                delay_s = FIRST_DELAY_S
            if on_failure is None:
                _log.error(
                    "the collector starts over in %.0f s: %s: %s", delay_s, type(error).__name__, error
                )
            else:
                on_failure(error, delay_s)
        stop.wait(delay_s)
        delay_s = min(LAST_DELAY_S, 2 * delay_s)
