"""The dbt manifest that definitions are built from and builds run on, parsed anew when the project is newer."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from petwellness_orchestration.settings import DBT_PROJECT_DIR, load_settings

MANIFEST_DIR = DBT_PROJECT_DIR / "target"
MANIFEST_PATH = MANIFEST_DIR / "manifest.json"
# The same as dbt itself reads it.
PARSED_PATH = MANIFEST_DIR / "partial_parse.msgpack"


def ensure_manifest() -> Path:
    """Path of an up-to-date manifest; parses the project when a file of it is newer."""
    if not is_current():
        parse_project()
    return MANIFEST_PATH


def is_current() -> bool:
    """Whether the manifest exists and is newer than every file of the dbt project."""
    if not MANIFEST_PATH.exists() or not PARSED_PATH.exists():
        return False
    built_at = MANIFEST_PATH.stat().st_mtime
    return all(path.stat().st_mtime <= built_at for path in project_files())


def project_files() -> list[Path]:
    """Every source file of the dbt project."""
    folders = ("models", "macros", "seeds", "tests", "analyses")
    files = [path for folder in folders for path in (DBT_PROJECT_DIR / folder).rglob("*") if path.is_file()]
    return [*files, DBT_PROJECT_DIR / "dbt_project.yml", DBT_PROJECT_DIR / "profiles.yml"]


def parse_project() -> None:
    """`dbt parse` into the project's target folder. Raises DbtFailedError with dbt's message."""
    from petwellness_orchestration.defs.warehouse.dbt_run import DbtFailedError, run_dbt

    run = run_dbt(load_settings(), ["parse"], {}, MANIFEST_DIR)
    if not run.succeeded:
        raise DbtFailedError(f"dbt parse failed: {run.error or run.failures}")


@cache
def read_manifest() -> dict[str, Any]:
    """The manifest as a dictionary, read once a process."""
    return json.loads(ensure_manifest().read_text())


def parsed_project() -> Any:
    """The parsed project as dbt takes it, so that a run need not parse it again; a new one for each run,
    since dbt writes into it."""
    from dbt.contracts.graph.manifest import Manifest

    ensure_manifest()
    project = Manifest.from_msgpack(PARSED_PATH.read_bytes())
    # dbt does this after parsing: what macros see as `graph`.
    project.build_flat_graph()
    return project
