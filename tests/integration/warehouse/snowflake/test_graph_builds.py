"""The graph's build in an environment on Snowflake, on the emulator: what it starts from, what it leaves, and what
learning and erasure find of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infrastructure.snowflake_emulator.local import LocalEmulator
from infrastructure.snowflake_emulator.objects import create_database
from lake.landing import list_manifests
from lake.store import LocalStore
from ml.datasets import read_feature_ends
from ml.scoring import SCORES_SCHEMA, write_scores
from petwellness_orchestration import erasing, learning, loading, names
from petwellness_orchestration.observing import observe, open_ops
from petwellness_orchestration.resources import PlatformResource
from verification.parity.targets import NoPipes
from verification.parity.world import World, WorldSize
from warehouse.environments import environment_named
from warehouse.ledger import WAREHOUSE_MARK
from warehouse.snowflake import raw as snowflake_raw
from warehouse.snowflake.session import open_snowflake, run
from warehouse.snowflake.settings import SnowflakeSettings

# Before the graph is made: of the project are left the models that this test reads, with all they are made of, and of
# the tests of those one of each kind and every one that is alone in its kind.
PART_OF_THE_PROJECT = """
from petwellness_orchestration.defs.warehouse import manifest

READ = {"anl_telemetry_events", "cur_pets"}

def left(project):
    nodes = project["nodes"]
    tables = {one for one, node in nodes.items() if node["resource_type"] in ("model", "seed")}
    models = {one for one in tables if nodes[one]["name"] in READ or nodes[one]["name"].startswith("ml_")}
    while more := {above for one in models for above in nodes[one]["depends_on"].get("nodes", []) if above in tables} - models:
        models |= more
    kinds = {}
    for one, node in sorted(nodes.items()):
        if node["resource_type"] == "test" and models >= tables & {*node["depends_on"]["nodes"]}:
            kinds.setdefault((node.get("test_metadata") or node)["name"], one)
    return models | {*kinds.values()}

def part_of_the_manifest(whole=manifest.read_manifest):
    project = whole()
    of_part = left(project)
    gone = project["nodes"].keys() - of_part | project["unit_tests"].keys() | project["exposures"].keys()
    maps = {
        name: {one: [end for end in ends if end not in gone] for one, ends in project[name].items() if one not in gone}
        for name in ("child_map", "parent_map")
    }
    nodes = {one: project["nodes"][one] for one in of_part}
    return project | maps | {"nodes": nodes, "unit_tests": {}, "exposures": {}}

def part_of_the_parsed(whole=manifest.parsed_project):
    project, of_part = whole(), left(manifest.read_manifest())
    project.nodes = {one: node for one, node in project.nodes.items() if one in of_part}
    for kind in ("unit_tests", "exposures", "semantic_models", "metrics", "saved_queries"):
        setattr(project, kind, {})
    project.build_flat_graph()
    return project

part = part_of_the_manifest()
manifest.read_manifest, manifest.parsed_project = lambda: part, part_of_the_parsed
"""

# In a process of its own: the graph is made of the project as its environment parses it.
BUILD = """
import json
import dagster as dg
from petwellness_orchestration.defs.ml.assets import visit_risk_champion, visit_risk_model, visit_risk_scores
from petwellness_orchestration.defs.quality.builds import builds
from petwellness_orchestration.defs.quality.observability import observe_warehouse
from petwellness_orchestration.defs.warehouse.assets import warehouse
from petwellness_orchestration.defs.warehouse.partitions import DIRTY_TAGS, EVENT_DAYS
from petwellness_orchestration.resources import PlatformResource

done = dg.materialize(
    [warehouse, visit_risk_model, visit_risk_champion, visit_risk_scores, builds, observe_warehouse],
    resources={"platform": PlatformResource()},
    partition_key=EVENT_DAYS.get_last_partition_key(),
    tags=DIRTY_TAGS,
    instance=dg.DagsterInstance.ephemeral(),
    raise_on_error=False,
)
rows = {
    event.asset_key.to_user_string(): event.materialization.metadata["dagster/row_count"].value
    for event in done.get_asset_materialization_events()
    if "dagster/row_count" in event.materialization.metadata
}
learned = {
    event.asset_key.path[-1]: event.materialization.metadata["reason"].value
    for event in done.get_asset_materialization_events()
    if "reason" in event.materialization.metadata
}
failed = [event.step_failure_data.error.to_string()[-2000:] for event in done.get_step_failure_events()]
checks = [one.passed for one in done.get_asset_check_evaluations()]
observed = [one.check_name for one in done.get_asset_check_evaluations() if one.asset_key.path == ["ops", "builds"]]

tests = {*warehouse.check_keys}
not_judged = [str(key) for key in tests - {one.asset_check_key for one in done.get_asset_check_evaluations()}]
print(json.dumps([done.success, failed, rows, len(tests), not_judged, all(checks), learned, observed]))
"""

pytestmark = pytest.mark.timeout(1800)


class WithoutPipes(PlatformResource):
    def pipes(self, con: Any) -> Any:
        return NoPipes()


@pytest.mark.parametrize(
    "of_what", [PART_OF_THE_PROJECT, pytest.param("", marks=pytest.mark.full)], ids=["part", "whole"]
)
def test_a_build_takes_up_what_was_loaded_and_vouches_for_it(
    emulator: LocalEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_what: str
) -> None:
    account = environment_named("ci").snowflake
    assert account is not None
    store = LocalStore(tmp_path / "lake")
    with emulator.connect() as con:
        create_database(con, account.database, f"file://{store.url}/landing/")
    for name, value in emulator.dbt_environment(account.database).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PETWELLNESS_ENVIRONMENT", "ci")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PETWELLNESS_LAKE_URL", str(store.url))

    # Of two collars one is alone with a household that refuses, so that no day would end for the data.
    world = World(WorldSize(collars=3, initial_days=1, increments=0))
    initial, erasure, _ = world.steps()
    world.land(store, initial)
    with open_snowflake(SnowflakeSettings(), {"run": "test"}) as con:
        snowflake_raw.load_pending(con, store, list_manifests(store), NoPipes())
        assert snowflake_raw.build_mark(con, WAREHOUSE_MARK) == 0
        assert snowflake_raw.dirty_days(con, 0)

    done = subprocess.run(
        [sys.executable, "-c", of_what + BUILD],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    success, failed, rows, tests, not_judged, passed, learned, observed = json.loads(
        done.stdout.splitlines()[-1]
    )
    assert success, failed
    assert passed
    assert tests > (10 if of_what else 100)
    assert not_judged == []
    with open_snowflake(SnowflakeSettings(), {"run": "test"}) as con:
        assert snowflake_raw.build_mark(con, WAREHOUSE_MARK) == snowflake_raw.latest_load_seq(con)
        assert snowflake_raw.dirty_days(con, snowflake_raw.build_mark(con, WAREHOUSE_MARK)) == []
        for table in ("anl.telemetry_events", "cur.pets", "ml.computed_features"):
            [(there,)] = run(con, f"select count(*) as row_count from {table}")
            assert rows[table.replace(".", "/")] == there, table
        [(events,)] = run(con, "select count(*) as row_count from anl.telemetry_events")
        assert events > 0
        assert len(run(con, "select salt from raw.hash_salt")) == 1
    assert len(observed) == 4
    with open_ops(WithoutPipes(), "ops/builds", "test") as session:
        seen = observe(session)
    assert seen is not None
    assert (seen.succeeded, seen.column_changes) == (True, [])
    assert {one.table_name for one in seen.times} >= {"anl.telemetry_events", "cur.pets"}
    # Days have to pass before there is something to learn; that it was looked for is what counts here.
    assert learned.keys() == {"visit_risk_model", "visit_risk_champion", "visit_risk_scores"}
    assert "labelled" in learned["visit_risk_model"]

    # An erasure takes the scores of its days, from a table that dbt does not build.
    platform = WithoutPipes()
    with learning.open_warehouse(platform, names.VISIT_RISK_SCORES, "test") as warehouse:
        ends = read_feature_ends(warehouse)
        days = [(end - timedelta(days=1)).date() for end in ends]
        write_scores(warehouse, scores_of("somebody", ends), days)
        owned = "select min(owner_id) as owner_id from ml.pet_records"
        [owner] = warehouse.select(owned, [], pa.schema({"owner_id": pa.string()}))["owner_id"].to_pylist()
    assert loading.load(platform, "test", lambda _: None).more["scores_forgotten"] == 0
    world.land(store, replace(erasure, erased_owner=owner))
    with monkeypatch.context() as broken:
        broken.setattr(erasing, "forget_redacted_scores", unplugged)
        with pytest.raises(RuntimeError, match="unplugged"):
            loading.load(platform, "test", lambda _: None)
    # The redaction is applied, the scores are still there: the next load takes them.
    loaded = [loading.load(platform, "test", lambda _: None) for _ in range(2)]
    assert [one.report.redactions for one in loaded] == [0, 0]
    assert [one.more["scores_forgotten"] for one in loaded] == [len(days), 0]
    assert len(days) > 0


def unplugged(*_: object) -> int:
    raise RuntimeError("unplugged")


def scores_of(pet_id: str, ends: list[datetime]) -> pa.Table:
    """A score for each day."""
    day = {"pet_id": pet_id, "risk_7d": 0.5, "risk_decile": 1, "model_name": "m", "model_version": 1}
    rows = [
        {
            **day,
            "event_date": (end - timedelta(days=1)).date(),
            "end_ts": end,
            "feature_version": "f",
            "scored_on": "h",
        }
        for end in ends
    ]
    return pa.Table.from_pylist(rows, SCORES_SCHEMA)
