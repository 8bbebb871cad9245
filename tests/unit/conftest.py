"""Unit tests start no process: what needs one belongs to `integration`."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"})
# Python's own `platform` asks it what machine this is, for libraries that want to know.
HARMLESS = frozenset({"uname"})


class StartsOfProcesses:
    """Refuses every start of a process while a unit test runs. An audit hook stays for good, so it is told when."""

    def __init__(self) -> None:
        self.refused = False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.refused and event in STARTS and not {*arguments[:1]} & HARMLESS:
            raise AssertionError(
                f"a unit test starts a process ({event} {arguments!r}); move it to integration"
            )


@pytest.fixture(scope="session")
def starts_of_processes() -> StartsOfProcesses:
    return StartsOfProcesses()


@pytest.fixture(autouse=True)
def no_process_is_started(starts_of_processes: StartsOfProcesses) -> Iterator[None]:
    starts_of_processes.refused = True
    yield
    starts_of_processes.refused = False
