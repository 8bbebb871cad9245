"""Each peer in an environment of its own below the cache folder, made the first time it is needed.

Packages come through their ordinary clients (pip, go, Maven). An environment is
named by what was asked for, so a changed version is a new one, and it counts
only once it is complete.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

INSTALL_TIMEOUT_S = 3600
TAIL_LINES = 5


class NotInstalledError(Exception):
    """The peer cannot be had on this machine; the text says why."""


def cache_folder() -> Path:
    """Where the environments are; remove it to make them anew."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "petwellness" / "peers"


def python_environment(name: str, requirements: Sequence[str]) -> Path:
    """The interpreter of a virtual environment with these packages. Raises NotInstalledError."""

    def install(folder: Path) -> None:
        _succeed([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _succeed([*pip, "--disable-pip-version-check", *requirements])

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return _installed(name, "\n".join([version, *requirements]), install) / "bin" / "python"


def go_program(name: str, source: Path) -> Path:
    """The program built from a folder with main.go, go.mod and go.sum. Raises NotInstalledError."""
    go = _tool("go", "the Go toolchain")

    def install(folder: Path) -> None:
        folder.mkdir()
        _succeed(
            [go, "build", "-mod=readonly", "-trimpath", "-o", str(folder / name), "."],
            cwd=source,
            environment={"GOTOOLCHAIN": "local"},
        )

    parts = [(source / part).read_text() for part in ("main.go", "go.mod", "go.sum")]
    return _installed(name, "".join(parts), install) / name


def maven_jars(name: str, pom: Path) -> Path:
    """The folder of jars that a pom.xml asks for. Raises NotInstalledError."""
    maven = _tool("mvn", "Maven")

    def install(folder: Path) -> None:
        command = [maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(pom)]
        command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        _succeed(command)

    return _installed(name, pom.read_text(), install)


def _installed(name: str, wanted: str, install: Callable[[Path], None]) -> Path:
    folder = cache_folder() / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:8]}"
    complete = folder.with_name(f"{folder.name}.complete")
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        install(folder)
        complete.touch()
    return folder


def _tool(name: str, called: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NotInstalledError(f"it needs {called}, and there is no `{name}` here")
    return path


def _succeed(
    command: list[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalledError(f"`{Path(command[0]).name}` took longer than {INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        tail = " / ".join((done.stdout + done.stderr).strip().splitlines()[-TAIL_LINES:])
        raise NotInstalledError(f"`{Path(command[0]).name}` failed: {tail}")
