"""Where to look for personal data beside tables: published files, log files, Dagster's storage.

Nothing here changes what it reads. How tables and Parquet files are read, and what a finding tells, is
`warehouse.duckdb.personal_data`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.personal_data import Detector
from warehouse.duckdb.personal_data import Finding, Tally, parquet_findings

_CHARACTERS_AT_ONCE = 1_000_000


def published_findings(folder: Path, detector: Detector) -> list[Finding]:
    """Every text column of the published files in force."""
    import duckdb

    from warehouse.duckdb.publish import files_in_force

    by_table: dict[str, list[Path]] = {}
    for path in sorted(files_in_force(folder)):
        by_table.setdefault(path.relative_to(folder).parts[1], []).append(path)
    con = duckdb.connect()
    try:
        return [
            finding
            for table, paths in by_table.items()
            for finding in parquet_findings(con, detector, f"published {table}", paths)
        ]
    finally:
        con.close()


def published_columns(folder: Path) -> dict[str, set[str]]:
    """Table to columns of the published copy in force."""
    import pyarrow.parquet as pq

    from warehouse.duckdb.publish import files_in_force

    first: dict[str, Path] = {}
    for path in sorted(files_in_force(folder)):
        first.setdefault(path.relative_to(folder).parts[1], path)
    return {table: set(pq.read_schema(path).names) for table, path in first.items()}


def text_file_findings(root: Path, paths: Iterable[Path], detector: Detector) -> list[Finding]:
    """Log files and other texts, line by line; the place is the path below `root` and the first line."""
    found: list[Finding] = []
    for path in paths:
        tally = Tally()
        name, first_line = str(path.relative_to(root)), 1
        with path.open(encoding="utf-8", errors="replace") as file:
            while lines := file.readlines(_CHARACTERS_AT_ONCE):
                # Together: a look at each line of its own takes four times as long.
                text = "".join(plain(line) + "\n" for line in lines)
                tally.add(text, detector, name, line=first_line)
                first_line += len(lines)
        found += tally.findings()
    return found


def database_findings(
    root: Path, paths: Iterable[Path], detector: Detector, seen: Mapping[str, int] | None = None
) -> tuple[list[Finding], dict[str, int]]:
    """Every text column of every table of SQLite files, and the last row id of each table.

    `seen` is the row ids of an earlier look that found nothing: rows up to them are
    left out of tables that only grow (`event_logs`).
    """
    found: list[Finding] = []
    last: dict[str, int] = {}
    for path in paths:
        name = str(path.relative_to(root))
        con = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            for table in _sqlite_tables(con):
                place = f"{name} {table}"
                after = (seen or {}).get(place, 0) if table in GROWING_TABLES else 0
                tally = Tally()
                for row_id, *values in con.execute(
                    f'select rowid, * from "{table}" where rowid > ?', [after]
                ):
                    last[place] = max(last.get(place, 0), row_id)
                    for value in values:
                        if isinstance(value, str):
                            tally.add(plain(value), detector, f"{place} row {row_id}")
                last.setdefault(place, after)
                found += tally.findings()
        finally:
            con.close()
    return found, last


# Dagster adds to its event log and never changes it.
GROWING_TABLES = frozenset({"event_logs"})


def _sqlite_tables(con: sqlite3.Connection) -> list[str]:
    return [
        row[0]
        for row in con.execute(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name"
        )
    ]


def plain(text: str) -> str:
    """One line: JSON as its values read (no `\\n`, no `\\u00e9`), other texts without the end of line."""
    text = text.rstrip("\n")
    if text[:1] not in ("{", "["):
        return text
    try:
        values = json.loads(text)
    except ValueError:
        return text
    return json.dumps(values, ensure_ascii=False).replace("\\n", " ")


@dataclass(frozen=True)
class CleanMark:
    """Up to where a look found nothing: the time of logs, rows of Dagster's tables."""

    logs_until: float = 0.0
    database_rows: Mapping[str, int] | None = None

    @classmethod
    def read(cls, path: Path) -> CleanMark:
        """The mark kept in a file; nothing was looked at when there is none."""
        if not path.exists():
            return cls()
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(json.dumps(self.__dict__))
        fresh.replace(path)
