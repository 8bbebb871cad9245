"""Runs whose process was killed: failed by the next command, and by Dagster's daemon while it runs."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from waiting import IGNORING_SIGINT, end, until

from petwellness_orchestration.instance import prepare_dagster_home
from petwellness_orchestration.run_launcher import WatchedRunLauncher, fail_abandoned_runs
from petwellness_orchestration.run_processes import PROCESS_TAG, process_of, this_process
from petwellness_orchestration.settings import load_settings

# A command's run that works until it is killed. `{executed}` is how the job runs.
WORKS = """
import threading
import dagster as dg
from petwellness_orchestration.run_launcher import in_process_executor
from petwellness_orchestration.run_processes import this_process

@dg.op
def works():
    print("works", flush=True)
    threading.Event().wait()

@dg.job(executor_def=in_process_executor)
def endless():
    works()

if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        {executed}
"""
BY_A_COMMAND = "endless.execute_in_process(instance=instance, tags=this_process().tag)"
BY_THE_EXECUTOR = "dg.execute_job(dg.reconstructable(endless), instance)"

# Runs such scripts in forks of its own, because to import Dagster takes seconds of a core. What has ended stays as a
# process of which only the exit code is left until it is asked for.
FORKS = """
import json, os, runpy, sys
import dagster, petwellness_orchestration.run_launcher, petwellness_orchestration.run_processes

for line in sys.stdin:
    asked = json.loads(line)
    if "ended" in asked:
        print(os.waitpid(asked["ended"], 0)[1], flush=True)
    elif (pid := os.fork()):
        print(pid, flush=True)
    else:
        os.environ.update(asked["environment"])
        runpy.run_path(asked["script"], run_name="__main__")
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", "")
    prepare_dagster_home(load_settings())
    with dg.DagsterInstance.get() as one:
        yield one


class Forks:
    """Processes with a run each."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    @contextmanager
    def working_run(self, folder: Path, executed: str = BY_A_COMMAND) -> Iterator[int]:
        """The process id of a run that has started; killed at the end."""
        script = folder / "endless.py"
        script.write_text(WORKS.format(executed=executed))
        # Two lines in either order.
        said = {self._ask(script=str(script), environment=dict(os.environ)), self._line()}
        [pid] = [int(line) for line in said - {"works"}]
        try:
            assert "works" in said
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            assert self._ask(ended=pid) == f"{int(signal.SIGKILL)}"

    def _ask(self, **what: Any) -> str:
        assert self._process.stdin is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Forks(process)
        process.kill()


def statuses(instance: dg.DagsterInstance) -> list[str]:
    return [run.status.value for run in instance.get_runs()]


@pytest.mark.parametrize("executed", [BY_A_COMMAND, BY_THE_EXECUTOR], ids=["command", "executor"])
def test_a_run_is_failed_once_its_process_is_gone_and_not_before(
    tmp_path: Path, instance: dg.DagsterInstance, forks: Forks, executed: str
) -> None:
    with forks.working_run(tmp_path, executed) as pid:
        [run] = instance.get_runs()
        noted = process_of(run.tags)
        assert noted is not None
        assert noted.pid == pid
        assert fail_abandoned_runs(instance) == []
        assert statuses(instance) == ["STARTED"]
        os.kill(pid, signal.SIGKILL)
        # Not waited for yet: a process of which only the exit code is left is gone, too.
        until(lambda: fail_abandoned_runs(instance), "a failed run")
    assert statuses(instance) == ["FAILURE"]
    assert fail_abandoned_runs(instance) == []


def test_the_daemon_fails_what_was_killed_before_and_while_it_runs(
    tmp_path: Path, instance: dg.DagsterInstance, forks: Forks
) -> None:
    with forks.working_run(tmp_path):
        pass
    assert statuses(instance) == ["STARTED"]
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text("load_from: []\n")
    with (tmp_path / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*IGNORING_SIGINT, sys.executable, "-c", BECOMES_DAEMON, str(workspace)],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: statuses(instance) == ["FAILURE"], "the run that was killed before is failed")
        with forks.working_run(tmp_path):
            assert sorted(statuses(instance)) == ["FAILURE", "STARTED"]
        until(lambda: statuses(instance) == ["FAILURE"] * 2, "the run that was killed since is failed")
    finally:
        assert end(daemon) == 0


BECOMES_DAEMON = (
    "import sys; from petwellness_orchestration.cli.processes import _become;"
    " _become('dagster._daemon', 'run', '--workspace', sys.argv[1])"
)


@pytest.mark.parametrize(
    ("elsewhere", "is_gone"),
    [
        ({}, False),
        ({"started": "1"}, True),  # Its id is another process's by now.
        ({"boot": "before"}, True),
        ({"host": "other"}, False),
        ({"host": "other", "boot": "before"}, False),
        ({"namespace": "pid:[1]", "started": "1"}, False),
    ],
)
def test_only_a_process_that_is_surely_gone_is_gone(elsewhere: dict[str, str], is_gone: bool) -> None:
    assert dataclasses.replace(this_process(), **elsewhere).is_gone() is is_gone


@pytest.mark.parametrize("tag", [None, "", "12", "{}", '{"pid": 1}', "[1]"])
def test_a_run_that_names_no_process_is_left_to_the_limit_of_time(tag: str | None) -> None:
    tags = {} if tag is None else {PROCESS_TAG: tag}
    assert process_of(tags) is None
    run = dg.DagsterRun(job_name="job", tags=tags)
    assert WatchedRunLauncher().check_run_worker_health(run).status.value == "RUNNING"
