"""GitHub workflows: valid, pinned, without secrets, and calling commands that the Makefile has."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
HOOKS = ROOT / ".pre-commit-config.yaml"


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def test_it_has_githubs_schema(workflow: Path, schema_problems: Callable[[str, Path], str]) -> None:
    assert schema_problems("vendor.github-workflows", workflow) == ""


def test_actions_are_pinned_to_a_commit_whose_release_is_named(workflow: Path) -> None:
    used = re.findall(r"uses: (.+)", workflow.read_text())
    assert used
    assert [one for one in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", one)] == []


def test_jobs_read_the_repository_and_nothing_more_and_end_in_time(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(workflow).items():
        assert job["timeout-minutes"] <= 60, name
        assert set(job.get("permissions", {}).values()) <= {"read"}, name


def test_the_embedded_jobs_need_no_secret(workflow: Path) -> None:
    assert "secrets." not in workflow.read_text()


def test_what_they_make_is_in_the_makefile(workflow: Path) -> None:
    targets = {
        word
        for step in steps(workflow)
        for command in re.findall(r"^make (.+)$", step.get("run", ""), re.M)
        for word in command.split()
        if "=" not in word
    }
    assert targets
    assert [target for target in targets if f"\n{target}: " not in MAKEFILE] == []


def test_hooks_run_what_the_environment_has() -> None:
    hooks = [hook for repo in yaml.safe_load(HOOKS.read_text())["repos"] for hook in repo["hooks"]]
    programs = {hook["entry"].split()[0] for hook in hooks}
    assert [
        program for program in programs if not (Path(sys.executable).parent / Path(program).name).is_file()
    ] == []
