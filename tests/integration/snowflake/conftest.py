"""The Snowflake emulator for tests: one server a session, a database of its own for each test."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from infrastructure.snowflake_emulator.local import EmulatorUnavailableError, LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEmulator]:
    """A running emulator; skips, with the installer's words, where its packages cannot be had."""
    emulator = LocalEmulator(tmp_path_factory.mktemp("emulator"))
    try:
        emulator.start()
    except EmulatorUnavailableError as error:
        pytest.skip(f"not run on the Snowflake emulator: {error}")
    try:
        yield emulator
    finally:
        emulator.stop()


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
