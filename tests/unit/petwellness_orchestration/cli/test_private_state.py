"""Which folders the command closes to other users, and which it leaves alone."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from petwellness_orchestration.cli import keep_state_private


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(
    ("mode", "holds", "after"),
    [
        (0o755, "lake", 0o700),
        (0o775, "salt", 0o700),
        (0o500, "dagster", 0o500),
        (0o755, "somebody else's", 0o755),
        (0o1777, "lake", 0o1777),
    ],
)
def test_an_older_state_folder_is_closed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, holds: str, after: int
) -> None:
    home = tmp_path / "home"
    (home / holds).mkdir(parents=True)
    home.chmod(mode)
    monkeypatch.setenv("PETWELLNESS_HOME", str(home))
    keep_state_private()
    assert stat.S_IMODE(home.stat().st_mode) == after


def test_what_is_written_from_then_on_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    keep_state_private()
    assert not (tmp_path / "home").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home", tmp_path / "home" / "file")]
    assert modes == [0o700, 0o600]
