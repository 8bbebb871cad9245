"""The machine and the versions that figures were measured with; no host names, no paths."""

import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = (
    "confluent-kafka",
    "dagster",
    "dagster-dbt",
    "dbt-core",
    "dbt-duckdb",
    "duckdb",
    "numba",
    "pyarrow",
)
REPOSITORY = Path(__file__).resolve().parents[2]


def describe() -> dict[str, Any]:
    """Cores this process may use, memory, operating system, Python and package versions."""
    import psutil

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def section(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a benchmark found, with when, on which commit and beside what load."""
    head = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "load_1m": load_1m(),
    }
    return {**head, "figures": work()}


def load_1m() -> float:
    """Processes that ran or waited over the last minute: figures of a busy machine say so."""
    return round(os.getloadavg()[0], 2)


def commit() -> str:
    """The commit measured; `+` after it when tracked files differ from it."""
    head = _git("rev-parse", "--short", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
