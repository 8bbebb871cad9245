"""How runs are launched and watched: as Dagster does it, and what is left of a killed process is failed.

`dagster.yaml` names the launcher, so everything that opens the instance imports this module: nothing of the graph
is loaded here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from petwellness_orchestration.run_processes import process_of, this_process

_IN_A_PROCESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, which can say whether the process of a run is still there.

    Dagster's code server looks after the runs that it started itself, as long as it lives. Run monitoring asks this
    class about all others: those of commands, and of a code server that was killed.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """NOT_FOUND for a run whose process is gone. RUNNING also where nobody here can know: then the limit of a
        run's time ends it."""
        reason = _gone(run)
        if reason is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, reason)


class _NotedExecutor(dg.Executor):
    """Dagster's executor in the run's own process, after the run has got the tag that names the process."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, this_process().tag)
        yield from self._inner.execute(plan_context, execution_plan)


# Its schema is typed as what a definition has, not as what it may be given.
_DAGSTERS: Any = dg.in_process_executor


@dg.executor(name="in_process", config_schema=_DAGSTERS.config_schema)
def in_process_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the run's process, which the run's tags name."""
    return _NotedExecutor(_DAGSTERS.executor_creation_fn(context))


def fail_abandoned_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Fail every run whose process is gone, and say which those are.

    The daemon does it all the time; a command has to where none runs, or the next daemon would wait for them.
    """
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_IN_A_PROCESS)):
        reason = _gone(run)
        # A run that ended by itself wrote so before its process went.
        now = instance.get_run_by_id(run.run_id) if reason else None
        if reason is None or now is None or now.is_finished:
            continue
        if now.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(now, reason)
        else:
            instance.report_run_failed(now, reason)
        failed.append(now)
    return failed


def _gone(run: dg.DagsterRun) -> str | None:
    """Why a run cannot go on; None for one that may."""
    process = process_of(run.tags)
    if process is None or not process.is_gone():
        return None
    return (
        f"process {process.pid} of {process.host}, which this run was in, is gone: killed, or its machine was"
    )
