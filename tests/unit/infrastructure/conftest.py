"""Schemas that check-jsonschema carries."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def schema_problems() -> Callable[[str, Path], str]:
    """What is wrong with a file by a schema's name, in the checker's words; empty when nothing is."""

    def of(schema: str, path: Path) -> str:
        checked = subprocess.run(
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path],
            capture_output=True,
            text=True,
            check=False,
        )
        return checked.stdout + checked.stderr if checked.returncode else ""

    return of
