"""What a collector did so far: totals, rotations, latencies. Counting only; who shows it is elsewhere."""

from __future__ import annotations

import bisect
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from ingestion.collector.buffer import Received
from lake.landing import Manifest

# Upper bounds of the latency counts: 1 ms to a day, 5 % apart, so that percentiles are within 5 %.
LATENCY_BOUNDS_S = tuple(float(f"{0.001 * 1.05**step:.4g}") for step in range(375))
# Why a range is closed: its size or age, the end of a drained log, the bound on memory, the stop of the collector.
ROTATION_REASONS = ("rows", "bytes", "age", "end_of_log", "memory", "stop")


class Latencies:
    """Counts of messages by latency, in memory that does not grow with them."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.sum_s = 0.0
        self.max_s = 0.0

    def add(self, received: Received, done_at: float) -> None:
        """Count messages received at some moments and durable at `done_at`."""
        for moment, count in received:
            latency_s = done_at - moment
            self.counts[bisect.bisect_left(LATENCY_BOUNDS_S, latency_s)] += count
            self.sum_s += latency_s * count
            self.max_s = max(self.max_s, latency_s)

    def percentiles(self) -> dict[str, float]:
        """p50, p95, p99 and maximum in seconds; {} before the first message."""
        total = sum(self.counts)
        if not total:
            return {}
        found = {
            name: self._rank(rank * total) for name, rank in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        }
        return {**found, "max": self.max_s}

    def _rank(self, rank: float) -> float:
        seen = 0
        for bound, count in zip(LATENCY_BOUNDS_S, self.counts, strict=False):
            seen += count
            if seen >= rank:
                return min(bound, self.max_s)
        return self.max_s


@dataclass(frozen=True, slots=True)
class Landed:
    """A range this collector landed or finished.

    `reason` says why it ended: as in `rotations_by_reason`, or "replay" (another's claim
    finished), "manifest" (only that was missing), "gap" (the log has lost it). `received`
    says when its messages came, `landed_at` when it was durable (both by the monotonic
    clock), `landing_s` how long its decoding and its puts took, without waiting for a
    thread.
    """

    topic: str
    manifest: Manifest
    reason: str
    landed_at: float
    landing_s: float = 0.0
    received: Received = field(default_factory=list)

    @property
    def latency_max_s(self) -> float:
        """How long its first message waited to become durable; 0 if it holds none."""
        return self.landed_at - self.received[0][0] if self.received else 0.0


Source = tuple[str, str]
"""Source system and decoder (`name@version`)."""


@dataclass
class DrainReport:
    """Totals of a driver; `bytes` are of messages, `file_bytes` of main objects.

    `latency_s` is from the receipt of a message by the collector to its manifest.
    By source are messages of landed ranges, also those dropped by consent, and rejects by reason.
    `rotations_by_reason` counts ranges this collector claimed, `claims_lost` those that
    another had claimed first, `recovered_claims` those it finished for another.
    `lag_by_partition` is what the log of each partition assigned now holds behind the
    last claimed range; `consent_built_at` (naive UTC) is of the snapshot in force.
    `left_by_partition` counts, at the end, messages consumed and not landed.
    """

    messages: int = 0
    rows: int = 0
    messages_by_source: Counter[Source] = field(default_factory=Counter)
    rejects_by_source: dict[Source, Counter[str]] = field(default_factory=dict)
    consent_dropped: int = 0
    consent_dropped_by_reason: Counter[str] = field(default_factory=Counter)
    offset_gaps: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    ranges_by_partition: Counter[str] = field(default_factory=Counter)
    rotations_by_reason: Counter[str] = field(default_factory=Counter)
    recovered_claims: int = 0
    claims_lost: int = 0
    gap_claims: int = 0
    pauses: int = 0
    lag_by_partition: dict[tuple[str, int], int] = field(default_factory=dict)
    consent_built_at: datetime | None = None
    left_by_partition: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    latency_s: dict[str, float] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies, repr=False)

    @property
    def rejected_by_reason(self) -> Counter[str]:
        """Rejects of all sources together."""
        return sum(self.rejects_by_source.values(), Counter())

    def add(self, manifest: Manifest) -> None:
        """Count a range that this driver landed or finished."""
        self.rows += manifest.rows
        source = manifest.source_system, manifest.decoder
        self.messages_by_source[source] += manifest.rows + manifest.rejected + manifest.consent_dropped
        if manifest.rejected_by_reason:
            # A new dictionary, for readers in other threads.
            before = self.rejects_by_source.get(source, Counter())
            rejects = before + Counter(manifest.rejected_by_reason)
            self.rejects_by_source = {**self.rejects_by_source, source: rejects}
        self.consent_dropped += manifest.consent_dropped
        self.consent_dropped_by_reason.update(manifest.consent_dropped_by_reason)
        self.offset_gaps += manifest.offset_gaps
        self.files += 1
        self.file_bytes += manifest.bytes
        self.ranges_by_partition[f"{manifest.stream_id}/{manifest.partition}"] += 1

    def settle(self, started: float) -> None:
        """Fill in the times."""
        self.seconds = time.monotonic() - started
        self.latency_s = self.latencies.percentiles()
