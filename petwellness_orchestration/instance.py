"""The Dagster instance of a state folder: its `dagster.yaml` and workspace, telemetry off, one pool around the
warehouse. SQLite unless the settings name a PostgreSQL database, which several machines can share."""

from __future__ import annotations

import os
from pathlib import Path

from petwellness_orchestration.settings import PlatformSettings

# DuckDB takes one writing process: runs that open its file queue up behind one
# another. Dagster ignores a pool without a limit.
DAGSTER_YAML = """\
telemetry:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: run
  runs:
    max_concurrent_runs: 4
nux:
  enabled: false
"""

# By name of the variable, so that no file holds its password.
POSTGRES_YAML = """\
storage:
  postgres:
    postgres_url:
      env: PETWELLNESS_DAGSTER_POSTGRES_URL
"""


def prepare_dagster_home(settings: PlatformSettings) -> Path:
    """Write the instance's configuration under the state folder and make it this process's DAGSTER_HOME."""
    folder = settings.state.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    _write_if_changed(
        folder / "dagster.yaml",
        DAGSTER_YAML + (POSTGRES_YAML if settings.operations.dagster_postgres_url else ""),
    )
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


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
