"""The two warehouses of a parity run: how each is loaded, asked what to build, and built.

Loading is `warehouse`'s, the variables of a build are the platform's own
(`petwellness_orchestration.defs.warehouse`), and dbt runs in this process, as there.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infrastructure.snowflake_emulator.local import LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database
from lake.landing import list_manifests
from lake.store import LocalStore
from petwellness_orchestration.defs.warehouse.dbt_run import dbt_variables, environment_set
from warehouse.compare import Connection
from warehouse.ledger import WAREHOUSE_MARK
from warehouse.snowflake.pipes import MISSING, CopiedFile, PipeStatus
from warehouse.snowflake.settings import SnowflakeSettings

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

DBT_PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
SCHEMAS = ("raw", "stg", "cur", "anl", "ml")
SALT = "salt of the parity run"
RUN_ID = "parity"
# What dbt says of a node that did what it should; `no-op` is an exposure's.
FINE = frozenset({"success", "pass", "skipped", "no-op"})

Say = Callable[[str], None]


class BuildFailedError(RuntimeError):
    """dbt did not build a target; the message names the nodes and what each said."""


@dataclass(frozen=True)
class Built:
    """What a target was asked to build, how many nodes dbt ran, and seconds."""

    variables: dict[str, Any]
    nodes: int
    load_s: float
    build_s: float

    def __str__(self) -> str:
        return f"{self.nodes} nodes, loaded in {self.load_s:.0f} s, built in {self.build_s:.0f} s"


class Target(Protocol):
    """One of the two warehouses."""

    name: str

    def load(self) -> dict[str, Any]:
        """Load what landed; the variables with which the platform would build now."""

    def build(self, variables: Mapping[str, Any], with_tests: bool, say: Say) -> int:
        """Build the whole project; how many nodes dbt ran. Raises BuildFailedError."""


def load_and_build(target: Target, with_tests: bool, say: Say) -> Built:
    """One step of a target. Raises BuildFailedError, and what loading raises."""
    began = time.monotonic()
    variables = target.load()
    loaded = time.monotonic()
    nodes = target.build(variables, with_tests, say)
    return Built(variables, nodes, loaded - began, time.monotonic() - loaded)


@dataclass
class Dbt:
    """dbt on one target; the project is parsed once."""

    target: str
    folder: Path
    variables: Mapping[str, str]
    _manifest: Any = None

    def manifest(self) -> Any:
        """The parsed project."""
        if self._manifest is None:
            # Without variables, as the platform parses: which models one refers to depends on them.
            self._manifest = self._invoke(["parse"], None, lambda _: None).result
        return self._manifest

    def build(self, variables: Mapping[str, Any], with_tests: bool, say: Say) -> int:
        """Build every model and seed. Raises BuildFailedError."""
        self.manifest()
        left_out = ["unit_test", *([] if with_tests else ["test"])]
        excluded = [word for kind in left_out for word in ("--exclude-resource-type", kind)]
        outcome = self._invoke(["build", *excluded, "--vars", json.dumps(variables)], self._manifest, say)
        results = getattr(outcome.result, "results", None) or []
        failed = [f"{one.node.name}: {one.message}" for one in results if str(one.status) not in FINE]
        if failed or not outcome.success:
            raise BuildFailedError(f"dbt on {self.target}: " + "\n".join(failed or [str(outcome.exception)]))
        return len(results)

    def _invoke(self, command: Sequence[str], manifest: Any, say: Say) -> Any:
        from dbt.cli.main import dbtRunner

        def on_event(message: Any) -> None:
            if message.info.name in ("LogModelResult", "LogSeedResult"):
                say(" ".join(message.info.msg.replace(".", " ").split()[:9]))

        with environment_set({"PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": "allow", **self.variables}):
            outcome = dbtRunner(manifest=manifest, callbacks=[on_event]).invoke(
                [
                    *command,
                    *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
                    *("--target", self.target, "--threads", "1", "--quiet"),
                    # What nobody reads takes a part of a small build: documents, and every event as text, which dbt
                    # makes for any level but none.
                    *("--no-write-json", "--log-level", "none", "--log-level-file", "none"),
                    *("--target-path", str(self.folder), "--log-path", str(self.folder)),
                ]
            )
        if outcome.exception is not None:
            raise BuildFailedError(f"dbt on {self.target}: {outcome.exception}") from outcome.exception
        return outcome


@dataclass
class Embedded:
    """The embedded warehouse: a DuckDB file in `folder`."""

    folder: Path
    store: LocalStore
    name: str = "embedded"
    dbt: Dbt = field(init=False)

    def __post_init__(self) -> None:
        self.path = self.folder / "warehouse.duckdb"
        self.dbt = Dbt("embedded", self.folder / "dbt_embedded", {"PETWELLNESS_DUCKDB_PATH": str(self.path)})

    def load(self) -> dict[str, Any]:
        from warehouse.duckdb import raw as duckdb_raw
        from warehouse.duckdb.rebuilt import begin_build

        with duckdb_raw.open_warehouse(self.path, self.store) as con:
            duckdb_raw.put_salt(con, SALT)
            duckdb_raw.load_pending(con, self.store, list_manifests(self.store))
            days = duckdb_raw.dirty_days(con, duckdb_raw.build_mark(con, WAREHOUSE_MARK))
            return dbt_variables(days, duckdb_raw.data_time(con), RUN_ID, begin_build(con))

    def build(self, variables: Mapping[str, Any], with_tests: bool, say: Say) -> int:
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        from warehouse.duckdb import raw as duckdb_raw

        try:
            nodes = self.dbt.build(variables, with_tests, say)
        finally:
            DuckDBConnectionManager.close_all_connections()
        with duckdb_raw.open_warehouse(self.path) as con:
            duckdb_raw.set_build_mark(con, WAREHOUSE_MARK, duckdb_raw.latest_load_seq(con))
        return nodes

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection to look at its tables."""
        from warehouse.duckdb.raw import open_warehouse

        with open_warehouse(self.path, read_only=True) as con:
            yield con

    def tables(self) -> list[str]:
        """Its tables in the five schemas, `schema.table` in lower case."""
        with self.connect() as con:
            return _tables(con)


class EmbeddedWorker:
    """Steps of the embedded warehouse in a process of their own, beside the other target's.

    dbt runs once at a time in a process, and both targets wait for their own machine.
    """

    def __init__(self, embedded: Embedded) -> None:
        self._pool = ProcessPoolExecutor(
            1,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_make_embedded,
            initargs=(embedded.folder, embedded.store.url),
        )

    def __enter__(self) -> EmbeddedWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def start(self, with_tests: bool) -> Future[Built]:
        """Begin a step."""
        return self._pool.submit(_step_embedded, with_tests)


_embedded: list[Embedded] = []


def _make_embedded(folder: Path, lake: str) -> None:
    _embedded.append(Embedded(folder, LocalStore(Path(lake))))


def _step_embedded(with_tests: bool) -> Built:
    return load_and_build(_embedded[0], with_tests, lambda _: None)


class NoPipes:
    """No feed has a pipe: COPY INTO brings every range."""

    def status(self, feed: str) -> PipeStatus:
        return PipeStatus(feed, MISSING)

    def pause(self, feed: str) -> None: ...

    def resume(self, feed: str) -> None: ...

    def created_at(self, feed: str) -> datetime | None:
        return None

    def copied_since(self, feed: str, since: datetime) -> list[CopiedFile]:
        return []


@dataclass
class Emulated:
    """A database of the emulator, made as the account's configuration has it, its stage at the lake."""

    folder: Path
    store: LocalStore
    emulator: LocalEmulator
    database: str = "PARITY"
    name: str = "snowflake"
    dbt: Dbt = field(init=False)

    def __post_init__(self) -> None:
        from warehouse.snowflake import raw as snowflake_raw

        self._variables = self.emulator.dbt_environment(self.database)
        self.dbt = Dbt("snowflake", self.folder / "dbt_snowflake", self._variables)
        with self.emulator.connect() as con:
            create_database(con, self.database, f"file://{self.store.url}/landing/")
        with self._session() as con:
            snowflake_raw.put_salt(con, SALT)

    @contextmanager
    def _session(self) -> Iterator[SnowflakeConnection]:
        from warehouse.snowflake.session import open_snowflake

        with environment_set(self._variables):
            settings = SnowflakeSettings()
        with open_snowflake(settings, {"run": RUN_ID}) as con:
            yield con

    def load(self) -> dict[str, Any]:
        from warehouse.snowflake import raw as snowflake_raw

        with self._session() as con:
            snowflake_raw.load_pending(con, self.store, list_manifests(self.store), NoPipes())
            days = snowflake_raw.dirty_days(con, snowflake_raw.build_mark(con, WAREHOUSE_MARK))
            return dbt_variables(days, snowflake_raw.data_time(con), RUN_ID)

    def build(self, variables: Mapping[str, Any], with_tests: bool, say: Say) -> int:
        from warehouse.snowflake import raw as snowflake_raw

        nodes = self.dbt.build(variables, with_tests, say)
        with self._session() as con:
            snowflake_raw.set_build_mark(con, WAREHOUSE_MARK, snowflake_raw.latest_load_seq(con))
        return nodes

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection to look at its tables."""
        with self._session() as con:
            yield con

    def tables(self) -> list[str]:
        """Its tables in the five schemas, `schema.table` in lower case."""
        with self.connect() as con:
            return _tables(con)


def _tables(con: Connection) -> list[str]:
    schemas = ", ".join(f"'{name}'" for name in SCHEMAS)
    cursor = con.cursor()
    cursor.execute(
        "select lower(table_schema) || '.' || lower(table_name) as table_name from information_schema.tables"
        f" where table_type = 'BASE TABLE' and lower(table_schema) in ({schemas}) order by 1"
    )
    return [row[0] for row in cursor.fetchmany(10_000)]
