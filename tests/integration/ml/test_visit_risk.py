"""The visit risk model from warehouse tables to scores, with a real DuckDB and a real MLflow registry."""

import ast
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from waiting import IN_TIME_S

from ml.datasets import NotApplicable, TrainingSet, read_training_set
from ml.errors import ArtifactTamperedError, DatasetError, RegistryError
from ml.registry import MODEL_FILE, DataSnapshot, ModelRegistry
from ml.scoring import SCORES_SCHEMA, forget_scores, score_days, write_scores
from ml.settings import MlSettings
from ml.training import OutOfTime, TrainingResult, train
from ml.warehouse import DuckDBWarehouse

START = datetime(2026, 6, 1)
DAY = timedelta(days=1)
PETS, HOUSEHOLDS, FEATURES = 120, 100, 8

LOAD_HISTORY = [
    {
        "stream_id": "embedded.telemetry.1",
        "kafka_partition": partition,
        "start_offset": 0,
        "end_offset": 100,
        "feed": "telemetry_events",
        "source_file": f"landing/{partition}.parquet",
        "row_count": 100,
        "load_seq": partition + 1,
        "loaded_at": START,
    }
    for partition in range(3)
]


def known(moment: datetime) -> dict[str, Any]:
    """Since then, and still so."""
    return {"known_from": moment, "known_to": None}


def warehouse(signal: float, *, days: int = 14, seed: int = 7, unplanned: bool | None = True):
    """A fleet whose first two features rise by `signal` in the four days before an unplanned visit."""
    random = np.random.default_rng(seed)
    falls_ill = {pet: random.uniform(2, days) for pet in range(PETS) if random.random() < 0.25 * days / 14}
    features, visits = [], []
    for pet in range(PETS):
        habit = random.normal(size=FEATURES) * 0.7
        for day in range(1, days + 1):
            values = habit + random.normal(size=FEATURES) * 0.5
            if pet in falls_ill and 0 < falls_ill[pet] - day <= 4:
                values[:2] += signal
            features += [
                {
                    "pet_id": f"p{pet:03}",
                    "feature_name": f"f{number}",
                    "start_ts": START + (day - 1) * DAY,
                    "end_ts": START + day * DAY,
                    "value": float(value),
                    "feature_version": "1",
                }
                for number, value in enumerate(values)
            ]
        if random.random() < 0.5:
            visits.append((f"w{pet}", pet, -random.uniform(1, 200), False if unplanned else None))
    visits += [(f"v{pet}", pet, day, unplanned) for pet, day in falls_ill.items()]
    tables = {
        "ml.computed_features": pa.Table.from_pylist(features),
        "ml.visit_records": pa.Table.from_pylist(
            [
                {
                    "visit_id": visit_id,
                    "pet_id": f"p{pet:03}",
                    "visit_ts": START + day * DAY,
                    "is_unplanned": kind,
                    **known(START + day * DAY),
                }
                for visit_id, pet, day, kind in visits
            ]
        ),
        "ml.pet_records": pa.Table.from_pylist(
            [
                {
                    "pet_id": f"p{pet:03}",
                    "owner_id": f"o{pet % HOUSEHOLDS:03}",
                    **known(START),
                }
                for pet in range(PETS)
            ]
        ),
        "ml.owner_records": pa.Table.from_pylist(
            [{"owner_id": f"o{owner:03}", **known(START)} for owner in range(HOUSEHOLDS) if owner % 20 > 0]
        ),
    }
    con = duckdb.connect()
    for name, table in tables.items():
        con.register("incoming", table)
        con.execute(f"create schema if not exists {name.split('.')[0]}")
        con.execute(f"create table {name} as from incoming")
        con.unregister("incoming")
    return con


def training_set(
    con: duckdb.DuckDBPyConnection, days: int = 14, reported: int | None = None, **chosen: Any
) -> TrainingSet:
    """As of the end of a day; clinics have reported until then, or until an earlier one."""
    until = START + (days if reported is None else reported) * DAY
    as_of = START + days * DAY
    return read_training_set(DuckDBWarehouse(con), as_of=as_of, labels_until=until, horizon_days=7, **chosen)


def trained(con: duckdb.DuckDBPyConnection) -> TrainingResult:
    result = train(training_set(con), MlSettings())
    assert isinstance(result, TrainingResult)
    return result


@pytest.fixture(scope="module")
def con():
    connection = warehouse(signal=2.0)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def candidate(con) -> TrainingResult:
    return trained(con)


@pytest.fixture(scope="module")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A created registry; its schema takes seconds, so tests copy it."""
    folder = tmp_path_factory.mktemp("registry")
    ModelRegistry(MlSettings(registry_folder=folder))
    return folder


@pytest.fixture
def settings(empty_registry: Path, tmp_path: Path) -> MlSettings:
    shutil.copytree(empty_registry, tmp_path / "ml")
    return MlSettings(registry_folder=tmp_path / "ml")


def test_a_model_of_features_with_signal_passes(candidate: TrainingResult) -> None:
    assert candidate.gate.passed, candidate.gate.reason
    assert candidate.metrics["average_precision"] > 0.4
    assert candidate.metrics["average_precision"] > candidate.baseline_metrics["average_precision"] + 0.2
    assert candidate.metrics["brier"] < candidate.baseline_metrics["brier"]
    assert candidate.metrics["lift_top_10pct"] > 2
    assert (candidate.n_days, candidate.n_pets, candidate.n_households) == (7, 114, 95)
    assert candidate.excluded["no_consent"] == 6 * 7
    assert isinstance(candidate.out_of_time, NotApplicable)
    assert candidate.out_of_time.reason.startswith("7 labelled days")


def test_labels_shuffled_among_pets_fail(con) -> None:
    dataset = training_set(con)
    pets = np.unique(dataset.features.pet_ids, return_inverse=True)[1]
    by_pet = dataset.labels.reshape(-1, 7)
    shuffled = np.random.default_rng(1).permutation(by_pet)[pets, np.tile(np.arange(7), len(by_pet))]
    result = train(replace(dataset, labels=shuffled), MlSettings())
    assert isinstance(result, TrainingResult)
    assert not result.gate.passed
    assert result.n_positives == dataset.labels.sum()


def test_features_without_signal_fail() -> None:
    assert not trained(warehouse(signal=0.0)).gate.passed


def test_visits_of_unknown_kind_are_not_applicable() -> None:
    result = train(training_set(warehouse(signal=2.0, unplanned=None)), MlSettings())
    assert isinstance(result, NotApplicable)
    assert "unplanned" in result.reason


def test_longer_histories_are_tested_out_of_time() -> None:
    result = train(training_set(warehouse(signal=2.0, days=24), days=24), MlSettings())
    assert isinstance(result, TrainingResult)
    assert isinstance(result.out_of_time, OutOfTime)
    # 17 labelled days: the last 4 tested, 7 days of horizon before the first of them
    assert (result.out_of_time.trained_days, result.out_of_time.tested_days) == (7, 4)
    assert result.out_of_time.metrics["roc_auc"] > 0.6


def test_telemetry_that_outlives_the_visits_adds_no_labels(con, candidate: TrainingResult) -> None:
    later = training_set(con, days=16, reported=14)
    assert later.labels_until == START + 14 * DAY
    assert len(later) == candidate.n_rows


def test_training_twice_gives_the_same_to_the_last_bit(con, candidate: TrainingResult) -> None:
    again = trained(con)
    values = training_set(con).features.values
    assert again.metrics == candidate.metrics
    assert again.gate == candidate.gate
    assert again.dataset_hash == candidate.dataset_hash
    np.testing.assert_array_equal(again.model.predict_risk(values), candidate.model.predict_risk(values))


def test_a_model_is_trained_on_the_features_it_names_and_no_others(con) -> None:
    named = training_set(con, features=["f1", "f0"])
    assert named.features.names == ("f0", "f1")
    everything = training_set(con)
    np.testing.assert_array_equal(named.features.values, everything.features.values[:, :2])
    with pytest.raises(
        DatasetError, match=r"no rows of f8, steps; run dbt build, .* PETWELLNESS_ML_FEATURES"
    ):
        training_set(con, features=["steps", "f0", "f8"])


def test_a_feature_that_no_row_has_teaches_nothing(con, candidate: TrainingResult) -> None:
    """A trend over weeks in the first fortnight: what is known of the other features is learned all the same."""
    whole = training_set(con)
    never = np.full((len(whole), 1), np.nan)
    wider = replace(
        whole.features,
        values=np.hstack([whole.features.values, never]),
        versions={**whole.features.versions, "weight_trend_30d": "1"},
    )
    result = train(replace(whole, features=wider), MlSettings())
    assert isinstance(result, TrainingResult)
    assert result.metrics == candidate.metrics
    told = np.hstack([whole.features.values, np.ones((len(whole), 1))])
    assert np.array_equal(
        result.model.predict_risk(told), candidate.model.predict_risk(whole.features.values)
    )


def test_a_half_read_result_of_the_caller_does_not_matter(con, candidate: TrainingResult) -> None:
    with con.cursor() as busy:
        busy.execute("select * from range(10)").fetchone()
        assert len(training_set(busy)) == candidate.n_rows
        assert write_scores(DuckDBWarehouse(busy), SCORES_SCHEMA.empty_table(), [date(2026, 6, 1)]) == 0


def test_a_warehouse_without_the_tables_says_what_to_do() -> None:
    with pytest.raises(DatasetError, match=r"computed_features.*; run dbt build first"):
        training_set(duckdb.connect())


def test_register_promote_load(settings: MlSettings, con, candidate: TrainingResult) -> None:
    registry = ModelRegistry(settings)
    assert registry.load_champion() is None
    snapshot = DataSnapshot.of(LOAD_HISTORY)
    registered = registry.register(candidate, snapshot)
    assert (registered.name, registered.version, registered.created) == ("visit-risk-7d", 1, True)
    assert registry.load_champion() is None
    assert registry.promote_newest_passed() == 1

    champion = ModelRegistry(settings).load_champion()
    assert champion is not None
    assert (champion.version, champion.run_id) == (1, registered.run_id)
    assert champion.feature_versions == candidate.feature_versions
    assert champion.as_of == candidate.as_of
    assert champion.data_snapshot_hash == snapshot.hash
    assert champion.metrics == candidate.metrics
    values = training_set(con).features.values
    np.testing.assert_array_equal(champion.model.predict_risk(values), candidate.model.predict_risk(values))


def test_registering_the_same_training_again_changes_nothing(settings: MlSettings, candidate) -> None:
    registry = ModelRegistry(settings)
    first = registry.register(candidate, DataSnapshot.of(LOAD_HISTORY))
    reloaded = [{**row, "loaded_at": START + DAY, "load_seq": 9} for row in reversed(LOAD_HISTORY)]
    again = registry.register(candidate, DataSnapshot.of(reloaded))
    assert again == replace(first, created=False)

    more_data = registry.register(candidate, DataSnapshot.of(LOAD_HISTORY[:2]))
    other_params = registry.register(
        replace(candidate, params={**candidate.params, "seed": 1}), DataSnapshot.of(LOAD_HISTORY)
    )
    assert [more_data.version, other_params.version] == [2, 3]


def test_a_candidate_that_fails_its_gate_is_kept_without_the_alias(settings: MlSettings, candidate) -> None:
    registry = ModelRegistry(settings)

    def register(seed: int, passed: bool) -> int:
        gate = replace(candidate.gate, passed=passed)
        params = {**candidate.params, "seed": seed}
        return registry.register(
            replace(candidate, gate=gate, params=params), DataSnapshot.of(LOAD_HISTORY)
        ).version

    assert register(1, passed=False) == 1
    assert registry.promote_newest_passed() is None
    assert registry.champion_version() is None
    assert register(2, passed=True) == 2
    assert register(3, passed=False) == 3
    assert registry.promote_newest_passed() == 2
    assert register(4, passed=True) == 4
    assert registry.champion_version() == 2
    assert registry.promote_newest_passed() == registry.promote_newest_passed() == 4
    assert registry.champion_version() == 4


@pytest.mark.parametrize("file", [MODEL_FILE, "metadata.json"])
def test_a_tampered_artifact_is_refused(settings: MlSettings, candidate, file: str) -> None:
    registry = ModelRegistry(settings)
    registry.register(candidate, DataSnapshot.of(LOAD_HISTORY))
    registry.promote_newest_passed()
    [stored] = settings.registry_folder.rglob(file)
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    with pytest.raises(ArtifactTamperedError, match=f"{file} of model 'visit-risk-7d' version 1"):
        registry.load_champion()


def test_a_missing_artifact_and_another_sklearn_are_named(settings: MlSettings, candidate) -> None:
    registry = ModelRegistry(settings)
    old = replace(candidate, params={**candidate.params, "scikit_learn": "0.1"})
    registry.register(old, DataSnapshot.of(LOAD_HISTORY))
    registry.promote_newest_passed()
    with pytest.raises(RegistryError, match=r"trained with scikit-learn 0\.1"):
        registry.load_champion()
    shutil.rmtree(settings.registry_folder / "artifacts")
    with pytest.raises(RegistryError, match="is not where the registry says"):
        registry.load_champion()


def test_a_snapshot_needs_whole_ledger_rows() -> None:
    with pytest.raises(RegistryError, match="source_file"):
        DataSnapshot.of([{k: v for k, v in LOAD_HISTORY[0].items() if k != "source_file"}])


def test_a_registry_that_cannot_be_opened_names_the_setting(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a database, long enough to be read as a header of one")
    with pytest.raises(RegistryError, match="PETWELLNESS_ML_REGISTRY_URI"):
        ModelRegistry(MlSettings(registry_uri=f"sqlite:///{blocked}"))


def test_an_unreachable_server_is_named_soon_and_without_its_password() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(RegistryError) as error:
            ModelRegistry(MlSettings(registry_uri=f"http://ann:secret@{address}/registry"))
    assert time.monotonic() - started < IN_TIME_S
    assert f"http://{address}/registry" in str(error.value)
    assert "secret" not in str(error.value)


def test_scoring_twice_writes_the_same_rows(settings: MlSettings, con, candidate) -> None:
    registry = ModelRegistry(settings)
    registry.register(candidate, DataSnapshot.of(LOAD_HISTORY))
    registry.promote_newest_passed()
    days = [date(2026, 6, day) for day in range(1, 15)]
    stored: list[Any] = []
    for _ in range(2):
        champion = ModelRegistry(settings).load_champion()
        assert champion is not None
        scores = score_days(DuckDBWarehouse(con), champion, days)
        assert scores.unscored == 0
        write_scores(DuckDBWarehouse(con), scores.table, days)
        stored.append(con.sql("from anl.visit_risk_scores order by all").to_arrow_table())
    assert stored[0].equals(stored[1])
    assert stored[0].num_rows == PETS * 14

    # Pets about to fall ill are ranked above the rest, also on days the model saw no label for.
    ill, well = con.sql(
        """
        select avg(risk_7d) filter (where v.pet_id is not null),
               avg(risk_7d) filter (where v.pet_id is null)
        from anl.visit_risk_scores s left join ml.visit_records v
          on v.pet_id = s.pet_id and v.is_unplanned
         and v.visit_ts > s.end_ts and v.visit_ts <= s.end_ts + interval 4 day
        where s.end_ts > timestamp '2026-06-08'
        """
    ).fetchall()[0]
    assert ill > 2 * well


def test_the_first_fit_of_a_process_has_one_thread_too() -> None:
    probe = (
        "from ml.training import one_thread; from threadpoolctl import threadpool_info\n"
        "with one_thread(): print(sorted((p['user_api'], p['num_threads']) for p in threadpool_info()))"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    output = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=env
    )
    pools = ast.literal_eval(output.stdout)
    assert ("openmp", 1) in pools
    assert {threads for _, threads in pools} == {1}


def test_importing_the_package_loads_no_heavy_library() -> None:
    modules = "ml.datasets, ml.training, ml.registry, ml.scoring, ml.settings, ml.warehouse"
    probe = (
        f"import {modules}, sys; heavy = {{'sklearn', 'mlflow', 'pandas', 'duckdb', 'scipy', 'dagster'}}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"


@pytest.fixture
def learn(empty_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The assets that train, promote and score, over a fleet's tables in a platform of their own."""
    import dagster as dg

    from petwellness_orchestration.defs.ml.assets import (
        visit_risk_champion,
        visit_risk_model,
        visit_risk_scores,
    )
    from petwellness_orchestration.resources import PlatformResource

    shutil.copytree(empty_registry, tmp_path / "ml")
    monkeypatch.setenv("PETWELLNESS_HOME", str(tmp_path))
    monkeypatch.setenv("PETWELLNESS_ML_FEATURES", json.dumps([f"f{n}" for n in range(FEATURES)]))
    monkeypatch.setenv("PETWELLNESS_ML_BOOTSTRAP_ROUNDS", "20")
    platform = PlatformResource()
    present = START + 14 * DAY

    def learn(fleet: duckdb.DuckDBPyConnection, forgotten: tuple[str, ...] = ()) -> dict[str, Any]:
        """Metadata by asset and the gate; before that, the scores of all days are deleted, and what is known of
        `forgotten` pets."""
        days = [(START + day * DAY).date() for day in range(14)]
        with platform.warehouse() as con:
            con.execute("delete from raw.extracts")
            con.execute(
                "insert into raw.extracts by name select 'clinic_visits' as feed, '1' as extract_id, 's' as stream_id,"
                " 'clinics' as source_system, true as complete, 0 as row_count,"
                " $at as extracted_at, $at as claimed_at, $at as arrival_ts",
                {"at": present},
            )
            con.execute("delete from raw.watermark")
            con.execute("insert into raw.watermark values (?)", [present])
            for name in ("computed_features", "visit_records", "pet_records", "owner_records"):
                rows = fleet.sql(f"from ml.{name}").to_arrow_table()
                if "pet_id" in rows.column_names:
                    gone = pc.is_in(rows["pet_id"], pa.array(forgotten, pa.string()))
                    rows = rows.filter(pc.invert(gone))
                con.register("incoming", rows)
                con.execute("create schema if not exists ml")
                con.execute(f"create or replace table ml.{name} as from incoming")
            forget_scores(DuckDBWarehouse(con), [], days)
        assets = [visit_risk_model, visit_risk_champion, visit_risk_scores]
        with dg.DagsterInstance.ephemeral() as instance:
            run = dg.materialize(
                assets, resources={"platform": platform}, instance=instance, raise_on_error=False
            )
        [gate] = run.get_asset_check_evaluations()
        metadata = {
            event.asset_key.path[-1]: {
                name: value.value for name, value in event.materialization.metadata.items()
            }
            for event in run.get_asset_materialization_events()
        }
        with platform.warehouse() as con:
            scores = con.sql("select model_version, pet_id, event_date from anl.visit_risk_scores").fetchall()
        return {"success": run.success, "gate": gate, "scores": scores, **metadata}

    return learn


def test_a_candidate_that_fails_its_gate_leaves_the_scores_to_the_champion(learn: Any, con) -> None:
    """The check is an error and scoring goes on, also of days whose scores an opt-out deleted."""
    noise = warehouse(signal=0.0)
    nobody = learn(noise)
    assert (nobody["gate"].passed, nobody["gate"].severity.value) == (False, "ERROR")
    assert nobody["success"]
    assert nobody["visit_risk_champion"]["reason"] == "no candidate has passed its gate yet"
    assert nobody["visit_risk_scores"]["reason"] == "no champion in the registry"
    assert nobody["scores"] == []

    passed = learn(con)
    assert (passed["gate"].passed, passed["visit_risk_champion"]["version"]) == (True, 2)
    assert len(passed["scores"]) == PETS * 14

    failed = learn(noise, forgotten=("p001",))
    assert (failed["gate"].passed, failed["gate"].severity.value) == (False, "ERROR")
    assert failed["visit_risk_champion"]["version"] == 2
    assert {version for version, _, _ in failed["scores"]} == {2}
    assert {(pet, day) for _, pet, day in failed["scores"]} == {
        (pet, day) for _, pet, day in passed["scores"] if pet != "p001"
    }
