"""The Dagster instance of a state folder: its `dagster.yaml` and workspace, telemetry off, one pool around the
warehouse. SQLite unless the settings name a PostgreSQL database, which several machines can share."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from petwellness_orchestration.settings import PlatformSettings
from warehouse.environments import EnvironmentSettingError

# DuckDB takes one writing process: runs that open its file queue up behind one
# another. Dagster ignores a pool without a limit. A run that is killed says nothing:
# the launcher sees that its process is gone, and the limits end what nobody can see.
DAGSTER_YAML = """\
telemetry:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: run
  runs:
    max_concurrent_runs: 4
run_launcher:
  module: petwellness_orchestration.run_launcher
  class: WatchedRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 600
  max_runtime_seconds: {max_run_s}
nux:
  enabled: false
"""

# One file of events, which a run in this process can keep open (`events_kept_open`); by default each run has its own.
SQLITE_YAML = """\
event_log_storage:
  module: petwellness_orchestration.event_storage
  class: OneEngineEventLogStorage
  config:
    base_dir: {folder}
"""
EVENTS_FILE = "event_log.db"

# By name of the variable, so that no file holds its password.
POSTGRES_YAML = """\
storage:
  postgres:
    postgres_url:
      env: PETWELLNESS_DAGSTER_POSTGRES_URL
"""


def prepare_dagster_home(settings: PlatformSettings) -> Path:
    """Write the instance's configuration under the state folder and make it this process's DAGSTER_HOME.

    Raises EnvironmentSettingError for a folder that SQLite's address cannot name.
    """
    folder = settings.state.home / "dagster"
    has_postgres = settings.operations.dagster_postgres_url is not None
    # Dagster puts the folder into the address as it is, and SQLAlchemy decodes it.
    if not has_postgres and (unquote(str(folder)) != str(folder) or "?" in str(folder)):
        raise EnvironmentSettingError(
            f"PETWELLNESS_HOME='{settings.state.home}' holds '?' or a percent sign before two hexadecimal digits,"
            " which the address of Dagster's SQLite files cannot: choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    storage = POSTGRES_YAML if has_postgres else SQLITE_YAML.format(folder=json.dumps(str(_events(settings))))
    limits = DAGSTER_YAML.format(max_run_s=round(settings.operations.max_run_hours * 3600))
    _write_if_changed(folder / "dagster.yaml", limits + storage)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


@contextmanager
def events_kept_open(settings: PlatformSettings) -> Iterator[None]:
    """Hold Dagster's file of events open during a run.

    Dagster connects anew for each statement, and SQLite moves its write-ahead log into the file, with all that has
    to be synced, whenever the last connection closes. Writing 400 events took 15 s instead of 32 on a busy disk.
    """
    path = _events(settings) / EVENTS_FILE
    if not path.exists():
        yield
        return
    with closing(sqlite3.connect(path)) as connection:
        # A connection that has read nothing has not opened the file.
        connection.execute("select count(*) from sqlite_master").fetchone()
        yield


def _events(settings: PlatformSettings) -> Path:
    return settings.state.home / "dagster" / "history"


def write_workspace(home: Path, code_server: tuple[str, int] | None = None) -> Path:
    """The workspace file of this state folder: the code location under the product's name, in the reading process
    or, with its host and port, in a server of its own."""
    if code_server is None:
        origin = "python_module:\n      module_name: petwellness_orchestration.definitions\n"
    else:
        host, port = code_server
        origin = f"grpc_server:\n      host: {host}\n      port: {port}\n"
    path = home / "dagster" / "workspace.yaml"
    _write_if_changed(path, f"load_from:\n  - {origin}      location_name: petwellness\n")
    return path


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
