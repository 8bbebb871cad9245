"""Dagster's file of events over one engine. Where the file is, and what keeps it open, is in `instance`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import NullPool


class OneEngineEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """Dagster makes an engine for each statement, and an engine's first statement of a kind is compiled: of a build's
    processor time that was one part in nine. Connections stay as short as they were."""

    @cached_property
    def _engine(self) -> Engine:
        waits: dict[str, Any] = {"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}
        return create_engine(self._conn_string, poolclass=NullPool, connect_args=waits)

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection
