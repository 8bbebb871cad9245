"""All real sources of a data folder, read at once.

Landing the extracts and publishing the waves are the caller's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingestion.extracts.breeds import read_breeds
from ingestion.extracts.cats import read_cats
from ingestion.extracts.model import Problem, RecordExtract, SourceRead
from ingestion.extracts.replay import TelemetryWave, telemetry_messages
from ingestion.extracts.shelter import read_shelter
from ingestion.extracts.tracker import read_trackers
from ingestion.extracts.zurich import read_registry

SOURCES: tuple[Callable[[Path], SourceRead], ...] = (
    read_registry,
    read_shelter,
    read_breeds,
    read_cats,
    read_trackers,
)


@dataclass(frozen=True)
class RealData:
    """Everything of a data folder: record extracts, telemetry waves by id, and all that does not fit.

    `rows_read` counts the rows of every file, lookups and telemetry included.
    """

    extracts: list[RecordExtract]
    problems: list[Problem]
    telemetry_sources: dict[str, TelemetryWave]
    rows_read: dict[str, int]


def load_all(data_dir: Path) -> RealData:
    """Read every source. Raises a SourceError that names the folder, file or column which is missing.

    Extracts come in an order that lands what others refer to first.
    """
    reads = [read(data_dir) for read in SOURCES]
    waves = telemetry_messages(data_dir)
    rows_read: dict[str, int] = {}
    for one in reads:
        rows_read |= one.rows_read | one.lookup_rows_read
    rows_read |= {wave.file: wave.rows_read for wave in waves.values()}
    return RealData(
        extracts=[extract for one in reads for extract in one.extracts],
        problems=[
            problem
            for part in (*(one.problems for one in reads), *(wave.problems for wave in waves.values()))
            for problem in part
        ],
        telemetry_sources=waves,
        rows_read=rows_read,
    )
