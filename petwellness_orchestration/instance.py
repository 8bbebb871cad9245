"""The Dagster instance of a state folder: its `dagster.yaml`, telemetry off, one pool around the warehouse."""

from __future__ import annotations

import os
from pathlib import Path

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


def prepare_dagster_home(home: Path) -> Path:
    """Create the instance's folder under the state folder and make it this process's DAGSTER_HOME."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text(DAGSTER_YAML)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder
