"""The search for personal data under the current settings: what the check and the command call.

What counts as personal data and how places are read is `governance.privacy`; here
are the places of this platform. What is published is looked at before readers get
it, by `warehouse.duckdb.publish`. A nightly look takes what else is new since the
last one that found nothing: logs and Dagster's events are only added to. A full
look takes everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    from warehouse.duckdb.personal_data import Finding

MARK_NAME = "privacy.json"

# Restricted data, or data that is looked at as tables; and the salt itself.
_NO_LOGS = frozenset({"lake", "published", "scratch", "truth", "salt"})
# A program's own state, fitted models, and dbt's copies of the project's source: compiled SQL is in files of its own.
_NO_LOG_SUFFIXES = frozenset(
    {".duckdb", ".wal", ".db", ".db-wal", ".db-shm", ".db-journal", ".msgpack", ".gpickle", ".joblib"}
)
_NO_LOG_NAMES = frozenset({"manifest.json", "semantic_manifest.json", "graph_summary.json"})


@dataclass(frozen=True)
class PrivacyReport:
    """What a look found, and what it looked at: `full` is everything there is."""

    full: bool
    owners_known: int
    files: int
    databases: int
    findings: list[Finding]


def find_personal_data(settings: PlatformSettings, full: bool) -> PrivacyReport:
    """Look through tables of anl and ml, the published copy, logs and Dagster's storage.

    A look that finds nothing is remembered; the next one that is not `full` starts from there.
    """
    from contracts.personal_data import Detector
    from contracts.salt import salt_of
    from governance.privacy.scanning import (
        CleanMark,
        database_findings,
        published_columns,
        published_findings,
        text_file_findings,
    )
    from warehouse.duckdb.personal_data import known_people, table_findings
    from warehouse.duckdb.raw import open_warehouse

    home, folder = settings.state.home, settings.state.published_dir
    mark_path = folder / MARK_NAME
    mark = CleanMark() if full else CleanMark.read(mark_path)
    # Logs are still written meanwhile: what is said from now on is for the next look.
    started_at = time.time()
    salt = salt_of(settings.state)
    with open_warehouse(settings.warehouse_path) as con:
        detector = Detector(known_people(con, [salt]))
        # What is published was looked at before it was.
        findings = table_findings(con, detector, {} if full else published_columns(folder))
    findings += published_findings(folder, detector) if full else []
    logs = [path for path in log_files(home) if _changed_at(path) >= mark.logs_until]
    findings += text_file_findings(home, logs, detector)
    databases = [path for path in dagster_databases(home) if _changed_at(path) >= mark.logs_until]
    found, rows = database_findings(home, databases, detector, mark.database_rows)
    findings += found
    if not findings and folder.exists():
        CleanMark(
            logs_until=started_at,
            database_rows={**(mark.database_rows or {}), **rows},
        ).write(mark_path)
    return PrivacyReport(full, len(detector.known.names), len(logs), len(databases), findings)


def log_files(home: Path) -> list[Path]:
    """Every text that programs leave in the state folder: logs, outputs of steps, dbt's artifacts."""
    return sorted(_files(home, _NO_LOGS))


def _files(folder: Path, without: frozenset[str]) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in without:
            continue
        if path.is_dir():
            yield from _files(path, frozenset())
        elif path.is_file() and path.suffix not in _NO_LOG_SUFFIXES and path.name not in _NO_LOG_NAMES:
            yield path


def dagster_databases(home: Path) -> list[Path]:
    """The SQLite files of the Dagster instance: runs and their tags, events with their metadata."""
    return sorted((home / "dagster").rglob("*.db"))


def _changed_at(path: Path) -> float:
    """When a file, or what SQLite has not yet moved into it, was last written (Unix time)."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return max(file.stat().st_mtime for file in files if file.exists())
