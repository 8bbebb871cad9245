"""The Snowflake emulator for tests: one server a session, a database of its own for each test.

A test that changes more of the account than its database starts a server of its own.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from infrastructure.snowflake_emulator.local import EmulatorUnavailableError, LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database


@pytest.fixture(scope="session")
def start_emulator(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[], AbstractContextManager[LocalEmulator]]:
    """`with start_emulator() as emulator`: a running emulator; skips, with the installer's words, where its packages
    cannot be had."""

    @contextmanager
    def start() -> Iterator[LocalEmulator]:
        emulator = LocalEmulator(tmp_path_factory.mktemp("emulator"))
        try:
            emulator.start()
        except EmulatorUnavailableError as error:
            pytest.skip(f"not run on the Snowflake emulator: {error}")
        try:
            yield emulator
        finally:
            emulator.stop()

    return start


@pytest.fixture(scope="session")
def emulator(start_emulator: Callable[[], AbstractContextManager[LocalEmulator]]) -> Iterator[LocalEmulator]:
    """The emulator that tests share."""
    with start_emulator() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def make_database(emulator: LocalEmulator) -> Callable[[str], str]:
    """`make_database(landing_url)`: the name of a new database with schemas, raw tables, file format and the
    stage `raw.landing` at that URL, as the account's configuration has them; tables are empty."""
    numbers = itertools.count(1)

    def make(landing_url: str) -> str:
        name = f"TEST_{next(numbers)}"
        with emulator.connect() as con:
            create_database(con, name, landing_url)
        return name

    return make
