"""The collector under the current settings: a drain for the asset, a service for collectors beside the graph.

The engine is `ingestion.collector`; here it gets its topics, its settings and
someone to report to.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from contracts.memory import release_memory
from petwellness_orchestration import sources
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import TOPICS_SETTING, PlatformSettings

if TYPE_CHECKING:
    from ingestion.collector.engine import Collector
    from ingestion.collector.report import DrainReport, Landed
    from lake.store import ObjectStore


def drain_telemetry(
    settings: PlatformSettings, store: ObjectStore, say: Callable[[str], None]
) -> dict[str, Any]:
    """Drain every topic to the present; the asset's metadata.

    Waits for waves that a publisher of this state folder still has to send.
    Where collectors run as a service, only what the lake holds is reported.
    """
    if settings.collector.as_service:
        return _landed_metadata(store)
    report = _collector(settings, store).drain(
        until=lambda: sources.publisher_is_through(settings.state.home), progress=_progress_line(say)
    )
    release_memory()
    return drain_metadata(report)


def serve_telemetry(settings: PlatformSettings, stop: threading.Event, metrics_port: int) -> None:
    """Collect until `stop` is set, then land what is buffered; start over after failures that pass.

    Logs JSON lines. Raises what the first connection raises, MetricsPortError.
    """
    from ingestion.collector.logline import LOGGER, fields_of, landed_fields
    from ingestion.collector.metrics import CollectorMetrics, serve_metrics
    from ingestion.collector.service import Failure, serve

    log = logging.getLogger(LOGGER)
    store = open_lake(settings)
    metrics = CollectorMetrics(lambda: store.retries)

    def on_landed(landed: Landed) -> None:
        metrics.note_landed(landed)
        log.info("file_landed", extra=fields_of(landed_fields(landed)))

    def make() -> Collector:
        collector = _collector(settings, store, on_landed)
        metrics.follow(collector.report)
        return collector

    def on_failure(failure: Failure) -> None:
        metrics.note_restart(failure.error)
        fields = {
            "error": type(failure.error).__name__,
            "text": str(failure.error),
            "retry_in_s": failure.retry_in_s,
            "left": failure.left,
        }
        log.error("failed", extra=fields_of(fields))

    with serve_metrics(metrics, metrics_port, settings.collector.metrics_host):
        log.info("started", extra=fields_of({"lake": store.url, "metrics_port": metrics_port}))
        # What cannot be reached as configured is raised: whoever starts the service shall see it.
        first = [make()]
        left = serve(lambda: first.pop() if first else make(), stop, on_failure)
        log.info("stopped", extra=fields_of({"left": left}))


def drain_metadata(report: DrainReport) -> dict[str, Any]:
    """Totals of one drain as plain values: rows, rejects, bytes, latency, offsets by partition."""
    return {
        "messages": report.messages,
        "rows": report.rows,
        "rejected": sum(report.rejected_by_reason.values()),
        "rejected_by_reason": dict(sorted(report.rejected_by_reason.items())),
        "rejected_by_source": {
            f"{source}/{decoder}": f"{rejects.total()} of {report.messages_by_source[source, decoder]}"
            for (source, decoder), rejects in sorted(report.rejects_by_source.items())
        },
        "consent_dropped": report.consent_dropped,
        "consent_dropped_by_reason": dict(sorted(report.consent_dropped_by_reason.items())),
        "offset_gaps": report.offset_gaps,
        "message_bytes": report.bytes,
        "files": report.files,
        "file_bytes": report.file_bytes,
        "ranges_by_partition": dict(sorted(report.ranges_by_partition.items())),
        "rotations_by_reason": dict(sorted(report.rotations_by_reason.items())),
        "recovered_claims": report.recovered_claims,
        "claims_lost": report.claims_lost,
        "gap_claims": report.gap_claims,
        "pauses": report.pauses,
        "seconds": round(report.seconds, 3),
        **{f"landing_latency_{name}_s": round(value, 3) for name, value in report.latency_s.items()},
    }


def _collector(
    settings: PlatformSettings, store: ObjectStore, on_landed: Callable[[Landed], None] | None = None
) -> Collector:
    from ingestion.broker.client import connect
    from ingestion.collector.engine import Collector

    client = connect(settings.broker, settings.state.home)
    client.check_topics(settings.topics, f", or take it out of {TOPICS_SETTING}")
    return Collector(client, store, settings.collector, settings.topics, on_landed=on_landed)


def _progress_line(say: Callable[[str], None]) -> Callable[[DrainReport], None]:
    """Report at each further 100,000 messages."""
    reported = 0

    def report(progress: DrainReport) -> None:
        nonlocal reported
        if progress.messages // 100_000 > reported:
            reported = progress.messages // 100_000
            say(f"{progress.messages:,} messages collected, {progress.files:,} files landed")

    return report


def _landed_metadata(store: ObjectStore) -> dict[str, Any]:
    from contracts.registry import TELEMETRY_FEED
    from lake.landing import list_manifests

    landed = [m for m in list_manifests(store) if m.feed == TELEMETRY_FEED]
    newest = max((m.max_arrival_ts for m in landed if m.max_arrival_ts is not None), default=None)
    return {
        "collected_by": "collectors that run as a service",
        "rows": sum(m.rows for m in landed),
        "files": len(landed),
        "file_bytes": sum(m.bytes for m in landed),
        "newest_arrival_ts": newest.isoformat() if newest else "none",
    }
