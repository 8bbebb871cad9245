"""The graph as code: loads, is described and connected, and equals its committed snapshot."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

SNAPSHOT = Path(__file__).parent / "snapshots" / "asset_graph.json"
UPDATE = "UPDATE_SNAPSHOTS"

HEAVY_MODULES = ("great_expectations", "mlflow", "sklearn", "snowflake", "boto3", "confluent_kafka", "pandas")


@pytest.fixture(scope="module")
def definitions(manifest: Path) -> dg.Definitions:
    """As `dagster dev` loads them, from the module's attribute."""
    from petwellness_orchestration.definitions import definitions

    return definitions()


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> Any:
    return definitions.resolve_asset_graph()


def test_the_code_location_loads(definitions: dg.Definitions) -> None:
    assert isinstance(definitions, dg.Definitions)
    dg.Definitions.validate_loadable(definitions)


@pytest.mark.full
def test_builds_run_on_the_platforms_own_parse_whatever_others_parsed(manifest: Path) -> None:
    """A parsed project names its target's database; a linter's is another one than the warehouse."""
    from petwellness_orchestration.defs.warehouse.manifest import parsed_project
    from petwellness_orchestration.settings import DBT_PROJECT_DIR

    folder = str(DBT_PROJECT_DIR)
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("dbt")), "--quiet", "parse", "--target", "lint"),
            *("--project-dir", folder, "--profiles-dir", folder),
        ],
        check=True,
        timeout=240,
    )
    assert parsed_project().nodes["model.petwellness.cur_pets"].database == "warehouse"


def test_builds_do_not_run_on_what_is_in_dbts_own_target_folder(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where linters and dbt by hand leave what they parsed; here for another database."""
    from petwellness_orchestration.defs.warehouse import manifest as platforms

    of_platform = platforms.parsed_path().relative_to(platforms.DBT_PROJECT_DIR)
    project = tmp_path / "dbt_project"
    # With times, by which a parsed project is current.
    shutil.copytree(platforms.DBT_PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    shutil.copytree(manifest.parent, (project / of_platform).parent)
    others = platforms.parsed_project()
    for node in others.nodes.values():
        node.database = "memory"
    (project / "target" / of_platform.name).write_bytes(others.to_msgpack())
    monkeypatch.setattr(platforms, "DBT_PROJECT_DIR", project)
    monkeypatch.setattr(platforms, "parse_project", never)
    assert platforms.parsed_path() == project / of_platform
    assert platforms.parsed_project().nodes["model.petwellness.cur_pets"].database == "warehouse"


def never() -> None:
    raise AssertionError("what was parsed is current")


def described(definitions: dg.Definitions, graph: Any) -> dict[str, Any]:
    """The graph in plain values, in a stable order."""
    repository = definitions.get_repository_def()
    assets = {
        node.key.to_user_string(): {
            "deps": sorted(key.to_user_string() for key in node.parent_keys),
            "group": node.group_name,
            "kinds": sorted(node.kinds),
            "owners": sorted(node.owners),
            "partitioned": node.is_partitioned,
        }
        for node in graph.asset_nodes
    }
    checks = {
        f"{node.key.asset_key.to_user_string()}:{node.key.name}": {"blocking": node.blocking}
        for node in graph.asset_check_nodes
    }
    jobs = {
        job.name: {
            "assets": sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys),
            "partitioned": job.partitions_def is not None,
            "tags": dict(job.tags),
        }
        for job in repository.get_all_jobs()
        if not job.name.startswith("__")
    }
    schedules = {
        schedule.name: {
            "job": schedule.job_name,
            "cron": schedule.cron_schedule,
            "timezone": schedule.execution_timezone,
            "status": schedule.default_status.value,
        }
        for schedule in repository.schedule_defs
    }
    sensors = {
        sensor.name: {
            "jobs": sorted(target.job_name for target in sensor.targets),
            "interval_s": sensor.minimum_interval_seconds,
            "status": sensor.default_status.value,
        }
        for sensor in repository.sensor_defs
    }
    found = {"assets": assets, "checks": checks, "jobs": jobs, "schedules": schedules, "sensors": sensors}
    normal: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return normal


def differences(old: Any, new: Any, at: str = "") -> list[str]:
    """Each leaf that differs, as `path: old -> new`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key, "absent"), new.get(key, "absent"), f"{at}/{key}")
        ]
    return [] if old == new else [f"{at.lstrip('/')}: {json.dumps(old)} -> {json.dumps(new)}"]


def test_the_graph_equals_its_snapshot(definitions: dg.Definitions, graph: Any) -> None:
    found = described(definitions, graph)
    if os.environ.get(UPDATE) == "1":
        SNAPSHOT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"{SNAPSHOT} was written anew; look at its diff and commit it")
    changed = differences(json.loads(SNAPSHOT.read_text()), found)
    assert not changed, (
        f"the graph differs from {SNAPSHOT.name} in {len(changed)} places. If that is meant, run"
        f" `{UPDATE}=1 .venv/bin/python -m pytest {Path(__file__).name} -n 0` and commit the file.\n"
        + "\n".join(changed[:40])
    )


def test_every_asset_says_what_it_is_and_whose(graph: Any) -> None:
    from petwellness_orchestration.names import GROUPS

    for node in graph.asset_nodes:
        name = node.key.to_user_string()
        assert node.owners, f"{name} has no owner"
        assert node.group_name in GROUPS, f"{name} is in group {node.group_name}"
        assert (node.description or "").strip(), f"{name} has no description"
        # Sources of records are other people's systems of any kind.
        assert node.kinds or node.group_name == "source", f"{name} has no kind"


def test_every_check_says_what_it_guards(graph: Any) -> None:
    undescribed = [
        str(node.key)
        for node in graph.asset_check_nodes
        if not (node.description or "").strip()
        and not node.key.name.startswith(("stg_", "cur_", "anl_", "ml_"))
    ]
    assert not undescribed


def reached(start: dg.AssetKey, graph: Any) -> set[dg.AssetKey]:
    neighbours = {node.key: {*node.parent_keys, *node.child_keys} for node in graph.asset_nodes}
    seen, waiting = {start}, [start]
    while waiting:
        fresh = neighbours[waiting.pop()] - seen
        seen |= fresh
        waiting += fresh
    return seen


def ancestors(key: dg.AssetKey, graph: Any) -> set[dg.AssetKey]:
    above, waiting = set[dg.AssetKey](), [key]
    while waiting:
        parents = set(graph.get(waiting.pop()).parent_keys) - above
        above |= parents
        waiting += parents
    return above


def test_the_graph_is_one(graph: Any) -> None:
    from petwellness_orchestration.names import COLLAR_EVENTS

    keys = {node.key for node in graph.asset_nodes}
    assert keys - reached(COLLAR_EVENTS, graph) == set()


def test_everything_published_comes_from_both_sources(graph: Any) -> None:
    from petwellness_orchestration.names import CLINIC_RECORDS, COLLAR_EVENTS, PUBLISHED_SCORES

    assert {COLLAR_EVENTS, CLINIC_RECORDS} <= ancestors(PUBLISHED_SCORES, graph)


def test_what_must_stop_a_run_is_blocking(graph: Any) -> None:
    blocking = {
        f"{node.key.asset_key.to_user_string()}:{node.key.name}"
        for node in graph.asset_check_nodes
        if node.blocking
    }
    assert {
        "raw/load_history:lake_and_raw_reconcile",
        "raw/load_history:nothing_quarantined_is_used",
        "raw/load_history:rejects_are_few",
        "landing/telemetry_compacted:same_rows_as_landed",
        "anl/telemetry_events:layers_add_up",
        "published/warehouse_tables:no_personal_data",
    } <= blocking


def test_the_reconciliation_stands_before_everything_that_reads_raw(graph: Any) -> None:
    from petwellness_orchestration.names import LOAD_HISTORY

    below = {"stg", "cur", "anl", "ml", "published"}
    # Seeds, and the builds' own bookkeeping, which read nothing.
    apart = {"ml/feature_catalogue", "anl/alert_rules", "cur/applied_inputs", "cur/timezones"}
    unguarded = {
        node.key.to_user_string()
        for node in graph.asset_nodes
        if node.group_name in below and LOAD_HISTORY not in ancestors(node.key, graph)
    }
    assert unguarded == apart


def test_whatever_opens_the_warehouse_shares_its_pool(definitions: dg.Definitions) -> None:
    from petwellness_orchestration.names import WAREHOUSE_POOL

    graph = definitions.resolve_asset_graph()
    opens = {"raw", "stg", "cur", "anl", "ml", "published"}
    for node in graph.asset_nodes:
        if node.group_name in opens and node.key.to_user_string() != "ml/visit_risk_champion":
            assert node.pools == {WAREHOUSE_POOL}, f"{node.key} is outside the pool"


def test_the_freshness_map_covers_every_group(graph: Any) -> None:
    from petwellness_orchestration.freshness import policy_for
    from petwellness_orchestration.names import GROUPS

    assert {group for group in GROUPS if policy_for(group) is None} == {"source"}
    without = {node.key.to_user_string() for node in graph.asset_nodes if node.freshness_policy is None}
    assert without == {"source/clinic_records", "source/collar_events"}


def test_automation_is_off_unless_it_is_switched_on(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    statuses = {
        one.name: one.default_status.value for one in (*repository.schedule_defs, *repository.sensor_defs)
    }
    assert statuses == dict.fromkeys(
        (
            "nightly",
            "nightly_compaction",
            "nightly_retention",
            "weekly_checks",
            "hourly_roll_up",
            "landing_sensor",
            "failure_alert",
        ),
        "STOPPED",
    )


LOADED_BESIDE = """
import json, sys
from petwellness_orchestration.definitions import build_definitions
repository = build_definitions().get_repository_def()
print(json.dumps({
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "statuses": sorted({one.default_status.value for one in (*repository.schedule_defs, *repository.sensor_defs)}),
    "files": [str(path) for path in __import__("pathlib").Path.cwd().rglob("*")],
}))
"""


def test_loading_imports_nothing_heavy_and_writes_nothing(manifest: Path, tmp_path: Path) -> None:
    """In a process of its own, with automation on."""
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED_BESIDE],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PETWELLNESS_AUTOMATION": "true"},
    )
    found = json.loads(loaded.stdout.splitlines()[-1])
    assert set(HEAVY_MODULES) & set(found["modules"]) == set()
    assert found["statuses"] == ["RUNNING"]
    assert found["files"] == []
