"""What the collector's service logs: one JSON object per line, at once, for programs to read.

No payloads, devices or people are named. Who logs what is in the modules that do it;
here are the form of a line and the content of the one per landed file.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from ingestion.collector.report import Landed

LOGGER = "petwellness.collector"
# Whose lines are printed: the service's own and what the library has to say.
_LOGGERS = (LOGGER, "ingestion")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, event, and the fields it was logged with.

    `logger.info("file_landed", extra=fields_of({...}))` gives the fields; a record
    without any is an `event` of "log" with its `message` and `logger`.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", None)
        line: dict[str, Any] = {
            "time": _iso(datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)),
            "level": record.levelname.lower(),
        }
        if fields is None:
            line |= {"event": "log", "logger": record.name, "message": record.getMessage()}
        else:
            line |= {"event": record.getMessage(), **fields}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def fields_of(fields: dict[str, Any]) -> dict[str, Any]:
    """`extra` of a logging call that carries the fields of a line."""
    return {"fields": fields}


def log_json(stream: TextIO | None = None) -> logging.Handler:
    """Print the service's lines to `stream` (standard output); returns the handler, to be removed by whoever wants."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonLines())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return handler


def landed_fields(landed: Landed) -> dict[str, Any]:
    """What is said of one landed file; the law holds: rows + rejected + consent_dropped + offset_gaps = end - start.

    Seconds: `latency_max_s` from the receipt of its first message to the durable file,
    `landing_s` of that decoding and storing. `bytes` is the size of the file.
    """
    manifest = landed.manifest
    fields: dict[str, Any] = {
        "topic": landed.topic,
        "stream_id": manifest.stream_id,
        "partition": manifest.partition,
        "start": manifest.start,
        "end": manifest.end,
        "rows": manifest.rows,
        "rejected": manifest.rejected_by_reason,
        "consent_dropped": manifest.consent_dropped,
        "consent_dropped_by_reason": manifest.consent_dropped_by_reason,
        "offset_gaps": manifest.offset_gaps,
        "bytes": manifest.bytes,
        "reason": landed.reason,
        "latency_max_s": round(landed.latency_max_s, 3),
        "landing_s": round(landed.landing_s, 3),
        "ingested_at": _iso(manifest.ingested_at),
        "file": manifest.source_file,
    }
    if manifest.gap_reason is not None:
        fields["gap_reason"] = manifest.gap_reason
    return fields


def _iso(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='microseconds')}Z"
