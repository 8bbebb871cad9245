"""What all tiers share: no setting of the person who runs the tests reaches them, how many workers run them in which
order, and where real data is."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

# How long an example takes is the machine's business. A property whose examples are dear says how many of them it wants
# as a part of `settings.default.max_examples`, so that the full size has five times as many of every kind.
# The default size draws the same examples each time, so that a change is judged by what it changes; the full size draws
# new ones each night.
settings.register_profile("patient", deadline=None, max_examples=100, derandomize=True)
settings.register_profile("full", deadline=None, max_examples=500)

REPOSITORY = Path(__file__).resolve().parent.parent

# Workers wait for brokers, servers and child processes for a part of their time; each one more costs 25 s of a core,
# to collect the tests and to load what they share.
WORKERS_PER_CORE = 2.0
# What a worker and the programs that it starts hold at a time.
WORKER_BYTES = 900 * 2**20

# Files go to workers in this order: what builds a whole platform first, so that no long file is left over at the end,
# and unit tests last, which fill whatever time is left.
ORDER = (
    "pipeline",
    "integration/warehouse/snowflake",
    "integration/verification/chaos",
    "integration/ingestion/collector",
    "integration/dbt_project",
    "integration",
    "unit",
)

# Settings that tests themselves are told by, not the platform.
OF_THE_TESTS = frozenset({"PETWELLNESS_REAL_DATA", "PETWELLNESS_KAFKA_JARS"})


def pytest_configure(config: pytest.Config) -> None:
    """Forget the caller's settings and what signals it ignores, in every worker, before anything is imported."""
    restore_signals()
    settings.load_profile("patient" if "not full" in config.option.markexpr else "full")
    for name in list(os.environ):
        if name.startswith("PETWELLNESS_") and name not in OF_THE_TESTS:
            del os.environ[name]
    os.environ.pop("DAGSTER_HOME", None)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


def pytest_xdist_auto_num_workers() -> int:
    """As many workers as keep the cores busy and fit into the memory that is free; at least two."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = round(cores * WORKERS_PER_CORE)
    return max(2, min(wanted, psutil.virtual_memory().available // WORKER_BYTES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into the order of ORDER; within a folder they stay as they were."""
    items.sort(key=lambda item: place(item.path.relative_to(REPOSITORY / "tests").as_posix()))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import without looking for garbage, and never look at what was imported again: modules hold a million objects
    that live until the end, and every collection would go through all of them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def place(path: str) -> int:
    """Where a file of tests comes in ORDER; last if no entry names it."""
    return next((at for at, folder in enumerate(ORDER) if path.startswith(f"{folder}/")), len(ORDER))


def restore_signals() -> None:
    """Take SIGINT and SIGTERM again: after `make test &` in a script the first is ignored, Dagster gives the second
    what the first has, and every program that a test starts inherits both."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real files; skips where there is none."""
    stated = os.environ.get("PETWELLNESS_REAL_DATA")
    folder = Path(stated) if stated else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at '{folder}'; set PETWELLNESS_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """`program(name, package)`: the path of an installed program; skips where there is none."""

    def find(name: str, package: str) -> str:
        # Debian puts servers where an ordinary user's path does not look.
        found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
        if found is None:
            pytest.skip(f"'{name}' is not installed; get it with `apt-get install {package}`")
        return found

    return find
