"""Schemas that check-jsonschema carries."""

from collections.abc import Callable
from pathlib import Path

import check_jsonschema
import click.testing
import pytest


@pytest.fixture(scope="session")
def schema_problems() -> Callable[[str, Path], str]:
    """What is wrong with a file by a schema's name, in the checker's words; empty when nothing is."""

    def of(schema: str, path: Path) -> str:
        arguments = ["--builtin-schema", schema, str(path)]
        checked = click.testing.CliRunner().invoke(check_jsonschema.main, arguments)
        return checked.output if checked.exit_code else ""

    return of
