"""Metrics, gate and the reasons for which a model is not applicable."""

import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.datasets import FeatureMatrix, NotApplicable, TrainingSet
from ml.settings import MlSettings
from ml.training import applicability, evaluate, judge, lift, train, training_params


def dataset(labels: list[int], owners: list[str] | None = None) -> TrainingSet:
    count = len(labels)
    owner_ids = owners or [f"o{i}" for i in range(count)]
    return TrainingSet(
        features=FeatureMatrix(
            np.array([f"p{i}" for i in range(count)], dtype=object),
            np.full(count, np.datetime64("2026-06-02", "us")),
            np.ones((count, 1)),
            {"steps": "1"},
        ),
        owner_ids=np.array(owner_ids, dtype=object),
        days_since_visit=np.full(count, np.nan),
        labels=np.array(labels, dtype=np.int8),
        as_of=datetime(2026, 6, 15),
        labels_until=datetime(2026, 6, 15),
        horizon_days=7,
        excluded={"no_consent": 3, "no_owner": 0},
    )


def test_lift_of_a_perfect_and_of_a_useless_order() -> None:
    labels = np.array([1] * 10 + [0] * 90, dtype=np.int8)
    assert lift(labels, labels.astype(float), 0.1) == pytest.approx(10)
    assert lift(labels, np.zeros(100), 0.1) == pytest.approx(1)
    assert lift(labels, -labels.astype(float), 0.1) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=2, max_size=40), st.randoms())
def test_lift_does_not_depend_on_the_order_of_tied_rows(rows: list[tuple[bool, int]], random) -> None:
    rows = [*rows, (True, 1)]
    shuffled = random.sample(rows, len(rows))
    values = [
        lift(np.array([r[0] for r in order], np.int8), np.array([r[1] for r in order], float), 0.1)
        for order in (rows, shuffled)
    ]
    assert values[0] == pytest.approx(values[1])


def test_metrics_of_a_hand_checked_case() -> None:
    labels = np.array([1, 0, 1, 0], dtype=np.int8)
    metrics = evaluate(labels, np.array([0.9, 0.8, 0.6, 0.1]))
    assert metrics["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert metrics["roc_auc"] == pytest.approx(3 / 4)
    assert metrics["brier"] == pytest.approx((0.01 + 0.64 + 0.16 + 0.01) / 4)
    assert metrics["lift_top_10pct"] == pytest.approx(2)
    assert metrics["base_rate"] == 0.5


@pytest.mark.parametrize(
    ("model", "baseline", "worst", "passed", "reason"),
    [
        (0.30, 0.20, 0.02, True, "ahead by \\+0.100"),
        (0.24, 0.20, 0.02, False, "ahead by \\+0.040, needed \\+0.050"),
        (0.10, 0.20, -0.2, False, "ahead by -0.100"),
        (0.30, 0.20, 0.00, False, "not ahead in 95 % of household resamples"),
    ],
)
def test_gate(model: float, baseline: float, worst: float, passed: bool, reason: str) -> None:
    gate = judge(model, baseline, worst, margin=0.05)
    assert gate.passed is passed
    assert re.search(reason, gate.reason)
    assert (gate.metric, gate.model_value, gate.baseline_value, gate.margin) == (
        "average_precision",
        model,
        baseline,
        0.05,
    )


@pytest.mark.parametrize(
    ("labels", "owners", "reason"),
    [
        ([], None, "no labelled pet-day .*left out: no_consent 3"),
        ([0] * 50, None, "none of 50 pet-days"),
        ([1] * 19 + [0] * 50, None, "19 pet-days of 19 households .* at least 20"),
        ([1] * 30 + [0] * 2, ["a"] * 32, "30 pet-days of 1 households"),
        ([1] * 30, None, "all 30 pet-days"),
    ],
)
def test_too_few_labels_are_not_applicable(labels: list[int], owners: list[str] | None, reason: str) -> None:
    result = train(dataset(labels, owners), MlSettings())
    assert isinstance(result, NotApplicable)
    assert re.search(reason, result.reason)


def test_without_visits_the_model_is_not_applicable() -> None:
    result = train(replace(dataset([1] * 20 + [0] * 20), labels_until=None), MlSettings())
    assert isinstance(result, NotApplicable)
    assert "no extract of clinic visits" in result.reason


def test_enough_labels_are_applicable() -> None:
    assert applicability(dataset([1] * 20 + [0] * 20), MlSettings()) is None


def test_params_tell_settings_and_code_apart() -> None:
    assert training_params(MlSettings()) == training_params(MlSettings())
    assert training_params(MlSettings(seed=1)) != training_params(MlSettings(seed=2))
    assert len(training_params(MlSettings())["code_hash"]) == 16


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETWELLNESS_ML_MARGIN", "0.2")
    monkeypatch.setenv("PETWELLNESS_ML_REGISTRY_FOLDER", "elsewhere")
    monkeypatch.setenv("PETWELLNESS_ML_FEATURES", '["steps_24h", "age_years"]')
    settings = MlSettings()
    assert settings.features == ("steps_24h", "age_years")
    assert settings.margin == 0.2
    assert str(settings.registry_folder) == "elsewhere"
