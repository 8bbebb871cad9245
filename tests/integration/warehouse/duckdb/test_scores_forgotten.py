"""Scores that an erasure touches go with the load that applies it, or with the next one."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from lake.store import LocalStore
from ml.scoring import SCORES_SCHEMA, SCORES_TABLE, write_scores
from ml.warehouse import DuckDBWarehouse
from petwellness_orchestration import erasing, loading
from petwellness_orchestration.resources import PlatformResource
from verification.parity.world import START, World, WorldSize


def test_a_load_that_dies_before_leaves_them_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    platform, store = PlatformResource(), LocalStore(tmp_path / "lake")
    world = World(WorldSize(collars=2, initial_days=1, increments=0))
    initial, erasure, _ = world.steps()
    world.land(store, initial)
    assert load(platform) == 0
    [owner] = with_rows(platform, "select min(owner_id) from raw.pets")[0]
    score = {
        "pet_id": "somebody",
        "event_date": START,
        "end_ts": initial.at,
        "risk_7d": 0.5,
        "risk_decile": 1,
    }
    score |= {"model_name": "m", "model_version": 1, "feature_version": "f", "scored_on": "h"}
    table = pa.Table.from_pylist([score], SCORES_SCHEMA)
    with platform.warehouse() as con:
        write_scores(DuckDBWarehouse(con), table, [START])
    world.land(store, replace(erasure, erased_owner=owner))

    def unplugged(*_: object) -> int:
        raise RuntimeError("unplugged")

    with monkeypatch.context() as broken:
        broken.setattr(erasing, "forget_redacted_scores", unplugged)
        with pytest.raises(RuntimeError, match="unplugged"):
            load(platform)
    assert with_rows(platform, f"select count(*) from {SCORES_TABLE}") == [(1,)]
    assert [load(platform), load(platform)] == [1, 0]


def load(platform: PlatformResource) -> int:
    return loading.load(platform, "test", lambda _: None).more["scores_forgotten"]


def with_rows(platform: PlatformResource, sql: str) -> list[tuple[object, ...]]:
    with platform.warehouse() as con:
        return con.execute(sql).fetchall()
