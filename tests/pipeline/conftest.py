"""State folders of small fleets and what runs in them: made once a session, also across workers."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

# Small, yet with every planted fault, moving collars, opt-outs and changed records.
SMALL_FLEET = {
    "PETWELLNESS_FLEET_SEED": "24",
    "PETWELLNESS_FLEET_DAYS": "3",
    "PETWELLNESS_FLEET_COLLARS": "12",
    "PETWELLNESS_FLEET_HOUSEHOLDS": "14",
    "PETWELLNESS_FLEET_CLINICS": "2",
    # One salt for all, so that the hashes of two state folders can be compared.
    "PETWELLNESS_SALT": "salt of the tests",
}
DEMO_TIMEOUT_S = 480

Petwellness = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class DemoState:
    """A state folder after a demo: what the command printed, its exit code, its environment."""

    home: Path
    returncode: int
    stdout: str
    stderr: str

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Variables of a process that works on a small fleet in `home`."""
    return {**os.environ, **SMALL_FLEET, "PETWELLNESS_HOME": str(home), **more}


def command(*arguments: str) -> list[str]:
    """The `petwellness` command of this environment."""
    return [sys.executable, "-m", "petwellness_orchestration.cli", *arguments]


def run(
    *arguments: str, env: Mapping[str, str], timeout_s: float = DEMO_TIMEOUT_S, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a `petwellness` subcommand to its end, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        stdout, stderr = Path(name, "stdout"), Path(name, "stderr")
        request = {
            "arguments": arguments,
            "env": dict(env),
            "cwd": str(cwd or Path.cwd()),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        server = command_server()
        assert server.stdin is not None
        assert server.stdout is not None
        print(json.dumps(request), file=server.stdin, flush=True)
        pid = int(server.stdout.readline())
        overtime = threading.Timer(timeout_s, os.killpg, (pid, signal.SIGKILL))
        overtime.start()
        try:
            returncode = int(server.stdout.readline())
        finally:
            overtime.cancel()
        return subprocess.CompletedProcess(
            ["petwellness", *arguments], returncode, stdout.read_text(), stderr.read_text()
        )


@cache
def command_server() -> "subprocess.Popen[str]":
    """The process whose forks the commands of this worker are; it ends with the worker, whose pipe it reads."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("command_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One worker at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this session."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "pipeline"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def manifest(shared_folder: Path) -> Path:
    """The dbt manifest, parsed by one worker if it has to be."""
    from petwellness_orchestration.defs.warehouse.manifest import ensure_manifest

    with locked(shared_folder / "manifest.lock"):
        return ensure_manifest()


@pytest.fixture(scope="session")
def petwellness() -> Petwellness:
    """Runs a subcommand in a process of its own."""
    return run


@pytest.fixture(scope="session")
def small_fleet_environment() -> Callable[..., dict[str, str]]:
    return environment


@pytest.fixture(scope="session")
def start_petwellness() -> Callable[..., "subprocess.Popen[str]"]:
    """Starts a subcommand in a process group of its own, its standard output to be read."""

    def start(*arguments: str, env: Mapping[str, str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=dict(env),
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def demo_state(manifest: Path, shared_folder: Path) -> DemoState:
    """A demo that nothing disturbed. Not to be changed: copy the folder to break something."""
    folder = shared_folder / "undisturbed"
    home = folder / "home"
    with locked(shared_folder / "undisturbed.lock"):
        if not (folder / "returncode").exists():
            folder.mkdir(exist_ok=True)
            done = run("demo", env=environment(home))
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
            (folder / "returncode").write_text(str(done.returncode))
    return DemoState(
        home,
        int((folder / "returncode").read_text()),
        (folder / "stdout").read_text(),
        (folder / "stderr").read_text(),
    )
