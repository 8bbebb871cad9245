"""Scores: deciles, days without data, and replacing days in the table."""

from dataclasses import dataclass
from datetime import date, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import DatasetError, FeatureVersionError
from ml.registry import Champion
from ml.scoring import SCORES_SCHEMA, forget_scores, risk_deciles, score_features, write_scores
from ml.training import RiskModel
from ml.warehouse import DuckDBWarehouse

DAY_1, DAY_2 = date(2026, 6, 1), date(2026, 6, 2)


@dataclass(frozen=True)
class FirstColumn:
    """Stands where the trees are: log-odds are the first feature."""

    def decision_function(self, values: np.ndarray) -> np.ndarray:
        return np.nan_to_num(values[:, 0])


CHAMPION = Champion(
    model=RiskModel(FirstColumn(), slope=1.0, intercept=0.0),
    name="visit-risk-7d",
    version=3,
    run_id="r",
    feature_versions={"licks": "1", "steps": "1"},
    horizon_days=7,
    as_of=datetime(2026, 6, 15),
    data_snapshot_hash="d",
    metrics={},
)


def features(rows: list[tuple[str, date, float | None]], version: str = "1") -> pa.Table:
    return pa.table(
        {
            "pet_id": pa.array([row[0] for row in rows], pa.string()),
            "feature_name": pa.array(["licks"] * len(rows), pa.string()),
            "end_ts": pa.array(
                [datetime(row[1].year, row[1].month, row[1].day + 1) for row in rows], pa.timestamp("us")
            ),
            "value": pa.array([row[2] for row in rows], pa.float64()),
            "feature_version": pa.array([version] * len(rows), pa.string()),
        }
    )


def test_every_pet_day_with_a_value_is_scored_and_the_others_are_counted() -> None:
    scores = score_features(
        features([("b", DAY_1, 2.0), ("a", DAY_1, 0.0), ("a", DAY_2, 1.0), ("b", DAY_2, None)]),
        CHAMPION,
        [DAY_2, DAY_1],
    )
    assert scores.unscored == 1
    assert scores.table.schema == SCORES_SCHEMA
    rows = scores.table.to_pylist()
    assert [(r["event_date"], r["pet_id"], r["risk_decile"]) for r in rows] == [
        (DAY_1, "a", 5),
        (DAY_1, "b", 10),
        (DAY_2, "a", 10),
    ]
    assert rows[1]["risk_7d"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert rows[1]["end_ts"] == datetime(2026, 6, 2)
    assert (rows[0]["model_name"], rows[0]["model_version"]) == ("visit-risk-7d", 3)
    assert rows[0]["scored_on"] == rows[1]["scored_on"] != rows[2]["scored_on"]


def test_scores_of_a_day_do_not_depend_on_the_other_days_asked_for() -> None:
    table = features([("a", DAY_1, 0.3), ("b", DAY_1, -1.0), ("a", DAY_2, 1.0)])
    both = score_features(table, CHAMPION, [DAY_1, DAY_2]).table.to_pylist()
    alone = score_features(table, CHAMPION, [DAY_1]).table.to_pylist()
    assert alone == [row for row in both if row["event_date"] == DAY_1]
    assert len(alone) == 2


def test_a_day_without_features_has_no_scores() -> None:
    scores = score_features(features([]), CHAMPION, [DAY_1])
    assert (scores.table.num_rows, scores.unscored) == (0, 0)
    assert scores.table.schema == SCORES_SCHEMA


def test_features_of_another_version_are_refused() -> None:
    with pytest.raises(FeatureVersionError, match="train again"):
        score_features(features([("a", DAY_1, 1.0)], version="2"), CHAMPION, [DAY_1])


@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=60))
def test_deciles_follow_the_risk(risk: list[float]) -> None:
    deciles = risk_deciles(np.array(risk))
    assert deciles.min() >= 1
    assert deciles.max() <= 10
    for left, left_decile in zip(risk, deciles, strict=True):
        for right, right_decile in zip(risk, deciles, strict=True):
            assert (left_decile <= right_decile) if left <= right else (left_decile >= right_decile)
            assert left != right or left_decile == right_decile


def test_distinct_risks_fill_the_deciles_evenly() -> None:
    assert np.bincount(risk_deciles(np.random.default_rng(0).permutation(50).astype(float)))[1:].tolist() == (
        [5] * 10
    )


def test_writing_replaces_the_days_and_only_them() -> None:
    con = duckdb.connect()
    both = score_features(features([("a", DAY_1, 0.0), ("a", DAY_2, 0.0)]), CHAMPION, [DAY_1, DAY_2])
    assert write_scores(DuckDBWarehouse(con), both.table, [DAY_1, DAY_2]) == 2
    first_day = score_features(features([("a", DAY_1, 5.0), ("b", DAY_1, 1.0)]), CHAMPION, [DAY_1])
    write_scores(DuckDBWarehouse(con), first_day.table, [DAY_1])
    write_scores(DuckDBWarehouse(con), first_day.table, [DAY_1])
    stored = con.sql("from anl.visit_risk_scores order by event_date, pet_id").to_arrow_table()
    expected = [*first_day.table.to_pylist(), both.table.to_pylist()[1]]
    assert stored.to_pylist() == expected

    write_scores(DuckDBWarehouse(con), SCORES_SCHEMA.empty_table(), [DAY_1])
    assert con.execute("select event_date from anl.visit_risk_scores").fetchall() == [(DAY_2,)]


def test_a_day_that_would_be_doubled_is_refused() -> None:
    con = duckdb.connect()
    scores = score_features(features([("a", DAY_1, 0.0), ("a", DAY_2, 0.0)]), CHAMPION, [DAY_1, DAY_2])
    with pytest.raises(DatasetError, match="2026-06-02"):
        write_scores(DuckDBWarehouse(con), scores.table, [DAY_1])
    assert con.execute("select count(*) from duckdb_tables() where schema_name = 'anl'").fetchall() == [(0,)]


def test_a_failed_write_leaves_the_old_scores() -> None:
    con = duckdb.connect()
    scores = score_features(features([("a", DAY_1, 0.0)]), CHAMPION, [DAY_1])
    write_scores(DuckDBWarehouse(con), scores.table, [DAY_1])
    con.execute("alter table anl.visit_risk_scores drop column scored_on")
    with pytest.raises(duckdb.Error):
        write_scores(DuckDBWarehouse(con), scores.table, [DAY_1])
    assert con.execute("select pet_id from anl.visit_risk_scores").fetchall() == [("a",)]


def test_scores_of_pets_and_of_days_are_forgotten_and_no_others() -> None:
    con = duckdb.connect()
    assert forget_scores(DuckDBWarehouse(con), ["a"], [DAY_1]) == 0
    rows = [(pet, day, 0.0) for pet in ("a", "b") for day in (DAY_1, DAY_2)]
    write_scores(
        DuckDBWarehouse(con), score_features(features(rows), CHAMPION, [DAY_1, DAY_2]).table, [DAY_1, DAY_2]
    )
    assert forget_scores(DuckDBWarehouse(con), ["a"], []) == 2
    assert forget_scores(DuckDBWarehouse(con), [], [DAY_1]) == 1
    assert con.execute("select pet_id, event_date from anl.visit_risk_scores").fetchall() == [("b", DAY_2)]
