"""Thin Dagster resources over lake and warehouse: each opens what an asset needs and nothing more.

Settings are read when a run uses a resource, never when definitions load.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from contracts.memory import release_memory
from petwellness_orchestration.lake_access import reach_lake
from petwellness_orchestration.settings import PlatformSettings, load_settings

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection

    from ingestion.extracts.model import Problem, RecordExtract
    from lake.store import ObjectStore
    from warehouse.snowflake.pipes import Pipes


class PlatformResource(dg.ConfigurableResource):
    """The platform's settings, and the lake and warehouse they name."""

    def settings(self) -> PlatformSettings:
        return load_settings()

    def store(self) -> "ObjectStore":
        """The lake. Raises StoreUnreachableError naming the address and the setting."""

        return reach_lake(self.settings())

    @contextmanager
    def warehouse(self, store: "ObjectStore | None" = None) -> "Iterator[duckdb.DuckDBPyConnection]":
        """The embedded warehouse, writable; pass the lake where SQL reads landed files.

        Raises NotOnThisWarehouseError in an environment on Snowflake.
        """
        from warehouse.duckdb.raw import open_warehouse

        with open_warehouse(self.settings().warehouse_path, store) as con:
            yield con
        release_memory()

    def pipes(self, con: "SnowflakeConnection") -> "Pipes":
        """The account's pipes, asked in a session of the loader's."""
        from warehouse.snowflake.pipes import SnowflakePipes

        return SnowflakePipes(con)


class RecordSourceResource(dg.ConfigurableResource):
    """Where record extracts come from: real files when `PETWELLNESS_DATA` is set, else the fleet."""

    def read(self, settings: PlatformSettings) -> "tuple[list[RecordExtract], list[Problem]]":
        """All extracts the source offers now, and what in it does not fit."""
        from petwellness_orchestration.sources import read_records

        return read_records(settings)
