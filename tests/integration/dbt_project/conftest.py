"""A real warehouse for dbt tests: raw tables from the contract, dbt in process.

The project is parsed once, by whichever worker comes first; every build reuses
that manifest, so a build costs its models. Records and events are made by `seeded_raw.py`.
"""

import fcntl
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from contracts.columns import JSON_COLUMNS, RECORD_FEEDS
from contracts.registry import FEEDS
from contracts.ledgers import LEDGERS
from warehouse.environments import LAYERS
from lake.landing import feed_schema
from petwellness_orchestration.defs.warehouse.dbt_run import environment_set
from petwellness_orchestration.defs.warehouse.manifest import parsed_project

REPOSITORY = Path(__file__).resolve().parents[3]
DBT_PROJECT = REPOSITORY / "dbt_project"
# A ledger's rows are given in the columns that models read; the others are null.
RAW_SCHEMAS = {**{feed: feed_schema(feed) for feed in FEEDS}, **LEDGERS}

Rows = Sequence[Mapping[str, Any]]


def _load_beside(name: str) -> Any:
    """A module of this folder, from then on importable by its name: the tests' folders are no packages."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_load_beside("seeded_raw")
_load_beside("history_reference")
failed_nodes = _load_beside("dbt_results").failed_nodes


class DbtProject:
    """Runs dbt on one database file at a time, with a manifest parsed once; `schema` as in the profile,
    `analytics_default` as in the settings, `parsed_before` a project that differs in little."""

    analytics_default = "allow"

    def __init__(
        self,
        folder: Path,
        project: Path = DBT_PROJECT,
        schema: str = "stg",
        parsed_before: "DbtProject | None" = None,
    ) -> None:
        self.folder = folder
        self.parsed_before = parsed_before
        self.project = project
        self.schema = schema
        self._parsed_path = folder / "target" / "partial_parse.msgpack"
        self._manifest: Any = None

    def invoke(self, database: Path, *args: str, variables: Mapping[str, Any] | None = None) -> Any:
        import json

        from dbt.adapters.duckdb.connections import DuckDBConnectionManager
        from dbt.cli.main import dbtRunner

        given = ["--vars", json.dumps(variables)] if variables else []
        if self._manifest is None:
            self._manifest = self._parsed()
        command, *rest = args
        with environment_set(
            {
                "PETWELLNESS_DUCKDB_PATH": str(database),
                "PETWELLNESS_DUCKDB_THREADS": "1",
                "PETWELLNESS_DBT_SCHEMA": self.schema,
                "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": self.analytics_default,
            }
        ):
            try:
                return dbtRunner(manifest=self._manifest).invoke([command, *self._settings(), *rest, *given])
            finally:
                DuckDBConnectionManager.close_all_connections()
                self._forget_inline_queries()

    def _settings(self) -> list[str]:
        return [
            *("--project-dir", str(self.project), "--profiles-dir", str(self.project)),
            *("--target-path", str(self.folder / "target"), "--log-path", str(self.folder / "logs")),
            # Of a small build, writing the manifest as JSON is the larger part; who needs it writes it.
            *("--target", "embedded", "--quiet", "--no-write-json"),
            *("--log-level", "none", "--log-level-file", "none"),
        ]

    def _forget_inline_queries(self) -> None:
        """Of a query that does not compile dbt leaves the node in the manifest, and refuses the next query as one of
        the same name."""
        nodes = self._manifest.nodes
        for node_id in [name for name, node in nodes.items() if node.resource_type == "sql_operation"]:
            del nodes[node_id]

    def _parsed(self) -> Any:
        """The platform's own parse; of another project or for another schema one of its own, in which dbt parses
        only what differs from `parsed_before`."""
        from dbt.cli.main import dbtRunner

        if (self.project, self.schema) == (DBT_PROJECT, LAYERS[0]):
            return parsed_project()
        if self.parsed_before is not None:
            self._parsed_path.parent.mkdir(parents=True)
            shutil.copyfile(self.parsed_before.own_parse(), self._parsed_path)
        # One path for all, since dbt takes up no parse for another; it is the name that the manifest holds. Without
        # variables, as the platform parses: which models one refers to depends on them.
        profile = {
            "PETWELLNESS_DUCKDB_PATH": str(DBT_PROJECT / "target" / "warehouse.duckdb"),
            "PETWELLNESS_DBT_SCHEMA": self.schema,
            "PETWELLNESS_CONSENT_ANALYTICS_DEFAULT": self.analytics_default,
        }
        with environment_set(profile):
            parsed = dbtRunner().invoke(["parse", *self._settings()])
        assert parsed.success, parsed.exception
        return parsed.result

    def own_parse(self) -> Path:
        """File with the parse of this project, which is not the platform's; made if nobody has asked for it."""
        if self._manifest is None:
            self._manifest = self._parsed()
        return self._parsed_path


class Warehouse:
    """One DuckDB file with the raw schema, and dbt over it."""

    def __init__(self, dbt: DbtProject, folder: Path) -> None:
        # The manifest holds the database's name, which is the file's stem: one name everywhere.
        folder.mkdir(parents=True)
        self.path = folder / "warehouse.duckdb"
        self._dbt = dbt
        with self.connect() as con:
            con.execute("create schema raw")
            for name, schema in RAW_SCHEMAS.items():
                con.register("empty_rows", schema.empty_table())
                con.execute(f"create table raw.{name} as from empty_rows")
                for column in JSON_COLUMNS & set(schema.names):
                    con.execute(f"alter table raw.{name} alter {column} type json")
            con.execute("insert into raw.hash_salt values ('salt of the tests')")

    def connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(str(self.path))

    def load(self, raw: Mapping[str, Rows]) -> None:
        """Add rows to raw as one load of the ledger: a range for each stream and partition that has rows."""
        with self.connect() as con:
            ledger = loaded_ranges(raw, self._latest_load(con) + 1)
            for name, rows in {**raw, "load_history": ledger}.items():
                if rows:
                    table = pa.Table.from_pylist([dict(row) for row in rows], schema=RAW_SCHEMAS[name])
                    con.register("new_rows", table)
                    con.execute(f"insert into raw.{name} by name from new_rows")

    def redact(self, conditions: Mapping[str, str]) -> None:
        """Delete the rows of each feed that a SQL condition covers, as an entry of the redaction ledger does."""
        with self.connect() as con:
            for feed, condition in conditions.items():
                con.execute(f"delete from raw.{feed} where {condition}")
            load_seq = self._latest_load(con) + 1
            con.execute(
                "insert into raw.redactions (redaction_id, event_dates, load_seq, applied_at) values (?, [], ?, ?)",
                [f"redaction {load_seq}", load_seq, datetime(2024, 4, 1, tzinfo=UTC)],
            )

    @staticmethod
    def _latest_load(con: duckdb.DuckDBPyConnection) -> int:
        [(load_seq,)] = con.execute(
            "select coalesce(max(load_seq), 0) from"
            " (select load_seq from raw.load_history union all select load_seq from raw.redactions)"
        ).fetchall()
        return int(load_seq)

    def with_project(self, dbt: DbtProject) -> "Warehouse":
        """The same file under another dbt project."""
        other = copy(self)
        other._dbt = dbt
        return other

    def take(self, built: Path) -> "Warehouse":
        """Become a copy of another warehouse's file."""
        shutil.copyfile(built, self.path)
        return self

    @property
    def manifest(self) -> Any:
        """dbt's own, once the project is parsed."""
        return self._dbt._manifest

    def invoke(self, *args: str, variables: Mapping[str, Any] | None = None) -> Any:
        return self._dbt.invoke(self.path, *args, variables=variables)

    def build(
        self, *args: str, variables: Mapping[str, Any] | None = None, without: Sequence[str] = ("unit_test",)
    ) -> Any:
        """Build everything `without` those kinds of nodes; fails with dbt's own messages."""
        excluded = [argument for kind in without for argument in ("--exclude-resource-type", kind)]
        result = self.invoke("build", *excluded, *args, variables=variables)
        problems = failed_nodes(result)
        assert not problems, problems
        assert result.success, result.exception
        return result.result

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with self.connect() as con:
            cursor = con.execute(sql)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def tables(self) -> list[str]:
        """Every table that dbt built, `schema.name`."""
        found = self.rows(
            "select table_schema || '.' || table_name as name from information_schema.tables "
            "where table_schema in ('stg', 'cur', 'anl', 'ml') order by 1"
        )
        return [row["name"] for row in found]


def loaded_ranges(raw: Mapping[str, Rows], load_seq: int) -> list[dict[str, Any]]:
    """Ledger entries of one load; an extract has one even without rows."""
    offsets: dict[tuple[str, str, int], list[int]] = {
        (row["feed"], row["stream_id"], 0): [] for row in raw.get("extracts", [])
    }
    for feed in set(raw) & {"telemetry_events", *RECORD_FEEDS}:
        for row in raw[feed]:
            offsets.setdefault((feed, row["stream_id"], row["kafka_partition"]), []).append(
                row["kafka_offset"]
            )
    return [
        {
            "feed": feed,
            "stream_id": stream_id,
            "kafka_partition": partition,
            "start_offset": min(found, default=0),
            "end_offset": max(found, default=-1) + 1,
            "load_seq": load_seq,
        }
        for (feed, stream_id, partition), found in offsets.items()
    ]


@pytest.fixture(scope="session")
def dbt_project(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    return DbtProject(tmp_path_factory.mktemp("dbt"))


@pytest.fixture(scope="module")
def make_warehouse(
    dbt_project: DbtProject, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Mapping[str, Rows]], Warehouse]:
    def make(raw: Mapping[str, Rows]) -> Warehouse:
        warehouse = Warehouse(dbt_project, tmp_path_factory.mktemp("warehouse") / "db")
        warehouse.load(raw)
        return warehouse

    return make


@pytest.fixture(scope="session")
def built_once(
    dbt_project: DbtProject, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[[Warehouse], object]], Warehouse]:
    """`built_once(name, build)`: a copy of a warehouse that one worker builds for all, so that files share worlds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "built_warehouses"
    folder.mkdir(exist_ok=True)

    def copied(name: str, build: Callable[[Warehouse], object]) -> Warehouse:
        warehouse = Warehouse(dbt_project, tmp_path_factory.mktemp("warehouse") / "db")
        built = folder / f"{name}.duckdb"
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not built.exists():
                build(warehouse)
                shutil.copyfile(warehouse.path, built)
                return warehouse
        return warehouse.take(built)

    return copied


# Several files build this world whole, as of a moment at which all of its days are over.
WORLD_SEED, WORLD_DAYS = 7, 9


@pytest.fixture(scope="session")
def whole_world(
    built_once: Callable[[str, Callable[[Warehouse], object]], Warehouse],
) -> Callable[[], Warehouse]:
    """Copies of `small_world(WORLD_SEED, WORLD_DAYS)`, built whole as of its last day and four, its tests passed."""
    from seeded_raw import DAY, FIRST_DAY, small_world

    def build(warehouse: Warehouse) -> None:
        warehouse.load(small_world(seed=WORLD_SEED, days=WORLD_DAYS))
        end = FIRST_DAY + (WORLD_DAYS + 4) * DAY
        warehouse.build(variables={"as_of_ts": f"{end:%Y-%m-%d %H:%M:%S}"})

    return lambda: built_once("whole_world", build)
