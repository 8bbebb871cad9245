"""`petwellness dev`: every process of the embedded platform under one Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from petwellness_orchestration.cli.console import say, warn
from petwellness_orchestration.cli.publish import stop_on_signals
from petwellness_orchestration.cli.steps import land_records
from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest
from petwellness_orchestration.instance import prepare_dagster_home
from petwellness_orchestration.settings import load_settings

STOP_TIMEOUT_S = 20
BROKER_TIMEOUT_S = 30
POLL_S = 0.5


@dataclass
class Child:
    """One process of the platform."""

    name: str
    process: subprocess.Popen[bytes]


def run_dev(port: int) -> int:
    """Start broker with live fleet, collector and Dagster; stop all when one ends or on Ctrl-C."""
    stop = stop_on_signals()
    settings = load_settings()
    ensure_manifest()
    land_records()
    environment = {
        **os.environ,
        "PETWELLNESS_HOME": str(settings.state.home),
        "DAGSTER_HOME": str(prepare_dagster_home(settings.state.home)),
        "PETWELLNESS_AUTOMATION": "true",
        "PETWELLNESS_COLLECTOR_AS_SERVICE": "true",
    }
    children: list[Child] = []
    try:
        children.append(_start("live fleet", [_petwellness(), "simulate", "--live"], environment))
        _wait_for(settings.state.broker_card_path.exists, children, BROKER_TIMEOUT_S)
        children.append(_start("collector", [_petwellness(), "collect", "--forever"], environment))
        children.append(_start("dagster", _dagster_command(port), environment))
        say(f"Dagster UI: http://127.0.0.1:{port} (Ctrl-C stops everything)")
        while not stop.is_set():
            ended = [child for child in children if child.process.poll() is not None]
            if ended:
                warn(f"{ended[0].name} ended with exit code {ended[0].process.returncode}; stopping the rest")
                return 1
            stop.wait(POLL_S)
        return 0
    finally:
        stop_children(children)


def stop_children(children: list[Child]) -> None:
    """Ask every process to stop, last started first, and wait; one that does not is killed."""
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for child in reversed(children):
        try:
            child.process.wait(max(0.1, deadline - time.monotonic()))
            say(f"{child.name} stopped")
        except subprocess.TimeoutExpired:
            # Its own children are in its process group.
            os.killpg(child.process.pid, signal.SIGKILL)
            warn(f"{child.name} did not stop within {STOP_TIMEOUT_S} s and was killed")


def _start(name: str, command: list[str], environment: dict[str, str]) -> Child:
    # A session of its own, so that the terminal's Ctrl-C reaches only this process,
    # which stops the others in order.
    return Child(name, subprocess.Popen(command, env=environment, start_new_session=True))


def _wait_for(condition: Callable[[], bool], children: list[Child], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if any(child.process.poll() is not None for child in children) or time.monotonic() > deadline:
            raise SystemExit("petwellness: the embedded broker did not start; its output is above")
        time.sleep(POLL_S)


def _petwellness() -> str:
    return os.path.join(os.path.dirname(sys.executable), "petwellness")


def _dagster_command(port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "dagster", "dev"),
        *("-m", "petwellness_orchestration.definitions"),
        *("-h", "127.0.0.1", "-p", str(port)),
        *("--log-level", "warning"),
    ]
