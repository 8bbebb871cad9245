"""One peer's process from start to end: when it began to read, its last file, its CPU time and memory."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

POLL_S = 0.05
STALL_S = 120.0
STOP_S = 60.0
TAIL_LINES = 8


class PeerFailedError(Exception):
    """The peer did not do its work; the text has the end of its log."""


@dataclass(frozen=True)
class Launch:
    """How a peer is run.

    `ready` is what its output says when it begins to read. `rows` counts what it
    has finished so far. A peer that does not end by itself is asked to (SIGTERM)
    when all messages are there.
    """

    command: list[str]
    ready: str
    rows: Callable[[], int]
    ends_itself: bool
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Life:
    """One run, in seconds: until its last file, of which reading; CPU in all and since it read; peak bytes."""

    whole_s: float
    consuming_s: float
    cpu_s: float
    consuming_cpu_s: float
    peak_rss_bytes: int


def watch(launch: Launch, messages: int, output: Path, log: Path) -> Life:
    """Run a peer until it has written all messages, or nothing new for `STALL_S`.

    `output` is the folder its files appear in. Raises PeerFailedError when it dies
    or never begins to read.
    """
    started = time.time()
    with log.open("wb") as told:
        process = subprocess.Popen(
            launch.command,
            cwd=log.parent,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            start_new_session=True,
        )
    watched = _Watched(process, re.compile(launch.ready, re.MULTILINE), log)
    try:
        _until_done(watched, launch, messages)
        died = watched.has_ended()
        status, cpu_s = watched.end()
    finally:
        watched.kill()
    if watched.ready_at is None or (died and status):
        raise PeerFailedError(f"it ended with code {status}; its log ends with: {tail(log)}")
    last = max((path.stat().st_mtime for path in output.rglob("*") if path.is_file()), default=started)
    return Life(
        whole_s=last - started,
        consuming_s=last - watched.ready_at,
        cpu_s=cpu_s,
        consuming_cpu_s=cpu_s - watched.ready_cpu_s,
        peak_rss_bytes=watched.peak_rss_bytes,
    )


def tail(log: Path) -> str:
    """The last lines of a log, as one."""
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-TAIL_LINES:])


def _until_done(watched: "_Watched", launch: Launch, messages: int) -> None:
    """Watch until the peer ended, or wrote all messages and is to be ended, or stalled."""
    rows, changed = 0, time.monotonic()
    while not watched.has_ended():
        time.sleep(POLL_S)
        watched.sample()
        now = launch.rows()
        if now != rows:
            rows, changed = now, time.monotonic()
        if rows >= messages and not launch.ends_itself:
            return
        if time.monotonic() - changed > STALL_S:
            return


class _Watched:
    def __init__(self, process: "subprocess.Popen[bytes]", ready: re.Pattern[str], log: Path) -> None:
        import psutil

        self.ready_at: float | None = None
        self.ready_cpu_s = 0.0
        self.peak_rss_bytes = 0
        self._process = process
        self._seen = psutil.Process(process.pid)
        self._ready = ready
        self._log = log
        self._ended: tuple[int, float] | None = None

    def has_ended(self) -> bool:
        """Whether it is gone; its exit code and CPU time are kept."""
        if self._ended is None:
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._keep(status, usage.ru_utime + usage.ru_stime)
        return self._ended is not None

    def sample(self) -> None:
        """Look at its memory and, until it has begun to read, its log and its CPU time."""
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            self.peak_rss_bytes = max(self.peak_rss_bytes, self._seen.memory_info().rss)
            times = self._seen.cpu_times()
            if self.ready_at is None and self._ready.search(self._log.read_text(errors="replace")):
                self.ready_at, self.ready_cpu_s = time.time(), times.user + times.system

    def end(self) -> tuple[int, float]:
        """Its exit code and CPU seconds; asked to end if it still runs, and killed when it does not."""
        if not self.has_ended():
            os.killpg(self._process.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.kill()
        assert self._ended is not None
        return self._ended

    def kill(self) -> None:
        """End it at once if it still runs."""
        if not self.has_ended():
            os.killpg(self._process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(self._process.pid, 0)
            self._keep(status, usage.ru_utime + usage.ru_stime)

    def _keep(self, status: int, cpu_s: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._ended = code, cpu_s
        # So that subprocess does not look for a process that is gone.
        self._process.returncode = code
