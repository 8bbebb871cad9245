"""The Dagster instance of a state folder: its `dagster.yaml` and workspace, telemetry off, one pool around the
warehouse. SQLite unless the settings name a PostgreSQL database, which several machines can share."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import SecretStr

POSTGRES_VARIABLE = "PETWELLNESS_DAGSTER_POSTGRES_URL"
# With its driver: SQLAlchemy would otherwise take one that Dagster's storage does not install.
POSTGRES_SCHEME = "postgresql+psycopg2://"

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
POSTGRES_YAML = f"""\
storage:
  postgres:
    postgres_url:
      env: {POSTGRES_VARIABLE}
"""


class DagsterStorageError(ValueError):
    """The address of Dagster's database is not one; the message says what it has to be, without its password."""


def prepare_dagster_home(home: Path, postgres_url: SecretStr | None = None) -> Path:
    """Write the instance's configuration under the state folder and make it this process's DAGSTER_HOME.

    Raises DagsterStorageError.
    """
    if postgres_url and not postgres_url.get_secret_value().startswith(POSTGRES_SCHEME):
        raise DagsterStorageError(
            f"{POSTGRES_VARIABLE} has to be {POSTGRES_SCHEME}user:password@host:port/database"
        )
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    _write_if_changed(folder / "dagster.yaml", DAGSTER_YAML + (POSTGRES_YAML if postgres_url else ""))
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
