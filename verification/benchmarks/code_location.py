"""Seconds to load the code location, against the bare import of dagster and dagster_dbt.

Each measurement is a Python process of its own, interpreter start included; the
two take turns, so that a busy moment meets both. The dbt manifest is current
beforehand, as it is after `make demo`; parsing it anew is timed apart.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 3
AIM_RATIO = 1.5

BARE = "import dagster, dagster_dbt"
# What a code server does before it can answer: definitions, jobs, the whole asset graph.
LOADED = (
    "from petwellness_orchestration.definitions import build_definitions;"
    "build_definitions().get_repository_def().asset_graph"
)
MANIFEST = "from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest; ensure_manifest()"


def run() -> dict[str, Any]:
    """Best of three wall and CPU seconds of both, and their ratios."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PETWELLNESS_")},
            "PETWELLNESS_HOME": folder,
        }
        _seconds(MANIFEST, environment, Path(folder))
        rounds = [
            (_seconds(BARE, environment, Path(folder)), _seconds(LOADED, environment, Path(folder)))
            for _ in range(ROUNDS)
        ]
    bare_s, loaded_s = (min(pair[side][0] for pair in rounds) for side in (0, 1))
    bare_cpu_s, loaded_cpu_s = (min(pair[side][1] for pair in rounds) for side in (0, 1))
    return {
        "bare_import_s": round(bare_s, 2),
        "code_location_s": round(loaded_s, 2),
        "ratio": round(loaded_s / bare_s, 2),
        "bare_import_cpu_s": round(bare_cpu_s, 2),
        "code_location_cpu_s": round(loaded_cpu_s, 2),
        "cpu_ratio": round(loaded_cpu_s / bare_cpu_s, 2),
    }


def _seconds(code: str, environment: dict[str, str], folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of `code` in a fresh interpreter."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    wall_s = time.perf_counter() - started
    if done.returncode != 0:
        raise RuntimeError(f"{code!r} failed:\n{done.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
