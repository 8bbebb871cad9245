"""Services end on SIGTERM also where SIGINT was ignored at their start, as behind `nohup ... &`."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import IGNORING_SIGINT, end, until

# What Dagster does at the start of each of its processes.
MAPS_SIGTERM = "signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT)); print('ready', flush=True)"
CLI = (sys.executable, "-m", "petwellness_orchestration.cli")


def test_dagsters_rule_for_sigterm_does_not_make_a_process_deaf() -> None:
    code = (
        "import signal, threading\n"
        "from petwellness_orchestration.cli.signals import restore_stop_signals\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
        f"restore_stop_signals(); {MAPS_SIGTERM}\n"
        "threading.Event().wait()"
    )
    with subprocess.Popen(
        [*IGNORING_SIGINT, sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert end(process) != 0


def test_a_command_that_ignores_sigterm_takes_it_again() -> None:
    code = (
        "import signal, threading\n"
        "from petwellness_orchestration.cli.signals import restore_stop_signals\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "restore_stop_signals(); print('ready', flush=True); threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert end(process) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_live_fleet_ends_and_its_state_is_nobody_elses(tmp_path: Path, number: signal.Signals) -> None:
    home = tmp_path / "home"
    if number is signal.SIGTERM:
        # As an older version left it.
        home.mkdir(mode=0o755)
        (home / "lake").mkdir(mode=0o700)
    environment = os.environ | {"PETWELLNESS_HOME": str(home), "PETWELLNESS_FLEET_COLLARS": "1"}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*IGNORING_SIGINT, *CLI, "simulate", "--live"],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: b"live fleet of" in (tmp_path / "out").read_bytes(), "the fleet is live")
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    finally:
        code = end(process, number)
    assert code == 0
    assert home / "broker.json" in modes
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}
