"""Time of each stage of the demo, the memory of its processes, and the second run that finds nothing to do.

The demo runs as a user runs it, in a process of its own and a state folder that
was empty before. Memory is sampled over the process and its children, because
`ru_maxrss` of a child also holds what its parent had when it was started.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

AIM_TOTAL_S = 120
AIM_PEAK_BYTES = 1_500_000_000
AIM_SECOND_RUN_S = 10
SAMPLE_EVERY_S = 0.2
# How the demo says that a step starts: "[  17.0 s] raw_loads ...".
_STEP = re.compile(r"\[[ \d.]+ s\] (\S+) \.\.\.")
COMMAND = [sys.executable, "-m", "petwellness_orchestration.cli", "demo"]


class DemoFailedError(RuntimeError):
    """The demo did not pass; the message holds the end of its output."""


class MemorySampler:
    """Largest resident memory of a process tree: all of it at one moment, and each process alone."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self.peak_bytes_by_process: dict[str, int] = {}
        self.peak_bytes_by_step: dict[str, int] = {}
        self.step = "start"
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.is_set():
            self._sample()
            self._stopped.wait(SAMPLE_EVERY_S)

    def _sample(self) -> None:
        import psutil

        total = 0
        try:
            root = psutil.Process(self._pid)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                resident, name = process.memory_info().rss, self._name(process.pid, process.cmdline())
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            total += resident
            self.peak_bytes_by_process[name] = max(self.peak_bytes_by_process.get(name, 0), resident)
        self.peak_bytes = max(self.peak_bytes, total)
        self.peak_bytes_by_step[self.step] = max(self.peak_bytes_by_step.get(self.step, 0), total)

    def _name(self, pid: int, arguments: list[str]) -> str:
        if pid == self._pid:
            return "demo"
        return "publisher" if "simulate" in arguments else "other"


def run(home: Path, progress: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run the demo twice with its state in the empty folder `home`. Raises DemoFailedError."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PETWELLNESS_")},
        "PETWELLNESS_HOME": str(home),
    }
    first_s, sampler = _demo(environment, home.parent, progress)
    summary = json.loads((home / "demo_summary.json").read_text())
    second_s, _ = _demo(environment, home.parent, progress)
    return {
        "wall_s": round(first_s, 1),
        "stage_s": summary["stage_seconds"],
        "messages": summary["lake"]["messages"],
        "telemetry_rows": summary["lake"]["telemetry_rows"],
        "lake_bytes": summary["lake"]["bytes"],
        "bytes_per_telemetry_row": summary["lake"]["bytes_per_telemetry_row"],
        "peak_bytes": sampler.peak_bytes,
        "peak_bytes_by_process": dict(sorted(sampler.peak_bytes_by_process.items())),
        "peak_bytes_by_step": sampler.peak_bytes_by_step,
        "second_run_s": round(second_s, 1),
    }


def _demo(
    environment: dict[str, str], folder: Path, progress: Callable[[str], None]
) -> tuple[float, MemorySampler]:
    """One run of the command: its wall seconds and memory; steps are reported as they start."""
    lines: list[str] = []
    started = time.perf_counter()
    process = subprocess.Popen(
        COMMAND, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        with MemorySampler(process.pid) as sampler:
            for line in process.stdout:
                lines.append(line.rstrip())
                step = _STEP.fullmatch(lines[-1])
                if step:
                    sampler.step = step[1]
                    progress(lines[-1])
            code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code != 0:
        raise DemoFailedError(f"the demo ended with exit code {code}:\n" + "\n".join(lines[-20:]))
    return time.perf_counter() - started, sampler
