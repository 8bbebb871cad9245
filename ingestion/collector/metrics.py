"""What the collector's service tells Prometheus: its report and its store's retries, read when they are asked for.

Nothing is counted twice: the engine counts into a `DrainReport`, here reports of
consecutive attempts are added up, so that no counter goes back when the service starts
over. Latencies are histograms, not percentiles: only those can be added up over time
and collectors, and percentiles since the start would hide the last hour. Names are
listed in docs/operations.md, alerts in infrastructure/monitoring.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector as MetricsSource

from contracts.decoders import DECODERS
from contracts.telemetry import REJECT_REASONS
from ingestion.collector.consent import REASONS as CONSENT_REASONS
from ingestion.collector.ranges import decoder_label
from ingestion.collector.report import LATENCY_BOUNDS_S, ROTATION_REASONS, DrainReport, Landed, Latencies
from lake.landing import utc_now
from lake.store import RETRY_CLIENT, RETRY_CONFLICT

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

ADDRESS = "127.0.0.1"
PORT_SETTING = "PETWELLNESS_COLLECTOR_METRICS_PORT"
PREFIX = "petwellness_collector_"

# Every seventh bound of the report's counts, 10 ms to an hour: 41 % apart, and exact.
_BUCKETS = range(49, 310, 7)

# Counters without labels: name, field of the report, meaning.
_PLAIN = (
    ("consumed_messages", "messages", "Messages taken from the broker; some again after a restart."),
    ("consumed_bytes", "bytes", "Bytes of those messages."),
    ("landed_rows", "rows", "Events in durable files."),
    ("landed_files", "files", "Durable files, also those without rows."),
    ("landed_file_bytes", "file_bytes", "Bytes of durable files."),
    ("offset_gaps", "offset_gaps", "Offsets of landed ranges without a message: gone from the log."),
    (
        "gap_claims",
        "gap_claims",
        "Holes closed because the log started later than the chain of claims ended.",
    ),
    ("claims_lost", "claims_lost", "Ranges that another collector had claimed first."),
    ("claims_recovered", "recovered_claims", "Claims of others, or of former starts, finished by this one."),
    ("pauses", "pauses", "Times that consuming paused because the lake was slow."),
)
# Counters by reason: name, field, meaning, reasons that are there from the start.
_BY_REASON = (
    ("consent_dropped", "consent_dropped_by_reason", "Messages dropped for consent.", CONSENT_REASONS),
    ("rotations", "rotations_by_reason", "Ranges claimed, by why they ended.", ROTATION_REASONS),
)
# Counters by source and decoder, so that no source's rejects vanish in what the others send.
_MESSAGES, _REJECTS = "source_messages", "rejects"


class MetricsPortError(Exception):
    """The metrics cannot be served on the port that the settings name."""


@dataclass(frozen=True)
class _Totals:
    """Counts of one or several attempts; values by name and labels."""

    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    latency_counts: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_sum_s: float = 0.0

    @classmethod
    def of(cls, report: DrainReport) -> _Totals:
        """A report's counts now. Copying a dictionary or list is one step, so another thread may go on counting."""
        counts: Counter[tuple[str, ...]] = Counter(
            {(name, ""): getattr(report, attribute) for name, attribute, _ in _PLAIN}
        )
        for name, attribute, _, _ in _BY_REASON:
            counts.update({(name, reason): n for reason, n in dict(getattr(report, attribute)).items()})
        counts.update({(_MESSAGES, *source): n for source, n in dict(report.messages_by_source).items()})
        for source, rejects in report.rejects_by_source.items():
            counts.update({(_REJECTS, *source, reason): n for reason, n in rejects.items()})
        return cls(counts, report.latencies.counts.copy(), report.latencies.sum_s)

    def plus(self, other: _Totals) -> _Totals:
        counts = self.counts.copy()
        counts.update(other.counts)
        buckets = [a + b for a, b in zip(self.latency_counts, other.latency_counts, strict=True)]
        return _Totals(counts, buckets, self.latency_sum_s + other.latency_sum_s)


class CollectorMetrics(MetricsSource):
    """The metrics of one service over all its attempts. Safe to ask from other threads.

    `retries` gives the store's retries by reason, `now` the wall clock (naive UTC).
    """

    def __init__(
        self,
        retries: Callable[[], Mapping[str, int]] = dict,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._retries = retries
        self._now = now
        self._lock = threading.Lock()
        self._former = _Totals()
        self._report = DrainReport()
        self._consent_built_at: datetime | None = None
        self._restarts: Counter[str] = Counter()
        self._arrivals = Latencies()
        self._landed_at = time.monotonic()

    def follow(self, report: DrainReport) -> None:
        """Go on with the report of a new attempt; what the one before counted stays counted."""
        with self._lock:
            self._former = self._former.plus(_Totals.of(self._report))
            self._consent_built_at = self._report.consent_built_at or self._consent_built_at
            self._report = report

    def note_landed(self, landed: Landed) -> None:
        """A file is durable."""
        oldest = landed.manifest.min_arrival_ts
        with self._lock:
            self._landed_at = max(self._landed_at, landed.landed_at)
            if oldest is not None:
                waited_s = max(0.0, (self._now() - oldest).total_seconds())
                self._arrivals.add([(0.0, 1)], waited_s)

    def note_restart(self, error: Exception) -> None:
        """An attempt ended with an error."""
        with self._lock:
            self._restarts[type(error).__name__] += 1

    def describe(self) -> list[Metric]:
        """Nothing: names are known without asking a running service."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics as of now."""
        with self._lock:
            report = self._report
            totals = self._former.plus(_Totals.of(report))
            restarts = dict(self._restarts)
            arrivals, arrival_sum_s = self._arrivals.counts.copy(), self._arrivals.sum_s
            quiet_s = time.monotonic() - self._landed_at
            built_at = report.consent_built_at or self._consent_built_at
        for name, _, meaning in _PLAIN:
            yield CounterMetricFamily(PREFIX + name, meaning, value=totals.counts[name, ""])
        for name, _, meaning, reasons in _BY_REASON:
            seen = _labelled(totals, name)
            yield _counter(name, meaning, ("reason",), {**{(reason,): 0 for reason in reasons}, **seen})
        yield _counter(
            _MESSAGES,
            "Messages of landed ranges, by who sent and what decoded them.",
            ("source", "decoder"),
            {**dict.fromkeys(_sources(), 0), **_labelled(totals, _MESSAGES)},
        )
        yield _counter(
            _REJECTS,
            "Messages set aside, by who sent and what decoded them, and by the rule they break.",
            ("source", "decoder", "reason"),
            {
                **{(*source, reason): 0 for source in _sources() for reason in REJECT_REASONS},
                **_labelled(totals, _REJECTS),
            },
        )
        yield _counter(
            "store_retries",
            "Requests to the store that were sent again.",
            ("reason",),
            {(reason,): n for reason, n in {RETRY_CONFLICT: 0, RETRY_CLIENT: 0, **self._retries()}.items()},
        )
        yield _counter(
            "restarts",
            "Attempts that ended with an error, by its type.",
            ("error",),
            {(error,): n for error, n in restarts.items()},
        )
        yield _histogram(
            "receipt_to_file_seconds",
            "From the receipt of a message by the collector to its durable file, by message.",
            totals.latency_counts,
            totals.latency_sum_s,
        )
        yield _histogram(
            "arrival_to_file_seconds",
            "From the arrival in Kafka of a file's oldest event to the durable file, by file.",
            arrivals,
            arrival_sum_s,
        )
        lag = GaugeMetricFamily(
            f"{PREFIX}lag_messages",
            "Offsets in the log of an assigned partition behind the last claimed range.",
            labels=["topic", "partition"],
        )
        for (topic, partition), behind in sorted(report.lag_by_partition.items()):
            lag.add_metric([topic, str(partition)], behind)
        yield lag
        yield GaugeMetricFamily(
            f"{PREFIX}last_file_age_seconds", "Since the last durable file, or the start.", quiet_s
        )
        if built_at is not None:
            age_s = (self._now() - built_at).total_seconds()
            yield GaugeMetricFamily(
                f"{PREFIX}consent_snapshot_age_seconds", "Age of the consent snapshot in force.", age_s
            )


def _sources() -> list[tuple[str, ...]]:
    """Those that are there from the start, so that the first rise of each is seen."""
    return [(decoder.source_system, decoder_label(decoder)) for decoder in DECODERS.values()]


def _labelled(totals: _Totals, name: str) -> dict[tuple[str, ...], int]:
    return {labels: n for (of, *rest), n in totals.counts.items() if of == name and (labels := tuple(rest))}


def _counter(
    name: str, meaning: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, meaning, labels=labels)
    for of, count in sorted(values.items()):
        family.add_metric(of, count)
    return family


def _histogram(name: str, meaning: str, counts: list[int], sum_s: float) -> Metric:
    buckets = [(str(LATENCY_BOUNDS_S[i]), sum(counts[: i + 1])) for i in _BUCKETS]
    return HistogramMetricFamily(
        PREFIX + name, meaning, buckets=[*buckets, ("+Inf", sum(counts))], sum_value=sum_s
    )


@contextlib.contextmanager
def serve_metrics(metrics: CollectorMetrics, port: int, host: str = ADDRESS) -> Iterator[None]:
    """Answer GET /metrics on this address while the context is open; port 0 answers nobody.

    Raises MetricsPortError when the port is taken.
    """
    if port == 0:
        yield
        return
    server, thread = _listen(metrics, port, host)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(metrics: CollectorMetrics, port: int, host: str) -> tuple[WSGIServer, Thread]:
    from prometheus_client import start_http_server

    registry = CollectorRegistry()
    registry.register(metrics)
    ProcessCollector(registry=registry)
    try:
        return start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise MetricsPortError(
            f"metrics cannot be served on {host}:{port} ({error.strerror or error}); "
            f"choose another port (--metrics-port or {PORT_SETTING})"
        ) from error
