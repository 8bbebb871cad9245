"""What a pull request builds: the models it changes and what reads them, on a copy of what main built last."""

import shutil

import pytest
from seeded_raw import small_world

CHANGED = "stg_appointments"


@pytest.fixture(scope="module")
def main_branch(make_warehouse):
    """What `make slim-state` keeps: the warehouse as main built it, and main's manifest beside it."""
    warehouse = make_warehouse(small_world(seed=5, days=3, devices=3))
    warehouse.build("--select", f"@{CHANGED}", without=("unit_test", "test"))
    return warehouse


@pytest.fixture(scope="module")
def state(main_branch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("state")
    main_branch.manifest.write(str(folder / "manifest.json"))
    return folder


def changed_copy(dbt_project, folder, change):
    project = folder / "dbt_project"
    shutil.copytree(dbt_project.project, project, ignore=shutil.ignore_patterns("target", "logs"))
    if change:
        [model] = project.rglob(f"{CHANGED}.sql")
        model.write_text(model.read_text() + change)
    return type(dbt_project)(folder, project)


def slim(warehouse, state, *command):
    return warehouse.invoke(*command, "--select", "state:modified+", "--defer", "--state", str(state))


def models_below(manifest, unique_id):
    below = {child for child in manifest.child_map[unique_id] if child.startswith("model.")}
    return below.union(*(models_below(manifest, child) for child in below))


def test_a_changed_model_and_what_reads_it_are_built_and_nothing_else(
    main_branch, make_warehouse, state, dbt_project, tmp_path
):
    project = changed_copy(dbt_project, tmp_path, "\n-- changed\n")
    pull_request = make_warehouse({}).with_project(project)
    shutil.copyfile(main_branch.path, pull_request.path)
    outcome = slim(pull_request, state, "build", "--exclude-resource-type", "unit_test")
    assert outcome.success, outcome.exception
    built = {
        item.node.unique_id for item in outcome.result.results if item.node.unique_id.startswith("model.")
    }
    changed = f"model.petwellness.{CHANGED}"
    readers = models_below(project._manifest, changed)
    assert readers
    assert built == {changed, *readers}


def test_a_change_of_no_model_builds_nothing(main_branch, state, dbt_project, tmp_path):
    unchanged = main_branch.with_project(changed_copy(dbt_project, tmp_path, ""))
    assert slim(unchanged, state, "ls", "--resource-type", "model").result == []
