"""The visit risk model: how it is fitted, evaluated and gated. Nothing here reads or stores.

Model: gradient-boosted trees (they take missing values as they are) followed by a sigmoid that turns
their log-odds into probabilities. Baseline: logistic regression on days since the last visit alone;
a model of collar data that cannot beat "who was here lately comes again" is not worth promoting.

Evaluation. A fortnight of history with a seven-day horizon leaves about seven labelled days, and the
days of one pet look alike. So folds are grouped by household: each household's pet-days are predicted
by a model that never saw that household, and model and baseline share the same folds. Predicting later
days from earlier ones would be the truer test, but the training days must end a full horizon before the
tested ones (otherwise their labels lie in the tested period): that needs more than `horizon_days`
labelled days. Where there are, the out-of-time check is computed and reported beside the
cross-validated figures; where not, it says why. The gate rests on the folds in both cases.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.datasets import DAY_US, Floats, NotApplicable, Objects, TrainingSet
from ml.settings import MlSettings

Labels = NDArray[np.int8]

METRIC = "average_precision"

# Small trees, strong smoothing: hundreds of rows, not millions. Early stopping would spend rows on
# a validation split that ignores households.
TREE_PARAMS: dict[str, Any] = {
    "max_iter": 60,
    "learning_rate": 0.08,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 15,
    "l2_regularization": 1.0,
    "early_stopping": False,
}


@contextmanager
def one_thread() -> Iterator[None]:
    """Numeric libraries limited to one thread.

    Parallel sums depend on the number of threads in their last bits, and a few hundred rows leave
    a second thread little to do.
    """
    # A limit only reaches libraries that are loaded already.
    import_module("sklearn.ensemble")
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


@dataclass(frozen=True)
class RiskModel:
    """A fitted model; a plain value that scoring needs and the registry stores."""

    trees: Any
    """sklearn HistGradientBoostingClassifier."""
    slope: float
    intercept: float
    """risk = 1 / (1 + exp(-(slope * log-odds of the trees + intercept)))."""

    def predict_risk(self, values: Floats) -> Floats:
        """Probability per row of `values`, columns as in training."""
        return _sigmoid(self.slope * _log_odds(self.trees, values) + self.intercept)


@dataclass(frozen=True)
class GateResult:
    """Whether the model may become champion, and on which figures."""

    passed: bool
    metric: str
    model_value: float
    baseline_value: float
    margin: float
    advantage_p05: float
    """5th percentile of model minus baseline over resampled households."""
    reason: str


@dataclass(frozen=True)
class OutOfTime:
    """Trained on days whose labels were complete before the first tested day."""

    trained_days: int
    tested_days: int
    metrics: dict[str, float]
    baseline_metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingResult:
    """A fitted candidate with what it was trained on and how it did on unseen households."""

    model: RiskModel
    metrics: dict[str, float]
    """average_precision, roc_auc, brier, lift_top_10pct on out-of-fold predictions."""
    baseline_metrics: dict[str, float]
    gate: GateResult
    out_of_time: OutOfTime | NotApplicable
    feature_versions: dict[str, str]
    n_rows: int
    n_positives: int
    n_pets: int
    n_households: int
    n_days: int
    excluded: dict[str, int]
    as_of: datetime
    labels_until: datetime
    horizon_days: int
    dataset_hash: str
    params: dict[str, Any]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Columns of the model, in order."""
        return tuple(self.feature_versions)


def training_params(settings: MlSettings) -> dict[str, Any]:
    """Everything besides the data that the fitted model and its verdict depend on.

    Includes a hash of this package's dataset and training code and the version of scikit-learn, so
    that a change of either makes another training.
    """
    from importlib.metadata import version

    code = hashlib.sha256()
    for module in ("datasets.py", "training.py"):
        code.update(Path(__file__).with_name(module).read_bytes())
    return {
        **TREE_PARAMS,
        "horizon_days": settings.horizon_days,
        "min_positives": settings.min_positives,
        "min_positive_households": settings.min_positive_households,
        "margin": settings.margin,
        "folds": settings.folds,
        "bootstrap_rounds": settings.bootstrap_rounds,
        "seed": settings.seed,
        "code_hash": code.hexdigest()[:16],
        "scikit_learn": version("scikit-learn"),
    }


def applicability(dataset: TrainingSet, settings: MlSettings) -> NotApplicable | None:
    """Why a model cannot be trained on this set, or None when it can."""
    if dataset.labels_until is None:
        return NotApplicable("no extract of clinic visits has been loaded, so no pet-day has a label")
    if len(dataset) == 0:
        left_out = ", ".join(f"{reason} {count}" for reason, count in dataset.excluded.items() if count)
        return NotApplicable(
            f"no labelled pet-day {settings.horizon_days} days before {dataset.labels_until:%Y-%m-%d %H:%M}"
            f" (left out: {left_out or 'none, there are no features'})"
        )
    positives = dataset.labels == 1
    if not positives.any():
        return NotApplicable(f"none of {len(dataset)} pet-days is followed by a known unplanned visit")
    households = len(set(dataset.owner_ids[positives]))
    if positives.sum() < settings.min_positives or households < settings.min_positive_households:
        return NotApplicable(
            f"{positives.sum()} pet-days of {households} households are followed by an unplanned visit; "
            f"at least {settings.min_positives} of {settings.min_positive_households} are needed"
        )
    if positives.all():
        return NotApplicable(f"all {len(dataset)} pet-days are followed by an unplanned visit")
    return None


def train(dataset: TrainingSet, settings: MlSettings) -> TrainingResult | NotApplicable:
    """Fit, evaluate and gate. The same dataset and settings give the same result to the last bit."""
    reason = applicability(dataset, settings)
    if reason is not None:
        return reason
    assert dataset.labels_until is not None  # applicability has said so

    values, labels, groups = dataset.features.values, dataset.labels, dataset.owner_ids
    with one_thread():
        folds = list(_household_folds(labels, groups, settings))
        log_odds, baseline_risk = np.empty(len(labels)), np.empty(len(labels))
        for fit, test in folds:
            trees = _fit_trees(values[fit], labels[fit], settings.seed)
            log_odds[test] = _log_odds(trees, values[test])
            baseline_risk[test] = _baseline_risk(dataset, fit, test)
        # Each fold's probabilities come from a sigmoid fitted on the other folds, so the Brier score
        # is of unseen households too.
        risk = np.empty(len(labels))
        for fit, test in folds:
            slope, intercept = _fit_sigmoid(log_odds[fit], labels[fit])
            risk[test] = _sigmoid(slope * log_odds[test] + intercept)

        slope, intercept = _fit_sigmoid(log_odds, labels)
        model = RiskModel(_fit_trees(values, labels, settings.seed), slope, intercept)
        out_of_time = _out_of_time(dataset, settings)

    metrics = evaluate(labels, risk, ranking=log_odds)
    baseline_metrics = evaluate(labels, baseline_risk)
    advantage = _advantage_p05(labels, log_odds, baseline_risk, groups, settings)
    return TrainingResult(
        model=model,
        metrics=metrics,
        baseline_metrics=baseline_metrics,
        gate=judge(metrics[METRIC], baseline_metrics[METRIC], advantage, settings.margin),
        out_of_time=out_of_time,
        feature_versions=dataset.features.versions,
        n_rows=len(labels),
        n_positives=int(labels.sum()),
        n_pets=len(set(dataset.features.pet_ids)),
        n_households=len(set(groups)),
        n_days=len(np.unique(dataset.features.end_ts)),
        excluded=dataset.excluded,
        as_of=dataset.as_of,
        labels_until=dataset.labels_until,
        horizon_days=dataset.horizon_days,
        dataset_hash=dataset.content_hash(),
        params=training_params(settings),
    )


def judge(model_value: float, baseline_value: float, advantage_p05: float, margin: float) -> GateResult:
    """Pass when the model is ahead by the margin, and still ahead where 5 % of resamples put it at worst.

    The margin alone lets noise through: 120 households with few visits move average precision by
    several hundredths.
    """
    ahead = model_value - baseline_value
    figures = f"average precision {model_value:.3f} against the baseline's {baseline_value:.3f}"
    if ahead < margin:
        passed, reason = False, f"{figures}: ahead by {ahead:+.3f}, needed {margin:+.3f}"
    elif advantage_p05 <= 0:
        passed, reason = False, f"{figures}: not ahead in 95 % of household resamples ({advantage_p05:+.3f})"
    else:
        passed, reason = True, f"{figures}: ahead by {ahead:+.3f} (95 % of resamples {advantage_p05:+.3f})"
    return GateResult(passed, METRIC, model_value, baseline_value, margin, advantage_p05, reason)


def evaluate(labels: Labels, risk: Floats, ranking: Floats | None = None) -> dict[str, float]:
    """Metrics of predicted risks; `ranking` orders rows where the risk itself was rescaled by fold."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    order = risk if ranking is None else ranking
    return {
        METRIC: float(average_precision_score(labels, order)),
        "roc_auc": float(roc_auc_score(labels, order)),
        "brier": float(np.mean((risk - labels) ** 2)),
        "lift_top_10pct": lift(labels, order, 0.1),
        "base_rate": float(labels.mean()),
    }


def lift(labels: Labels, scores: Floats, share: float) -> float:
    """Rate of positives among the top `share` of rows over the rate among all.

    Rows tied at the cut count with the tie's own rate, so the order of rows does not matter.
    """
    top = max(1, int(np.ceil(share * len(labels))))
    cut = np.sort(scores)[-top]
    above, tied = scores > cut, scores == cut
    positives = labels[above].sum() + labels[tied].mean() * (top - above.sum())
    return float(positives / top / labels.mean())


def _household_folds(
    labels: Labels, groups: Objects, settings: MlSettings
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    # min_positive_households may be set below the number of folds; a fold without a positive to
    # learn from would be no model.
    folds = min(settings.folds, len(set(groups[labels == 1])))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=settings.seed)
    yield from splitter.split(np.zeros(len(labels)), labels, np.unique(groups, return_inverse=True)[1])


def _fit_trees(values: Floats, labels: Labels, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    # scikit-learn refuses a column without any value; of a constant one nothing is learned.
    given = np.where(np.isnan(values).all(axis=0), 0.0, values)
    return HistGradientBoostingClassifier(**TREE_PARAMS, random_state=seed).fit(given, labels)


def _log_odds(trees: Any, values: Floats) -> Floats:
    with one_thread():
        return np.asarray(trees.decision_function(values), dtype=np.float64)


def _fit_sigmoid(log_odds: Floats, labels: Labels) -> tuple[float, float]:
    """Slope and intercept of Platt scaling; a slope below zero (no signal) becomes the base rate."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression().fit(log_odds.reshape(-1, 1), labels)
    slope, intercept = float(fit.coef_[0, 0]), float(fit.intercept_[0])
    if slope > 0:
        return slope, intercept
    rate = float(labels.mean())
    return 0.0, float(np.log(rate / (1 - rate)))


def _baseline_risk(dataset: TrainingSet, fit: NDArray[Any], test: NDArray[Any]) -> Floats:
    from sklearn.linear_model import LogisticRegression

    unknown = np.isnan(dataset.days_since_visit)
    recency = np.where(unknown, 0.0, np.log1p(dataset.days_since_visit))
    columns = np.column_stack([recency, unknown])
    fitted = LogisticRegression().fit(columns[fit], dataset.labels[fit])
    return np.asarray(fitted.predict_proba(columns[test])[:, 1], dtype=np.float64)


def _out_of_time(dataset: TrainingSet, settings: MlSettings) -> OutOfTime | NotApplicable:
    days = np.unique(dataset.features.end_ts)
    tested = days[-max(1, len(days) // 4) :]
    horizon = np.timedelta64(dataset.horizon_days * DAY_US, "us")
    trained = days[days + horizon <= tested[0]]
    if len(trained) == 0:
        return NotApplicable(
            f"{len(days)} labelled days; training days must end {dataset.horizon_days} days before the "
            "tested ones"
        )
    fit = np.flatnonzero(np.isin(dataset.features.end_ts, trained))
    test = np.flatnonzero(np.isin(dataset.features.end_ts, tested))
    for name, rows in (("training", fit), ("tested", test)):
        positives = int(dataset.labels[rows].sum())
        if positives < settings.min_positives or positives == len(rows):
            return NotApplicable(
                f"{positives} of {len(rows)} {name} pet-days are followed by an unplanned visit; "
                f"at least {settings.min_positives} and not all are needed"
            )
    trees = _fit_trees(dataset.features.values[fit], dataset.labels[fit], settings.seed)
    risk = np.asarray(trees.predict_proba(dataset.features.values[test])[:, 1], dtype=np.float64)
    return OutOfTime(
        trained_days=len(trained),
        tested_days=len(tested),
        metrics=evaluate(dataset.labels[test], risk),
        baseline_metrics=evaluate(dataset.labels[test], _baseline_risk(dataset, fit, test)),
    )


def _advantage_p05(
    labels: Labels, model: Floats, baseline: Floats, groups: Objects, settings: MlSettings
) -> float:
    """Bootstrap over households: rows of one household are not independent."""
    from sklearn.metrics import average_precision_score

    codes = np.unique(groups, return_inverse=True)[1]
    random = np.random.default_rng(settings.seed)
    advantages = []
    for _ in range(settings.bootstrap_rounds):
        drawn = random.integers(0, codes.max() + 1, codes.max() + 1)
        weights = np.bincount(drawn, minlength=codes.max() + 1)[codes]
        if not (weights * labels).any():
            continue
        advantages.append(
            average_precision_score(labels, model, sample_weight=weights)
            - average_precision_score(labels, baseline, sample_weight=weights)
        )
    return float(np.percentile(advantages, 5))


def _sigmoid(log_odds: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-log_odds))
