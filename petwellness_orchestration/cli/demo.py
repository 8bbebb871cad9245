"""`petwellness demo`: the whole platform once, headless, and a table of what came out.

Publishes the source's waves from a process of its own, runs the job
`everything` here, and reads the figures back. A second run over the same input,
code and lake has nothing to do and says so.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contracts.memory import peak_memory_bytes
from petwellness_orchestration.cli.console import say, warn
from petwellness_orchestration.cli.environment import use_data
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import PROJECT_ROOT, PlatformSettings, load_settings

SUMMARY_NAME = "demo_summary.json"
PUBLISHER_LOG = "publisher.log"
# One that dies is noticed at once; this is for one that hangs.
PUBLISHER_START_TIMEOUT_S = 120

# Stages people know, from the graph's steps.
STAGES = {
    "record_extracts": "records to lake",
    "landing__consent_snapshot": "records to lake",
    "landing__telemetry_events": "broker to lake",
    "landing__catalogue": "catalogue",
    "raw__lake_files": "catalogue",
    "raw_loads": "lake to raw",
    "raw__load_history_lake_and_raw_reconcile": "reconcile",
    "warehouse": "dbt build and tests",
    "published__warehouse_tables": "publish",
    "published__visit_risk_scores": "publish",
    "ml__visit_risk_model": "train and gate",
    "ml__visit_risk_champion": "promote and score",
    "anl__visit_risk_scores": "promote and score",
}
CHECK_STAGE = "quality checks"


def run_demo(data: Path | None) -> int:
    """Run it; 0 when every blocking check passed and what the simulator planted was found."""
    from petwellness_orchestration.cli.planted import plant_superseded_features

    use_data(data)
    settings = load_settings()
    started = time.monotonic()
    summary = previous_summary(settings)
    if summary is not None:
        from petwellness_orchestration.cli.report import print_summary

        print_summary(settings, summary)
        say("nothing to do: same input, same code, same lake; nothing was published or changed")
        return 0
    say(f"state in {settings.state.home}")
    before = published_version(settings)
    parse_models()
    with_superseded = plant_superseded_features(settings)
    with publisher(settings) as process:
        outcome = run_everything(settings)
        publisher_peak_bytes = peak_memory_bytes(process.pid) if process.poll() is None else None
        published_ok = finish_publisher(process)
    passed = (
        outcome.success
        and published_ok
        and not any(check.blocking and check.status == "failed" for check in outcome.checks)
    )
    summary = build_summary(settings, outcome, passed, time.monotonic() - started)
    summary["planted"] = compared_with_planted(settings, summary, with_superseded)
    different = differing(summary)
    summary["passed"] = passed = passed and not different
    summary["peak_memory_bytes"] = {"demo": peak_memory_bytes(), "publisher": publisher_peak_bytes}
    write_summary(settings, summary)
    from petwellness_orchestration.cli.report import print_summary

    print_summary(settings, summary)
    if not outcome.success:
        warn(outcome.error or "the run failed; see it in the Dagster UI (`make dev`)")
    for name in different:
        warn(f"planted and found differ: {name}")
    if not published_ok:
        warn(f"publishing the source's waves failed: {last_line(settings.state.home / PUBLISHER_LOG)}")
    if passed and before is not None and summary.get("published_version") == before:
        say("the tables were up to date: nothing new was published")
    return 0 if passed else 1


def run_everything(settings: PlatformSettings) -> Any:
    """The whole graph in this process."""
    from petwellness_orchestration.cli.runs import EVERYTHING, run_job

    return run_job(settings, EVERYTHING)


@contextmanager
def publisher(settings: PlatformSettings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that publishes the source's waves and keeps the broker up until its input closes."""
    data = settings.source.data
    command = ["replay", str(data)] if data is not None else ["simulate"]
    settings.state.home.mkdir(parents=True, exist_ok=True)
    log_path = settings.state.home / PUBLISHER_LOG
    say(f"publishing {'the files of ' + str(data) if data else 'the simulated fleet'}")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "petwellness_orchestration.cli", *command, "--serve"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_publishing(settings, process, log_path)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(10)


def wait_until_publishing(
    settings: PlatformSettings, process: subprocess.Popen[bytes], log_path: Path
) -> None:
    """Return when the publisher has a broker; end the command with its last line when it gives up."""
    from petwellness_orchestration.sources import read_publisher_status

    deadline = time.monotonic() + PUBLISHER_START_TIMEOUT_S
    # One that was killed left its own status behind.
    while (status := read_publisher_status(settings.state.home)) is None or status.pid != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"petwellness: the publisher did not start: {last_line(log_path)}")
        time.sleep(0.05)


def last_line(log_path: Path) -> str:
    """The last line of the publisher's log, which says why it ended."""
    lines = log_path.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("petwellness: ") if lines else f"{log_path} is empty"


def finish_publisher(process: subprocess.Popen[bytes]) -> bool:
    """Let the publisher go; whether it ended well."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        return process.wait(30) == 0
    except subprocess.TimeoutExpired:
        return False


def build_summary(settings: PlatformSettings, outcome: Any, passed: bool, total_s: float) -> dict[str, Any]:
    """Every figure the demo prints, as plain values."""
    from lake.landing import list_manifests
    from petwellness_orchestration.cli import real_figures, summary

    store = open_lake(settings)
    manifests = list_manifests(store)
    figures: dict[str, Any] = {
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": passed,
        "input": str(settings.source.data or "simulated fleet"),
        "fingerprint": state_fingerprint(settings),
        "lake": summary.lake_figures(store, manifests),
        "checks": check_figures(outcome.checks),
        "model": model_figures(outcome.metadata.get("ml/visit_risk_model", {})),
        "collector": outcome.metadata.get("landing/telemetry_events", {}),
        "published_version": published_version(settings),
        "stage_seconds": stage_seconds(outcome.step_seconds, total_s),
        "source_problems": source_problems(settings),
        "truth": summary.truth_figures(settings),
    }
    if settings.warehouse_path.exists() and outcome.metadata.get("stg/telemetry_events"):
        figures["warehouse"] = summary.warehouse_figures(settings)
        if settings.source.data is not None:
            figures["real_input"] = real_figures.compute(settings)
    return figures


def compared_with_planted(
    settings: PlatformSettings, summary: dict[str, Any], with_superseded: bool
) -> list[dict[str, Any]]:
    """What the simulator planted beside what was found, kind by kind."""
    from petwellness_orchestration.cli import planted

    store = open_lake(settings)
    return planted.figures(settings, store, summary["lake"], summary.get("warehouse"), with_superseded)


def differing(summary: dict[str, Any]) -> list[str]:
    """What was planted and not found as it was, by name with examples."""
    return [
        ": ".join([compared["name"], "; ".join(compared["examples"])]).removesuffix(": ")
        for compared in summary["planted"]
        if compared["differing"]
    ]


def check_figures(checks: list[Any]) -> dict[str, Any]:
    """Checks by outcome, with those named that did not simply pass."""
    count = dict.fromkeys(("passed", "warned", "failed", "not applicable"), 0)
    for check in checks:
        count[check.status] += 1
    return {
        **{status.replace(" ", "_"): number for status, number in count.items()},
        "named": [
            {"check": f"{c.asset}:{c.name}", "status": c.status, "blocking": c.blocking, "reason": c.reason}
            for c in checks
            if c.status != "passed"
        ],
    }


def model_figures(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the training said: status, version, metrics beside the baseline's."""
    return {name: value for name, value in metadata.items() if not name.startswith("dagster")}


def stage_seconds(steps: dict[str, float], total_s: float) -> dict[str, float]:
    """Seconds by stage; what is in no step is loading the graph and reading figures back."""
    stages: dict[str, float] = {}
    for step, seconds in steps.items():
        stage = STAGES.get(step, CHECK_STAGE)
        stages[stage] = stages.get(stage, 0.0) + seconds
    stages["start, Dagster, summary"] = total_s - sum(steps.values())
    return {stage: round(seconds, 1) for stage, seconds in {**stages, "total": total_s}.items()}


def parse_models() -> None:
    """Parse the dbt project when it has changed: on a slow machine longer than a publisher waits for a collector."""
    from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest, is_current

    if not is_current():
        say("parsing the models")
        ensure_manifest()


def source_problems(settings: PlatformSettings) -> dict[str, int]:
    """Rows of the source that did not fit, by reason, from the file that names each."""
    import csv
    from collections import Counter

    from petwellness_orchestration.sources import PROBLEMS_NAME

    path = settings.state.home / PROBLEMS_NAME
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return dict(sorted(Counter(row["reason"] for row in csv.DictReader(file)).items()))


def published_version(settings: PlatformSettings) -> int | None:
    """Version of the published copy in force."""
    from warehouse.duckdb.publish import read_catalogue

    version: int | None = read_catalogue(settings.state.published_dir).get("version")
    return version


def write_summary(settings: PlatformSettings, summary: dict[str, Any]) -> None:
    """Write the figures beside the state."""
    path = settings.state.home / SUMMARY_NAME
    path.write_text(json.dumps(summary, indent=2, default=str) + "\n")


def previous_summary(settings: PlatformSettings) -> dict[str, Any] | None:
    """The last run's figures if that run passed and nothing it depends on has changed since."""
    path = settings.state.home / SUMMARY_NAME
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_text())
    if not summary["passed"] or summary["fingerprint"] != state_fingerprint(settings):
        return None
    return summary


def state_fingerprint(settings: PlatformSettings) -> dict[str, Any]:
    """What decides whether a run would change anything: input, code, lake, what is built and published."""
    from lake.catalogue import landed_fingerprint
    from warehouse.duckdb.raw import WAREHOUSE_MARK, build_mark, latest_load_seq, open_warehouse

    store = open_lake(settings)
    state: dict[str, Any] = {
        "input": input_fingerprint(settings),
        "code": code_fingerprint(),
        "lake": landed_fingerprint(store),
        "published_version": published_version(settings),
    }
    if settings.warehouse_path.exists():
        with open_warehouse(settings.warehouse_path, read_only=True) as con:
            state["loaded"] = latest_load_seq(con)
            state["built"] = build_mark(con, WAREHOUSE_MARK)
    return state


def input_fingerprint(settings: PlatformSettings) -> str:
    """Stands for the source's content: the fleet's settings, or the real files' bytes."""
    if settings.source.data is None:
        return hashlib.sha256(settings.source.model_dump_json().encode()).hexdigest()[:16]
    digest = hashlib.sha256()
    for path in sorted(path for path in settings.source.data.rglob("*") if path.is_file()):
        digest.update(str(path.relative_to(settings.source.data)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


# The folders whose code and SQL make the tables.
CODE = (
    "contracts",
    "lake",
    "ingestion",
    "simulation",
    "warehouse",
    "ml",
    "governance",
    "petwellness_orchestration",
    "dbt_project",
)


def code_fingerprint() -> str:
    """Stands for the code and SQL that make the tables."""
    digest = hashlib.sha256()
    for folder in CODE:
        for path in sorted((PROJECT_ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".sql", ".yml", ".csv") and "target" not in path.parts:
                digest.update(path.read_bytes())
    digest.update((PROJECT_ROOT / "constraints.txt").read_bytes())
    return digest.hexdigest()[:16]
