"""Which process a run is in, so that a run whose process is gone can be told from one that works.

A run that is killed cannot say so. Its process is a tag of it: host, boot, process ids' namespace, process id and
start, because an id alone may belong to another process by now.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

PROCESS_TAG = "petwellness/process"

_PROC = Path("/proc")


@dataclass(frozen=True)
class RunProcess:
    """A process: its id, when it started, and where the id means something (host, boot of it, namespace of ids)."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str

    @property
    def tag(self) -> dict[str, str]:
        """The tag of a run in this process."""
        return {PROCESS_TAG: json.dumps(asdict(self), sort_keys=True)}

    def is_gone(self) -> bool:
        """Whether it has surely ended. False where this process cannot know: on another host, in another container."""
        here = this_process()
        if self.host != here.host:
            return False
        if self.boot != here.boot:
            return True
        return self.namespace == here.namespace and self.started != _started(self.pid)


def this_process() -> RunProcess:
    """The process that asks."""
    boot, namespace = _PROC / "sys/kernel/random/boot_id", _PROC / "self/ns/pid"
    return RunProcess(
        host=socket.gethostname(),
        boot=boot.read_text().strip() if boot.exists() else "",
        namespace=os.readlink(namespace) if namespace.is_symlink() else "",
        pid=os.getpid(),
        started=_started(os.getpid()),
    )


def process_of(tags: Mapping[str, str]) -> RunProcess | None:
    """The process that a run's tags name; None without one that can be read."""
    try:
        return RunProcess(**json.loads(tags[PROCESS_TAG]))
    except (KeyError, TypeError, ValueError):
        return None


def _started(pid: int) -> str:
    """When a process started; empty where there is none, or only its exit code is left."""
    if not _PROC.is_dir():
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        state, _, started = (
            subprocess.run(command, capture_output=True, text=True).stdout.strip().partition(" ")
        )
        return "" if state.startswith("Z") else started.strip()
    try:
        # The fields follow the command's name, which may hold anything but ends at the last bracket.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
