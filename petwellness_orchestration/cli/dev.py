"""`petwellness dev`: every process of the embedded platform under one Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingestion.broker.embedded import read_card
from petwellness_orchestration.cli.console import say, warn
from petwellness_orchestration.cli.signals import stop_on_signals
from petwellness_orchestration.cli.steps import land_records
from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest
from petwellness_orchestration.instance import prepare_dagster_home, write_workspace
from petwellness_orchestration.settings import load_settings

STOP_TIMEOUT_S = 20
BROKER_TIMEOUT_S = 30
UI_TIMEOUT_S = 120
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
    if _answers(port):
        warn(f"port {port} of 127.0.0.1 is in use; stop what listens there or choose another with --port")
        return 1
    ensure_manifest()
    if land_records() != 0:
        return 1
    prepare_dagster_home(settings)
    environment = {
        **os.environ,
        "PETWELLNESS_HOME": str(settings.state.home),
        "PETWELLNESS_AUTOMATION": "true",
        "PETWELLNESS_COLLECTOR_AS_SERVICE": "true",
        # Dagster announces every preview API at each load of the code location.
        "PYTHONWARNINGS": "ignore",
    }
    log_dir = settings.state.home / "logs"
    log_dir.mkdir(parents=True, exist_ok=True)
    children: list[Child] = []
    try:
        children.append(_start("live fleet", [_petwellness(), "simulate", "--live"], environment, log_dir))
        # A card without its broker may lie there since a kill.
        _wait_for(
            lambda: read_card(settings.state.broker_card_path) is not None, children, BROKER_TIMEOUT_S, stop
        )
        children.append(_start("collector", [_petwellness(), "collect", "--forever"], environment, log_dir))
        children.append(
            _start(
                "dagster", _dagster_command(port, write_workspace(settings.state.home)), environment, log_dir
            )
        )
        _wait_for(lambda: _answers(port), children, UI_TIMEOUT_S, stop)
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
    """Ask every process to stop, last started first, and wait; what does not stop is killed.

    Each child leads a process group; what it started itself goes with it.
    """
    for child in reversed(children):
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        try:
            child.process.wait(STOP_TIMEOUT_S)
            _signal_group(child, signal.SIGTERM)
            while _signal_group(child, 0) and time.monotonic() < deadline:
                time.sleep(POLL_S)
        except subprocess.TimeoutExpired:
            warn(f"{child.name} did not stop within {STOP_TIMEOUT_S} s and is killed")
        _signal_group(child, signal.SIGKILL)
        child.process.wait()
        say(f"{child.name} stopped")


def _signal_group(child: Child, number: int) -> bool:
    """Signal a child's process group; whether anything of it is left."""
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _start(name: str, command: list[str], environment: dict[str, str], log_dir: Path) -> Child:
    log_path = log_dir / f"{name.replace(' ', '_')}.log"
    say(f"starting {name}; its output is in {log_path}")
    with log_path.open("wb") as log:
        # A session of its own, so that the terminal's Ctrl-C reaches only this process,
        # which stops the others in order.
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    return Child(name, process)


def _wait_for(
    condition: Callable[[], bool], children: list[Child], timeout_s: float, stop: threading.Event
) -> None:
    """Return when the condition holds or `stop` is set. Raises SystemExit when a process ends or the time is over."""
    deadline = time.monotonic() + timeout_s
    while not stop.is_set() and not condition():
        ended = [child.name for child in children if child.process.poll() is not None]
        if ended or time.monotonic() > deadline:
            what = ended[0] if ended else children[-1].name
            raise SystemExit(f"petwellness: {what} did not start; see its log above")
        time.sleep(POLL_S)


def _answers(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _petwellness() -> str:
    return os.path.join(os.path.dirname(sys.executable), "petwellness")


def _dagster_command(port: int, workspace: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "dagster", "dev"),
        *("-w", str(workspace)),
        *("-h", "127.0.0.1", "-p", str(port)),
        *("--log-level", "warning"),
    ]
