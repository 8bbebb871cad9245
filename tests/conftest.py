"""What all tiers share: no setting of the person who runs the tests reaches them, and where real data is."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's business.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

REPOSITORY = Path(__file__).resolve().parent.parent

# Settings that tests themselves are told by, not the platform.
OF_THE_TESTS = frozenset({"PETWELLNESS_REAL_DATA", "PETWELLNESS_KAFKA_JARS"})


def pytest_configure() -> None:
    """Forget the caller's settings, in every worker, before anything is imported."""
    for name in list(os.environ):
        if name.startswith("PETWELLNESS_") and name not in OF_THE_TESTS:
            del os.environ[name]
    os.environ.pop("DAGSTER_HOME", None)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["GX_ANALYTICS_ENABLED"] = "false"


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
