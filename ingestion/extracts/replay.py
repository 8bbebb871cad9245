"""Real telemetry as messages in order of receipt, one wave per file, with the original arrival times.

A wave's id follows from the file's content, so a wave published and landed once is
known again. What the messages mean is the decoders' business; sending them is that
of `ingestion.broker`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import NamedTuple

from contracts.decoders import campusiot, movebank
from contracts.records import canonical_json
from contracts.telemetry import RejectError
from ingestion.extracts.files import SourceFile, read_csv, read_source
from ingestion.extracts.model import Problem
from ingestion.extracts.tracker import FILE as TRACKER_FILE
from ingestion.extracts.tracker import read_frames

FIXES_FILE = "telemetry/cats_uk.csv"
FIX_COLUMNS = (
    "tag_id",
    "event_id",
    "visible",
    "timestamp",
    "location_long",
    "location_lat",
    "algorithm_marked_outlier",
    "manually_marked_outlier",
)
BATCH_MESSAGES = 1_000


class ReplayMessage(NamedTuple):
    """One message; `key` keeps a device in one partition, `arrival_ts_ms` is the original receipt."""

    topic: str
    key: bytes
    value: bytes
    arrival_ts_ms: int


@dataclass(frozen=True)
class TelemetryWave:
    """The messages of one file in order of receipt; iterating gives them in batches.

    `rows_read` rows of `file` became one message each or one problem each.
    """

    wave_id: str
    file: str
    topic: str
    source_system: str
    rows_read: int
    messages: list[ReplayMessage] = field(repr=False)
    problems: list[Problem]

    def __iter__(self) -> Iterator[list[ReplayMessage]]:
        for start in range(0, len(self.messages), BATCH_MESSAGES):
            yield self.messages[start : start + BATCH_MESSAGES]


def telemetry_messages(data_dir: Path) -> dict[str, TelemetryWave]:
    """The waves of all telemetry files by wave id.

    Raises MissingSourceError, MissingColumnError or SourceFormatError before any message is handed over.
    """
    waves = [read(read_source(data_dir, name)) for name, read in TELEMETRY_FILES.items()]
    return {wave.wave_id: wave for wave in waves}


def tracker_wave(file: SourceFile) -> TelemetryWave:
    """Tracker frames, each as the line it is, received at the server's time."""
    frames, problems, lines = read_frames(file)
    messages = [
        ReplayMessage(campusiot.TOPIC, frame.device_id.encode(), frame.value, frame.arrival_ts_ms)
        for frame in frames
    ]
    return TelemetryWave(
        _wave_id(campusiot.TOPIC, file),
        file.name,
        campusiot.TOPIC,
        campusiot.SOURCE_SYSTEM,
        lines,
        messages,
        problems,
    )


def cat_wave(file: SourceFile) -> TelemetryWave:
    """Fixes of the cats' collars, each row as a JSON object of its texts.

    The export has one time only: the fix's own is taken as the time of receipt, so
    nothing of this wave is late or out of order, which says nothing about the collars.
    """
    table = read_csv(file, FIX_COLUMNS)
    problems = list(table.problems)
    timed: list[tuple[int, int, ReplayMessage]] = []
    for line, row in table.rows:
        try:
            moment = movebank.parse_timestamp(row["timestamp"])
        except RejectError as reject:
            problems.append(Problem(file.name, line, "no_arrival_time", reject.detail))
            continue
        arrival_ts_ms = int(moment.replace(tzinfo=UTC).timestamp() * 1000)
        value = canonical_json(row).encode()
        message = ReplayMessage(movebank.TOPIC, row["tag_id"].encode(), value, arrival_ts_ms)
        timed.append((arrival_ts_ms, line, message))
    timed.sort(key=lambda one: one[:2])
    return TelemetryWave(
        _wave_id(movebank.TOPIC, file),
        file.name,
        movebank.TOPIC,
        movebank.SOURCE_SYSTEM,
        table.rows_read,
        [message for _, _, message in timed],
        problems,
    )


TELEMETRY_FILES: dict[str, Callable[[SourceFile], TelemetryWave]] = {
    TRACKER_FILE: tracker_wave,
    FIXES_FILE: cat_wave,
}


def _wave_id(topic: str, file: SourceFile) -> str:
    return f"{topic}-{file.sha256[:16]}"
