"""Run parts of the asset graph in this process, with progress lines in place of Dagster's log.

The same jobs that schedules and sensors start; the run is recorded in the state
folder's Dagster instance, so the UI shows it.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.cli.console import say
from petwellness_orchestration.cli.signals import restore_stop_signals
from petwellness_orchestration.instance import events_kept_open, prepare_dagster_home
from petwellness_orchestration.run_processes import this_process
from petwellness_orchestration.settings import PlatformSettings

if TYPE_CHECKING:
    import dagster as dg

EVERYTHING = "everything"
REFRESH = "refresh"
ROLL_UP = "roll_up"
COMPACT = "compact"
RETAIN = "retain"
CHECK_EVERYTHING = "check_everything"

# Who started a command sees how long it takes, and ends it; a monitor could only call it failed while it goes on.
_NO_LIMIT = {"dagster/max_runtime": "0"}


@dataclass(frozen=True)
class CheckOutcome:
    """One evaluated asset check: `status` is passed, warned, failed or not applicable (with its reason)."""

    asset: str
    name: str
    status: str
    blocking: bool
    reason: str | None = None


@dataclass(frozen=True)
class RunOutcome:
    """What a run did: success, seconds by step, evaluated checks, metadata by asset, the first error."""

    success: bool
    run_id: str
    step_seconds: dict[str, float]
    checks: list[CheckOutcome]
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: str | None = None


def run_job(
    settings: PlatformSettings,
    job_name: str,
    assets: Sequence[str] | None = None,
    partition_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> RunOutcome:
    """Run a job in this process; `assets` ("group:raw", "anl/daily_activity") restrict it.

    A job by event days runs for all dirty days; one by arrival days needs its
    `partition_key`, and one without partitions takes none.
    """
    restore_stop_signals()
    prepare_dagster_home(settings)
    warnings.filterwarnings("ignore")
    say("loading the asset graph")
    import dagster as dg

    from petwellness_orchestration.definitions import build_definitions
    from petwellness_orchestration.defs.operations.jobs import latest_ended_day
    from petwellness_orchestration.defs.warehouse.partitions import DIRTY_TAGS, EVENT_DAYS
    from petwellness_orchestration.run_launcher import fail_abandoned_runs

    definitions = build_definitions()
    job = definitions.resolve_job_def(job_name)
    selection = None
    if assets is not None:
        graph = definitions.resolve_asset_graph()
        selected = dg.AssetSelection.from_coercible(list(assets)).resolve(graph)
        selection = sorted(key for key in selected if key in graph.executable_asset_keys)
    quiet_libraries()
    with dg.DagsterInstance.get() as instance, events_kept_open(settings):
        for run in fail_abandoned_runs(instance):
            say(f"run {run.run_id} of job '{run.job_name}' was killed before: marked as failed")
        is_by_event_day = job.partitions_def == EVENT_DAYS
        result = job.execute_in_process(
            instance=instance,
            partition_key=latest_ended_day(time.time()) if is_by_event_day else partition_key,
            asset_selection=selection,
            tags={**(DIRTY_TAGS if is_by_event_day else tags or {}), **this_process().tag, **_NO_LIMIT},
            run_config={"loggers": {"progress": {}}},
            raise_on_error=False,
        )
        return outcome(result)


def quiet_libraries() -> None:
    """Keep libraries' own chatter out of the progress lines; errors still show."""
    for name in ("great_expectations", "mlflow", "alembic", "sqlalchemy", "botocore"):
        logging.getLogger(name).setLevel(logging.ERROR)


def outcome(result: dg.ExecuteInProcessResult) -> RunOutcome:
    """Plain values of a finished run."""
    steps: dict[str, float] = {}
    metadata: dict[str, dict[str, Any]] = {}
    error = None
    for event in result.all_events:
        if event.event_type_value == "STEP_SUCCESS":
            steps[str(event.step_key)] = event.step_success_data.duration_ms / 1000
        elif event.event_type_value == "ASSET_MATERIALIZATION":
            found = event.step_materialization_data.materialization
            metadata.setdefault(found.asset_key.to_user_string(), {}).update(
                {name: value.value for name, value in found.metadata.items()}
            )
        elif event.event_type_value == "STEP_FAILURE" and error is None:
            error = failure_line(event.step_failure_data.error)
    checks = [_check(evaluation) for evaluation in result.get_asset_check_evaluations()]
    return RunOutcome(result.success, result.run_id, steps, checks, metadata, error)


def failure_line(error: Any) -> str | None:
    """What a step raised, in one line: the cause behind Dagster's own wrapper."""
    while error is not None and error.cls_name.startswith("Dagster") and error.cause is not None:
        error = error.cause
    if error is None:
        return None
    message = " ".join(error.message.split())
    # Dagster puts the class before its message; people need the message.
    return message.split(f"{error.cls_name}: ", 1)[-1]


def _check(evaluation: Any) -> CheckOutcome:
    import dagster as dg

    values = {name: value.value for name, value in evaluation.metadata.items()}
    if values.get("status") == "not applicable":
        status = "not applicable"
    elif evaluation.passed:
        status = "passed"
    else:
        status = "warned" if evaluation.severity == dg.AssetCheckSeverity.WARN else "failed"
    return CheckOutcome(
        evaluation.asset_key.to_user_string(),
        evaluation.check_name,
        status,
        bool(evaluation.blocking),
        values.get("reason") if status != "passed" else None,
    )
