"""`petwellness collect --forever`: the collector as a process of its own, and how it ends in bounded time.

What it does meanwhile is in `collecting`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from petwellness_orchestration.cli.signals import stop_on_signals
from petwellness_orchestration.collecting import serve_telemetry
from petwellness_orchestration.settings import load_settings

# What joining a group or a request under way may still take after the time for landing is over.
MARGIN_S = 5.0


def serve_collector(metrics_port: int | None) -> int:
    """Collect until SIGTERM or SIGINT; 0 also when the lake was down by then, because nothing is lost."""
    from ingestion.collector.logline import log_json

    settings = load_settings()
    log_json()
    stop = stop_on_signals()
    allowed_s = settings.collector.stop_timeout_s + MARGIN_S
    threading.Thread(target=_end_in_time, args=(stop, allowed_s), daemon=True).start()
    serve_telemetry(settings, stop, settings.collector.metrics_port if metrics_port is None else metrics_port)
    return 0


def _end_in_time(stop: threading.Event, allowed_s: float) -> None:
    """End the process if it is still there so long after the stop: a crash at any moment is safe."""
    from ingestion.collector.logline import LOGGER, fields_of

    stop.wait()
    # Never set: a daemon thread that is still here after this time has outlived a stop that hangs.
    threading.Event().wait(allowed_s)
    fields = {"allowed_s": allowed_s, "text": "the next start takes up what is claimed and not landed"}
    logging.getLogger(LOGGER).error("stop_timed_out", extra=fields_of(fields))
    sys.stdout.flush()
    os._exit(0)
