"""GitHub workflows: valid, pinned, secrets only for Snowflake, and calling commands that the Makefile has."""

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


def test_one_run_of_a_kind_at_a_time(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["concurrency"]["group"]


def test_a_secret_is_for_a_job_on_snowflake_and_never_for_a_fork(workflow: Path) -> None:
    """A job with a secret runs only where an account is configured, in a protected environment, and gives it to the
    one step that writes the key down; another step sees its path."""
    triggers = yaml.safe_load(workflow.read_text())[True]  # `on` is YAML 1.1's true
    assert "pull_request_target" not in triggers
    for name, job in jobs(workflow).items():
        if "secrets." not in yaml.safe_dump(job):
            assert "environment" not in job, name
            continue
        assert "vars.PETWELLNESS_SNOWFLAKE_ACCOUNT != ''" in job["if"], name
        assert job["environment"] in ("ci", "production"), name
        with_secret = [step for step in job["steps"] if "secrets." in yaml.safe_dump(step)]
        assert [step["name"] for step in with_secret] == ["The key, for this job alone"], name
        assert "secrets." not in yaml.safe_dump(job.get("env", {})), name
        # What was written down is deleted, whatever comes of the job.
        assert job["steps"][-1] == {
            "if": "always()",
            "run": 'rm -f "$PETWELLNESS_SNOWFLAKE_PRIVATE_KEY_PATH"',
        }
        if "pull_request" in triggers:
            own = "github.event.pull_request.head.repo.full_name == github.repository"
            assert own in job["if"] or "github.event_name == 'push'" in job["if"], name


def test_a_pull_request_builds_into_its_own_schema_and_drops_it_in_any_case() -> None:
    [workflow] = [path for path in WORKFLOWS if path.stem == "snowflake"]
    job = jobs(workflow)["pull-request"]
    assert job["env"]["PETWELLNESS_PULL_REQUEST"] == "${{ github.event.pull_request.number }}"
    assert yaml.safe_load(workflow.read_text())["env"]["PETWELLNESS_ENVIRONMENT"] == "ci"
    runs = [step.get("run", "") for step in job["steps"]]
    drop = runs.index("make snowflake-drop DROP=yes")
    assert drop > runs.index("make snowflake-slim")
    assert job["steps"][drop]["if"] == "always()"


def test_the_jobs_there_have_to_be_are_there() -> None:
    assert {path.stem: {*jobs(path)} for path in WORKFLOWS} == {
        "ci": {"lint", "test", "demo", "slim"},
        "hourly": {"critical"},
        "nightly": {"demo", "suite", "chaos", "fuzz", "parity"},
        "snowflake": {"layers", "pull-request"},
        "weekly": {"full-refresh"},
    }


def test_the_settings_they_set_exist(workflow: Path) -> None:
    from governance.settings import RetentionSettings
    from ingestion.settings import BrokerSettings, ConsentSettings
    from lake.settings import LakeSettings
    from petwellness_orchestration.settings import OperationsSettings, SourceSettings

    profile = (ROOT / "dbt_project" / "profiles.yml").read_text()
    known = {
        f"{one.model_config.get('env_prefix')}{name}".upper()
        for one in (
            BrokerSettings,
            ConsentSettings,
            LakeSettings,
            OperationsSettings,
            RetentionSettings,
            SourceSettings,
        )
        for name in one.model_fields
    } | {*re.findall(r"env_var\('(\w+)'", profile)}
    # The key itself is a secret, its path the setting.
    named = {*re.findall(r"PETWELLNESS_\w+", workflow.read_text())} - {"PETWELLNESS_SNOWFLAKE_PRIVATE_KEY"}
    assert named - known == set()


def test_the_commands_they_run_exist(workflow: Path) -> None:
    from petwellness_orchestration.cli.app import app

    commands = {one.callback.__name__ for one in app.registered_commands if one.callback}
    used = {
        word
        for step in steps(workflow)
        for word in re.findall(r"^\.venv/bin/petwellness (\w+)", step.get("run", ""), re.M)
    }
    assert used <= commands


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
