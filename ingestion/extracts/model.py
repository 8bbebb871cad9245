"""What every source hands over: extracts, problems, and the errors that stop a source.

Reading files lives in `files`; the sources themselves in modules of their own.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import pyarrow as pa


class SourceError(Exception):
    """A source that cannot be read as what it claims to be; nothing of it lands."""


class MissingSourceError(SourceError):
    """A folder or file of a source is not there."""


class MissingColumnError(SourceError):
    """A file lacks columns that its source needs."""

    def __init__(self, file: str, columns: list[str]) -> None:
        self.file = file
        self.columns = columns
        names = ", ".join(f"'{name}'" for name in columns)
        plural = "s" if len(columns) > 1 else ""
        super().__init__(f"{file} lacks the column{plural} {names}; nothing was loaded")


class SourceFormatError(SourceError):
    """A file that is not in the format its source promises."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A row, or part of one, that does not fit.

    `file` is relative to the data folder. `row` is the line a text editor shows
    (the header is line 1), for Parquet the row from 1. `reason` is a short stable
    code, `detail` says what is wrong without personal data. With `set_aside` the
    row makes no record of the feed that states it; otherwise that record is kept
    without the part that is wrong.
    """

    file: str
    row: int
    reason: str
    detail: str
    set_aside: bool = True


@dataclass(frozen=True, slots=True)
class RecordExtract:
    """One extract of one feed, ready for `lake.extract.land_extract`.

    `extract_id` follows from the content of the files and the version of the
    mapping, so the same files make the same extract. `complete` says that the
    extract states all that exists in its source at `extracted_at` (naive UTC);
    absence means something only between complete extracts of one source and feed.
    """

    source: str
    feed: str
    extract_id: str
    table: pa.Table
    complete: bool
    extracted_at: datetime

    @property
    def arguments(self) -> dict[str, Any]:
        """Itself as the keyword arguments of `land_extract`."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True, slots=True)
class SourceRead:
    """All that reading one source gave.

    `row_feed` is the feed whose records stand for rows. `rows_read` counts the rows of
    each file; each of them is a record of `row_feed` or one problem that is set aside.
    `lookup_rows_read` counts rows of files that only complete other records.
    """

    row_feed: str
    extracts: list[RecordExtract]
    problems: list[Problem]
    rows_read: dict[str, int]
    lookup_rows_read: dict[str, int] = field(default_factory=dict)
