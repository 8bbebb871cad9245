"""The lists of packages agree: what is installed, what the image gets, and what the import law knows."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from petwellness_orchestration.cli.demo import CODE


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text())["tool"]


def installed(project: dict[str, Any]) -> list[str]:
    return [name.removesuffix("*") for name in project["setuptools"]["packages"]["find"]["include"]]


def test_the_image_has_what_is_installed(repository: Path, project: dict[str, Any]) -> None:
    """An editable install maps only folders that exist when it runs."""
    dockerfile = (repository / "Dockerfile").read_text()
    [made] = re.findall(r"^RUN mkdir ([\w ]+)", dockerfile, re.MULTILINE)
    assert made.split() == installed(project)
    copied = re.findall(r"^COPY --chown=petwellness (\w+) (\w+)$", dockerfile, re.MULTILINE)
    assert [one for one, other in copied if one == other] == [*installed(project), "dbt_project"]
    let_in = {line.removeprefix("!") for line in (repository / ".dockerignore").read_text().splitlines()}
    assert {*installed(project), "dbt_project"} <= let_in


def test_a_demo_is_built_again_when_what_is_installed_changes(project: dict[str, Any]) -> None:
    assert [*CODE] == [*installed(project), "dbt_project"]


def test_the_import_law_knows_every_package(repository: Path, project: dict[str, Any]) -> None:
    packages = {path.parent.name for path in repository.glob("*/__init__.py")}
    law = project["importlinter"]
    assert set(law["root_packages"]) == packages
    [layers] = [contract["layers"] for contract in law["contracts"] if contract["type"] == "layers"]
    assert {name for layer in layers for name in layer.split(" | ")} == packages
    [shipped] = [
        contract["source_modules"]
        for contract in law["contracts"]
        if "verification" in contract.get("forbidden_modules", [])
    ]
    assert shipped == installed(project)
