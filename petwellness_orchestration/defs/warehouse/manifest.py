"""The dbt manifest that definitions are built from and builds run on, parsed anew when the project is newer."""

from __future__ import annotations

import csv
import fcntl
import json
from functools import cache
from pathlib import Path
from typing import Any

from petwellness_orchestration.defs.warehouse.declarations import ALERT_RULES, check_declarations
from petwellness_orchestration.settings import DBT_PROJECT_DIR, load_settings


def parsed_dir() -> Path:
    """Where the project is parsed to. Not dbt's own target folder: linters and dbt by hand parse into that for
    other targets, and a parsed project names the database and the schemas of its target."""
    settings = load_settings()
    session = settings.dbt_session
    folder = DBT_PROJECT_DIR / "target" / settings.environment.dbt_target
    return folder if session is None else folder / session.database.lower() / session.schema


def manifest_path() -> Path:
    """The manifest as JSON, which definitions read."""
    return parsed_dir() / "manifest.json"


def parsed_path() -> Path:
    """The same as dbt itself reads it."""
    return parsed_dir() / "partial_parse.msgpack"


def ensure_manifest() -> Path:
    """Path of an up-to-date manifest; parses the project when a file of it is newer, one process for all that wait."""
    if not is_current():
        parsed_dir().mkdir(parents=True, exist_ok=True)
        with (parsed_dir() / "parse.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_current():
                parse_project()
    return manifest_path()


def is_current() -> bool:
    """Whether the parsed project exists and is newer than every file of the dbt project."""
    if not manifest_path().exists() or not parsed_path().exists():
        return False
    built_at = manifest_path().stat().st_mtime
    return all(path.stat().st_mtime <= built_at for path in project_files())


def project_files() -> list[Path]:
    """Every source file of the dbt project."""
    folders = ("models", "macros", "seeds", "tests", "analyses")
    files = [path for folder in folders for path in (DBT_PROJECT_DIR / folder).rglob("*") if path.is_file()]
    return [*files, DBT_PROJECT_DIR / "dbt_project.yml", DBT_PROJECT_DIR / "profiles.yml"]


def parse_project() -> None:
    """`dbt parse` into `parsed_dir`. Raises DbtFailedError with dbt's message."""
    from petwellness_orchestration.defs.warehouse.dbt_run import DbtFailedError, run_dbt

    run = run_dbt(load_settings(), ["parse"], {}, parsed_dir())
    if not run.succeeded:
        raise DbtFailedError(f"dbt parse failed: {run.error or run.failures}")


@cache
def read_manifest() -> dict[str, Any]:
    """The manifest as a dictionary, read once a process.

    Raises DeclarationError for what the project declares and nothing would act on.
    """
    manifest = json.loads(ensure_manifest().read_text())
    check_declarations(manifest, _alert_rules())
    return manifest


def _alert_rules() -> set[str]:
    with (DBT_PROJECT_DIR / "seeds" / "anl" / f"{ALERT_RULES}.csv").open(newline="") as file:
        return {row["rule"] for row in csv.DictReader(file)}


def parsed_project() -> Any:
    """The parsed project as dbt takes it, so that a run need not parse it again; a new one for each run,
    since dbt writes into it."""
    from dbt.contracts.graph.manifest import Manifest

    ensure_manifest()
    project = Manifest.from_msgpack(parsed_path().read_bytes())
    # dbt does this after parsing: what macros see as `graph`.
    project.build_flat_graph()
    return project
