"""Scores of the champion for given days, and their table `anl.visit_risk_scores`.

A score is a function of a day's features and the champion alone: scoring twice gives the same rows.
Whoever promotes a new champion decides which days are scored again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ml.datasets import FeatureMatrix, Floats, day_end, pivot_features, read_features
from ml.errors import DatasetError
from ml.registry import Champion
from ml.warehouse import Warehouse

SCORES_TABLE = "anl.visit_risk_scores"

SCORES_SCHEMA = pa.schema(
    [
        pa.field("pet_id", pa.string(), nullable=False),
        pa.field("event_date", pa.date32(), nullable=False),
        pa.field("end_ts", pa.timestamp("us"), nullable=False),
        # Probability of an unplanned visit in (end_ts, end_ts + 7 days]
        pa.field("risk_7d", pa.float64(), nullable=False),
        # 10 = the riskiest tenth of the pets of that day
        pa.field("risk_decile", pa.int32(), nullable=False),
        pa.field("model_name", pa.string(), nullable=False),
        pa.field("model_version", pa.int32(), nullable=False),
        # Hash over the names and versions of the model's features
        pa.field("feature_version", pa.string(), nullable=False),
        # Hash over the day's feature values that were scored
        pa.field("scored_on", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Scores:
    """Rows for `anl.visit_risk_scores` and what could not be scored."""

    table: pa.Table
    """Columns as SCORES_SCHEMA; one row per (pet_id, event_date), ordered by event_date, pet_id."""
    unscored: int
    """Pet-days of which the collar says nothing: see `FeatureMatrix.is_observed`."""


def score_days(warehouse: Warehouse, champion: Champion, days: Sequence[date]) -> Scores:
    """Score every pet with features on the given UTC days.

    Raises FeatureVersionError when the table holds a feature only at another version than the champion
    was trained on, DatasetError when `ml.computed_features` is missing.
    """
    wanted = sorted(set(days))
    features = read_features(
        warehouse, end_ts=[day_end(day) for day in wanted], names=champion.feature_versions
    )
    return score_features(features, champion, wanted)


def score_features(features: pa.Table, champion: Champion, days: Sequence[date]) -> Scores:
    """`score_days` on long feature rows."""
    matrix = pivot_features(features, champion.feature_versions)
    observed = matrix.is_observed()
    tables = [
        _score_day(
            day, matrix.rows(observed & (matrix.end_ts == np.datetime64(day_end(day), "us"))), champion
        )
        for day in sorted(set(days))
    ]
    return Scores(pa.concat_tables([SCORES_SCHEMA.empty_table(), *tables]), int((~observed).sum()))


def write_scores(warehouse: Warehouse, table: pa.Table, days: Sequence[date]) -> int:
    """Replace the scores of `days` in one transaction; returns the rows written.

    Days without scores end up empty. Raises DatasetError when `table` holds another day than `days`:
    its old rows would stay beside the new ones.
    """
    strays = set(table["event_date"].to_pylist()) - set(days)
    if strays:
        raise DatasetError(
            f"scores of {min(strays)} are not among the days to replace; pass every scored day in `days`"
        )
    warehouse.replace(SCORES_TABLE, "event_date in (?)", [sorted(set(days))], table.cast(SCORES_SCHEMA))
    return table.num_rows


def forget_scores(warehouse: Warehouse, pet_ids: Sequence[str], days: Sequence[date]) -> int:
    """Delete every score of some pets and all scores of some days; returns how many.

    For erasure: features of those days have changed, and with them the deciles of
    everybody. Scoring again brings back what may be there.
    """
    if not warehouse.has(SCORES_TABLE):
        return 0
    return warehouse.delete(SCORES_TABLE, "pet_id in (?) or event_date in (?)", [pet_ids, days])


def risk_deciles(risk: Floats) -> NDArray[np.int32]:
    """1 to 10, 10 the highest tenth; equal risks share the lowest decile any of them would have."""
    if len(risk) == 0:
        return np.empty(0, dtype=np.int32)
    lower = np.searchsorted(np.sort(risk), risk, side="left")
    return np.ceil(10 * (lower + 1) / len(risk)).astype(np.int32)


def _score_day(day: date, matrix: FeatureMatrix, champion: Champion) -> pa.Table:
    count = len(matrix.pet_ids)
    risk = champion.model.predict_risk(matrix.values) if count else np.empty(0)
    return pa.Table.from_arrays(
        [
            pa.array(matrix.pet_ids, pa.string()),
            pa.array([day] * count, pa.date32()),
            pa.array(matrix.end_ts, pa.timestamp("us")),
            pa.array(risk, pa.float64()),
            pa.array(risk_deciles(risk), pa.int32()),
            pa.array([champion.name] * count, pa.string()),
            pa.array([champion.version] * count, pa.int32()),
            pa.array([champion.feature_version] * count, pa.string()),
            pa.array([matrix.content_hash()] * count, pa.string()),
        ],
        schema=SCORES_SCHEMA,
    )
