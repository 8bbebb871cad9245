"""State folders of small fleets and what runs in them: made once a session, also across workers."""

import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

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
REPOSITORY = Path(__file__).resolve().parents[2]

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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One worker at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Started:
    """A command that runs: its process, which leads a group of its own, and what it prints."""

    pid: int
    stdout: TextIO
    _answers: TextIO
    _folder: "tempfile.TemporaryDirectory[str]"

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        with self._folder, self._answers:
            return int(self._answers.readline())


class Commands:
    """Runs `petwellness` subcommands in processes of their own, forks of the session's `command_server`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A socket's path may be some hundred characters long, which temporary folders of tests can be by themselves.
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self._address = Path(tempfile.gettempdir()) / f"petwellness-commands-{digest}"
        self._connection: socket.socket | None = None
        self._server: subprocess.Popen[str] | None = None

    def __call__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        timeout_s: float = DEMO_TIMEOUT_S,
        cwd: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a subcommand to its end; one that takes longer is killed."""
        connection = self._connect()
        with tempfile.TemporaryDirectory() as name, connection.makefile("r") as answers:
            stdout, stderr = Path(name, "stdout"), Path(name, "stderr")
            self._request(connection, arguments, env, cwd or Path.cwd(), stdout, stderr)
            pid = int(answers.readline())
            overtime = threading.Timer(timeout_s, os.killpg, (pid, signal.SIGKILL))
            overtime.start()
            try:
                returncode = int(answers.readline())
            finally:
                overtime.cancel()
            return subprocess.CompletedProcess(
                ["petwellness", *arguments], returncode, stdout.read_text(), stderr.read_text()
            )

    def start(self, *arguments: str, env: Mapping[str, str]) -> Started:
        """Start a subcommand and read along; nothing else runs on this connection until it has ended."""
        connection = self._connect()
        folder = tempfile.TemporaryDirectory()
        output = Path(folder.name, "output")
        os.mkfifo(output)
        self._request(connection, arguments, env, Path.cwd(), output, output)
        answers = connection.makefile("r")
        return Started(int(answers.readline()), output.open(), answers, folder)

    @staticmethod
    def _request(
        connection: socket.socket,
        arguments: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        stdout: Path,
        stderr: Path,
    ) -> None:
        request = {
            "arguments": arguments,
            "env": dict(env),
            "cwd": str(cwd),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        with connection.makefile("w") as requests:
            print(json.dumps(request), file=requests, flush=True)

    def _connect(self) -> socket.socket:
        """The worker's connection; who comes first starts the server."""
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX)
            with locked(self._folder / "commands.lock"):
                try:
                    connection.connect(str(self._address))
                except OSError:
                    self._address.unlink(missing_ok=True)
                    self._start_server()
                    connection.connect(str(self._address))
            self._connection = connection
        return self._connection

    def _start_server(self) -> None:
        script = Path(__file__).with_name("command_server.py")
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(self._address)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "listening\n"

    def close(self) -> None:
        """Leave the server, which ends with its last connection."""
        if self._connection is not None:
            self._connection.close()


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
def petwellness(shared_folder: Path) -> Iterator[Commands]:
    """Runs a subcommand in a process of its own; `petwellness.start` does not wait for its end."""
    commands = Commands(shared_folder)
    yield commands
    commands.close()


@pytest.fixture(scope="session")
def small_fleet_environment() -> Callable[..., dict[str, str]]:
    return environment


@pytest.fixture(scope="session")
def demo_state(manifest: Path, shared_folder: Path, petwellness: Petwellness) -> DemoState:
    """A demo that nothing disturbed. Not to be changed: copy the folder to break something."""
    folder = shared_folder / "undisturbed"
    home = folder / "home"
    with locked(shared_folder / "undisturbed.lock"):
        if not (folder / "returncode").exists():
            folder.mkdir(exist_ok=True)
            done = petwellness("demo", env=environment(home))
            (folder / "stdout").write_text(done.stdout)
            (folder / "stderr").write_text(done.stderr)
            (folder / "returncode").write_text(str(done.returncode))
    return DemoState(
        home,
        int((folder / "returncode").read_text()),
        (folder / "stdout").read_text(),
        (folder / "stderr").read_text(),
    )
