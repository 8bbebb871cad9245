"""Worker processes: started, restarted when they end, killed and frozen on request."""

import asyncio
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from verification.chaos.worker import PRELOAD, WorkerSpec, run_worker

RESTART_AFTER_S = 0.2
SUPERVISE_EVERY_S = 0.05
STOP_TIMEOUT_S = 60.0
# A worker that gives up this often does not recover by itself.
MAX_FAILURES = 200


class FleetError(Exception):
    """Workers cannot be kept running or do not stop."""


@dataclass
class _Slot:
    spec: WorkerSpec
    process: Any = None
    wanted: bool = True
    frozen: bool = False
    ended_at: float | None = None


@dataclass
class Workers:
    """The workers of one scenario by name; use as a context. A worker that ends is started again."""

    slots: dict[str, _Slot] = field(default_factory=dict)
    # How workers ended: "killed", "stopped", "failed".
    ends: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _supervisor: threading.Thread | None = None

    def __enter__(self) -> "Workers":
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD])
        self._supervisor = threading.Thread(target=self._supervise, name="fleet", daemon=True)
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        assert self._supervisor is not None
        self._supervisor.join()
        for slot in self.slots.values():
            if slot.process is not None and slot.process.is_alive():
                slot.process.kill()
                slot.process.join()

    def add(self, spec: WorkerSpec) -> None:
        """Start a worker and keep it running."""
        with self._lock:
            self.slots[spec.name] = slot = _Slot(spec)
            self._start(slot)

    def remove(self, worker: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, and wait for its orderly end. Raises FleetError."""
        self.stop_all([worker], timeout_s)

    def stop_all(self, names: list[str] | None = None, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM to workers (all of them by default); wait until they ended. Raises FleetError."""
        with self._lock:
            names = [*self.slots] if names is None else names
        self._end(names, signal.SIGTERM, timeout_s)

    def crash(self, names: list[str]) -> None:
        """SIGKILL workers and leave them down; returns when they are gone. Raises FleetError."""
        self._end(names, signal.SIGKILL, STOP_TIMEOUT_S)

    def _end(self, names: list[str], number: signal.Signals, timeout_s: float) -> None:
        with self._lock:
            slots = [self.slots[name] for name in names]
            for slot in slots:
                slot.wanted = False
                if slot.process is not None and slot.process.is_alive():
                    os.kill(slot.process.pid, number)
        deadline = time.monotonic() + timeout_s
        while any(slot.process is not None for slot in slots):
            if time.monotonic() > deadline:
                left = ", ".join(slot.spec.name for slot in slots if slot.process is not None)
                raise FleetError(f"{left} did not end within {timeout_s:.0f} s of {number.name}")
            time.sleep(SUPERVISE_EVERY_S)

    def kill_now(self, worker: str) -> bool:
        """SIGKILL without waiting; whether there was something to kill."""
        with self._lock:
            process = self.slots[worker].process
            if process is None or not process.is_alive():
                return False
            os.kill(process.pid, signal.SIGKILL)
            return True

    @property
    def hopeless(self) -> bool:
        """Whether workers gave up so often that they are no longer started."""
        return self.ends["failed"] >= MAX_FAILURES

    def running(self) -> list[str]:
        """Workers that are up and not frozen."""
        with self._lock:
            return [
                name
                for name, slot in self.slots.items()
                if slot.process is not None and slot.process.is_alive() and not slot.frozen
            ]

    async def kill(self, worker: str) -> None:
        """SIGKILL; returns when the process is gone."""
        with self._lock:
            process = self.slots[worker].process
        if process is None or not self.kill_now(worker):
            return
        await asyncio.get_running_loop().run_in_executor(
            None, multiprocessing.connection.wait, [process.sentinel], 10.0
        )

    def stop(self, worker: str) -> None:
        """SIGSTOP."""
        self._signal(worker, signal.SIGSTOP, frozen=True)

    def wake(self, worker: str) -> None:
        """SIGCONT."""
        self._signal(worker, signal.SIGCONT, frozen=False)

    def others_run(self, worker: str) -> bool:
        """Whether some other worker is up, to take over."""
        return any(name != worker for name in self.running())

    def _signal(self, worker: str, number: signal.Signals, frozen: bool) -> None:
        with self._lock:
            slot = self.slots[worker]
            slot.frozen = frozen
            if slot.process is not None and slot.process.is_alive():
                os.kill(slot.process.pid, number)

    def _start(self, slot: _Slot) -> None:
        slot.process = self._context.Process(
            target=run_worker, args=(slot.spec,), name=slot.spec.name, daemon=True
        )
        slot.process.start()
        slot.ended_at = None

    def _supervise(self) -> None:
        while not self._closing.wait(SUPERVISE_EVERY_S):
            with self._lock:
                for slot in self.slots.values():
                    self._look_after(slot)

    def _look_after(self, slot: _Slot) -> None:
        if slot.process is not None and not slot.process.is_alive():
            code = slot.process.exitcode
            self.ends["killed" if code == -signal.SIGKILL else "failed" if code else "stopped"] += 1
            slot.process, slot.ended_at, slot.frozen = None, time.monotonic(), False
        due = slot.ended_at is not None and time.monotonic() - slot.ended_at >= RESTART_AFTER_S
        if slot.process is None and slot.wanted and due and not self.hopeless:
            self._start(slot)
