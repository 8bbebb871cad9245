"""The model's list of features and the catalogue that describes them."""

import csv
from pathlib import Path

from ml.datasets import RECORD_FEATURES, TRAILING_FEATURES
from ml.settings import VISIT_RISK_FEATURES

CATALOGUE = Path(__file__).resolve().parents[3] / "dbt_project/seeds/ml/ml_feature_catalogue.csv"


def current() -> dict[str, dict[str, str]]:
    with CATALOGUE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "current"]
    assert len({row["feature_name"] for row in rows}) == len(rows) >= 30
    return {row["feature_name"]: row for row in rows}


def test_what_the_model_names_is_in_the_catalogue() -> None:
    assert set(VISIT_RISK_FEATURES) | RECORD_FEATURES | TRAILING_FEATURES <= current().keys()
    assert len(set(VISIT_RISK_FEATURES)) == len(VISIT_RISK_FEATURES)


def test_the_name_of_a_feature_tells_its_window() -> None:
    windows = {"24h": {1, 2}, "7d": {7, 8}, "30d": {30}, "365d": {365}}
    for name, row in current().items():
        suffix = name.rsplit("_", 1)[-1]
        if suffix in windows:
            assert int(row["window_days"]) in windows[suffix], name
