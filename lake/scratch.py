"""Scratch folders that do not outlive their process: one that was killed is cleared by the next."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = "in-use"


@contextmanager
def scratch_folder(root: Path, purpose: str) -> Iterator[Path]:
    """A fresh folder under `root`, removed at the end; left-overs of killed processes go first.

    A folder is in use while its lock file is locked, which ends with the process.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{purpose}-*"):
        _remove_unless_in_use(left)
    folder = root / f"{purpose}-{uuid.uuid4().hex[:12]}"
    staged = root / f".{folder.name}"
    staged.mkdir()
    with (staged / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Visible to others only once it is locked.
        staged.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_unless_in_use(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError), (folder / _LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        shutil.rmtree(folder, ignore_errors=True)
