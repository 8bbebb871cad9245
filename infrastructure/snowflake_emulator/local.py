"""The emulator on this machine: its environment, its start, its end, and how to reach it.

Which objects it has is in `objects`, what it answers in `server` and `patches`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER / "requirements.txt"
SERVER = FOLDER / "server.py"
REPOSITORY = FOLDER.parents[1]
ENVIRONMENT = REPOSITORY / "build" / "snowflake_emulator"

HOST = "127.0.0.1"
ACCOUNT = "fakesnow"
USER = "emulator"
INSTALL_TIMEOUT_S = 600
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
LOG_TAIL_LINES = 20


class EmulatorError(RuntimeError):
    """The emulator does not do what was asked; the text says why and where its log is."""


class EmulatorUnavailableError(EmulatorError):
    """This machine cannot have the emulator: its packages could not be installed. The text says why."""


class LocalEmulator:
    """One server on 127.0.0.1 on a free port, empty at its start; runs inside a `with` block.

    `folder` gets its log (`server.log`) and the key that clients sign in with. The
    virtual environment is made once and shared (`environment`); the platform's own
    gets nothing. Raises EmulatorUnavailableError where it cannot be installed and
    EmulatorError where it does not start.
    """

    def __init__(self, folder: Path, environment: Path = ENVIRONMENT) -> None:
        self.folder = folder.absolute()
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    def __enter__(self) -> LocalEmulator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log_path(self) -> Path:
        """What the server said, and every statement it refused."""
        return self.folder / "server.log"

    @property
    def private_key_path(self) -> Path:
        """A key that signs in; the server takes any."""
        return self.folder / "emulator_key.pem"

    def start(self) -> None:
        """Install what is missing, start, and wait until it answers."""
        python = installed_python(self._environment)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_key(self.private_key_path)
        self._port = _free_port()
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(SERVER), str(self._port)],
                cwd=self.folder,
                # Of the caller's environment only what a program needs to run at all.
                env={
                    name: os.environ[name]
                    for name in ("HOME", "LANG", "PATH", "TMPDIR")
                    if name in os.environ
                },
                # It ends when this closes, so it cannot outlive us.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.acknowledged()
                return
            time.sleep(0.05)
        said = "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise EmulatorError(f"the Snowflake emulator did not start (log: {self.log_path}):\n{said}")

    def stop(self) -> None:
        """End the server; without one nothing happens."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def dbt_environment(self, database: str) -> dict[str, str]:
        """Variables with which dbt's target `snowflake` builds `database` here."""
        return {
            "PETWELLNESS_SNOWFLAKE_ACCOUNT": ACCOUNT,
            "PETWELLNESS_SNOWFLAKE_USER": USER,
            "PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PATH": str(self.private_key_path),
            "PETWELLNESS_SNOWFLAKE_HOST": HOST,
            "PETWELLNESS_SNOWFLAKE_PORT": str(self._port),
            "PETWELLNESS_SNOWFLAKE_PROTOCOL": "http",
            "PETWELLNESS_SNOWFLAKE_DATABASE": database,
        }

    @contextlib.contextmanager
    def connect(
        self, database: str | None = None, schema: str | None = None
    ) -> Iterator[SnowflakeConnection]:
        """A session of the real connector, closed at the end."""
        import snowflake.connector

        con = snowflake.connector.connect(
            account=ACCOUNT,
            user=USER,
            private_key_file=str(self.private_key_path),
            host=HOST,
            port=self._port,
            protocol="http",
            **{name: value for name, value in (("database", database), ("schema", schema)) if value},
        )
        try:
            yield con
        finally:
            con.close()

    def acknowledged(self) -> list[str]:
        """Statements about the account that were taken down and not executed, in order."""
        return self._ask("GET", "acknowledged")

    def use_s3(
        self, endpoint_url: str, access_key_id: str, secret_access_key: str, region: str = "us-east-1"
    ) -> None:
        """Let COPY INTO read `s3://` at this endpoint, for every session from now on."""
        self._ask(
            "PUT",
            "s3",
            {
                "endpoint_url": endpoint_url,
                "access_key_id": access_key_id,
                "secret_access_key": secret_access_key,
                "region": region,
            },
        )

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://{HOST}:{self._port}/emulator/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:  # noqa: S310
            return json.load(answer)


def installed_python(environment: Path = ENVIRONMENT) -> Path:
    """The interpreter of the emulator's environment, made if it is not there or its packages have changed.

    Raises EmulatorUnavailableError with the installer's own words.
    """
    uv = _uv()
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    done = environment / "installed"
    python = environment / "venv" / "bin" / "python"
    environment.mkdir(parents=True, exist_ok=True)
    # Tests of several processes find one environment.
    with (environment / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done.exists() and done.read_text() == wanted and python.exists()):
            _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment / "venv")])
            _run(
                [
                    uv,
                    "pip",
                    "install",
                    "--quiet",
                    "--no-deps",
                    "--python",
                    str(python),
                    "-r",
                    str(REQUIREMENTS),
                ]
            )
            done.write_text(wanted)
    return python


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise EmulatorUnavailableError(
            "the Snowflake emulator needs `uv` to be installed; `make install` brings it"
        )
    return found


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EmulatorUnavailableError(f"the Snowflake emulator's packages took too long: {error}") from error
    if result.returncode:
        raise EmulatorUnavailableError(
            f"the Snowflake emulator's packages ({REQUIREMENTS.name}) cannot be installed:\n{result.stderr.strip()}"
        )


def _write_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    if path.exists():
        return
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
