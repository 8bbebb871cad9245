"""Dagster's file of events over one engine. Where the file is, and what keeps it open, is in `instance`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool


class OneEngineEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """Dagster makes an engine for each statement, and an engine's first statement of a kind is compiled: of a build's
    processor time that was one part in nine. Connections stay as short as they were."""

    @cached_property
    def _engine(self) -> Engine:
        waits: dict[str, Any] = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        engine = create_engine(self._conn_string, poolclass=NullPool, connect_args=waits)
        event.listen(engine, "connect", _sync_at_checkpoints)
        return engine

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection


def _sync_at_checkpoints(connection: Any, _: Any) -> None:
    """Wait for the disk when the write-ahead log moves into the file, not at each of a build's 2,000 commits, which
    took a third of its time on a busy disk. A killed process loses nothing; a power cut may lose the last events, and
    the file stays whole."""
    connection.execute("pragma synchronous = normal")
