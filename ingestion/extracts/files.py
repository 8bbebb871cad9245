"""Reading of source files: CSV rows with their lines, hashes of content, clear errors.

Nothing here knows what a file means; that is the business of each source.
"""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path

from ingestion.extracts.model import (
    MissingColumnError,
    MissingSourceError,
    Problem,
    SourceFormatError,
)

# Part of every extract id: raise it when a source maps the same files to other records.
MAPPING_VERSION = 1

CsvRow = dict[str, str]


@dataclass(frozen=True)
class SourceFile:
    """A file of the data folder, read once: `name` relative to the folder, and its bytes."""

    name: str
    content: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def read_source(data_dir: Path, name: str) -> SourceFile:
    """A file of the data folder. Raises MissingSourceError naming the folder or file."""
    if not data_dir.is_dir():
        raise MissingSourceError(f"data folder '{data_dir}' does not exist; give the folder of the real data")
    path = data_dir / name
    try:
        return SourceFile(name, path.read_bytes())
    except FileNotFoundError:
        raise MissingSourceError(f"'{name}' is not in the data folder '{data_dir}'") from None


def find_sources(data_dir: Path, pattern: str) -> list[SourceFile]:
    """The files of a pattern in the order of their names. Raises MissingSourceError when there is none."""
    if not data_dir.is_dir():
        raise MissingSourceError(f"data folder '{data_dir}' does not exist; give the folder of the real data")
    names = sorted(path.relative_to(data_dir).as_posix() for path in data_dir.glob(pattern))
    if not names:
        raise MissingSourceError(f"no file '{pattern}' in the data folder '{data_dir}'")
    return [read_source(data_dir, name) for name in names]


@dataclass
class CsvTable:
    """The rows of a CSV file with their lines, and the rows that have another number of fields."""

    rows: list[tuple[int, CsvRow]]
    problems: list[Problem]

    @property
    def rows_read(self) -> int:
        return len(self.rows) + len(self.problems)


def read_csv(file: SourceFile, required: Sequence[str]) -> CsvTable:
    """Read a UTF-8 CSV file (with or without BOM) whose header holds `required`.

    Values stay text. Raises MissingColumnError naming file and columns,
    SourceFormatError for bytes that are not UTF-8, quotes that do not close, or a
    column named twice.
    """
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceFormatError(f"{file.name} is not UTF-8 (byte {error.start})") from None
    records = _records(file.name, text)
    header = next(records, (1, []))[1]
    missing = [name for name in required if name not in header]
    if missing:
        raise MissingColumnError(file.name, missing)
    if len(set(header)) != len(header):
        raise SourceFormatError(f"{file.name} names a column twice")
    table = CsvTable([], [])
    for line, values in records:
        if len(values) == len(header):
            table.rows.append((line, dict(zip(header, values, strict=True))))
        else:
            detail = f"{len(values)} fields where the header has {len(header)}"
            table.problems.append(Problem(file.name, line, "malformed_row", detail))
    return table


def _records(name: str, text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for values in reader:
            yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise SourceFormatError(f"{name} is not valid CSV at line {line}: {error}") from None


def extract_id(feed: str, extracted_at: datetime, files: Sequence[SourceFile]) -> str:
    """`YYYYMMDD-<16 hex digits>` of the feed, the mapping version and the content of the files."""
    digest = hashlib.sha256(f"{feed}\n{MAPPING_VERSION}\n".encode())
    for file in files:
        digest.update(file.sha256.encode())
    return f"{extracted_at:%Y%m%d}-{digest.hexdigest()[:16]}"
