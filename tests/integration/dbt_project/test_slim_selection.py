"""What a pull request builds: the models it changes and what reads them, on a copy of what main built last."""

import shutil

import pytest
from dbt_results import failed_nodes
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


def copy_of(project, folder, parsed_before=None):
    copied = folder / "dbt_project"
    shutil.copytree(project.project, copied, ignore=shutil.ignore_patterns("target", "logs"))
    return type(project)(folder, copied, parsed_before=parsed_before)


@pytest.fixture(scope="module")
def unchanged(dbt_project, tmp_path_factory):
    return copy_of(dbt_project, tmp_path_factory.mktemp("unchanged"))


@pytest.fixture
def changed(unchanged, tmp_path):
    project = copy_of(unchanged, tmp_path, parsed_before=unchanged)
    [model] = project.project.rglob(f"{CHANGED}.sql")
    model.write_text(model.read_text() + "\n-- changed\n")
    return project


def slim(warehouse, state, *command):
    return warehouse.invoke(*command, "--select", "state:modified+", "--defer", "--state", str(state))


def models_below(manifest, unique_id):
    below = {child for child in manifest.child_map[unique_id] if child.startswith("model.")}
    return below.union(*(models_below(manifest, child) for child in below))


def test_a_changed_model_and_what_reads_it_are_built_and_nothing_else(
    main_branch, make_warehouse, state, changed
):
    pull_request = make_warehouse({}).with_project(changed)
    shutil.copyfile(main_branch.path, pull_request.path)
    outcome = slim(pull_request, state, "build", "--exclude-resource-type", "unit_test")
    assert outcome.success, failed_nodes(outcome)
    built = {
        item.node.unique_id for item in outcome.result.results if item.node.unique_id.startswith("model.")
    }
    model = f"model.petwellness.{CHANGED}"
    readers = models_below(pull_request.manifest, model)
    assert readers
    assert built == {model, *readers}


def test_a_change_of_no_model_builds_nothing(main_branch, state, unchanged):
    pull_request = main_branch.with_project(unchanged)
    assert slim(pull_request, state, "ls", "--resource-type", "model").result == []
