"""Registered models: MLflow runs, versions and the `champion` alias. No training, no scoring.

Locally the registry is a SQLite file and a folder of artifacts; `registry_uri` points it at a server.
The fitted model is stored with joblib, which can run code when loaded (MLflow's default, skops, is not
a dependency, and its other formats are pickles as well): so the hash recorded in the registry at
registration is checked against the stored bytes before they are loaded.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ml.datasets import NotApplicable
from ml.errors import ArtifactTamperedError, RegistryError
from ml.settings import MlSettings
from ml.training import RiskModel, TrainingResult

CHAMPION = "champion"
EXPERIMENT = "visit-risk"
MODEL_FILE = "model.joblib"
METADATA_FILE = "metadata.json"
SNAPSHOT_FILE = "data_snapshot.json"

# What identifies a loaded range. load_seq and loaded_at tell when it was loaded, not what it holds.
RANGE_FIELDS = (
    "stream_id",
    "kafka_partition",
    "start_offset",
    "end_offset",
    "feed",
    "source_file",
    "row_count",
)


@dataclass(frozen=True)
class DataSnapshot:
    """The files and ranges that were in the warehouse when a model was trained."""

    ranges: tuple[dict[str, Any], ...]
    """Ordered; fields as RANGE_FIELDS."""
    hash: str

    @classmethod
    def of(cls, load_history: Sequence[Mapping[str, Any]]) -> "DataSnapshot":
        """From rows of `raw.load_history` in any order.

        Raises RegistryError when a row lacks one of RANGE_FIELDS.
        """
        missing = {field for row in load_history for field in RANGE_FIELDS if field not in row}
        if missing:
            raise RegistryError(f"raw.load_history rows lack {', '.join(sorted(missing))}; pass whole rows")
        ranges = [{field: row[field] for field in RANGE_FIELDS} for row in load_history]
        ranges.sort(key=lambda r: (r["stream_id"], r["kafka_partition"], r["start_offset"]))
        return cls(tuple(ranges), _hash(ranges))


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a registered model."""

    name: str
    version: int
    run_id: str
    created: bool
    """False when an identical training had been registered before."""


@dataclass(frozen=True)
class Champion:
    """The promoted model, loaded and verified."""

    model: RiskModel
    name: str
    version: int
    run_id: str
    feature_versions: dict[str, str]
    horizon_days: int
    as_of: datetime
    data_snapshot_hash: str
    metrics: dict[str, float]

    @property
    def feature_version(self) -> str:
        """Hash that stands for all feature names and versions in `anl.visit_risk_scores`."""
        return _hash(self.feature_versions)[:16]


class ModelRegistry:
    """The registry that `settings` point at, for the model `settings.model_name`.

    Opening imports MLflow (about 4.5 s once per process) and, the first time in a folder, creates its
    SQLite schema (about 3.5 s). Raises RegistryError when it cannot be opened.
    """

    def __init__(self, settings: MlSettings) -> None:
        self._name = settings.model_name
        self._artifact_location: str | None = None
        uri = settings.registry_uri
        if not uri:
            folder = settings.registry_folder.absolute()
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder / 'mlflow.db'}"
            self._artifact_location = (folder / "artifacts").as_uri()
        self._client = _open_client(uri)

    def find(self, training_key: str) -> RegisteredModel | None:
        """The version that was registered from the training `training_key`, if there is one."""
        found = self._client.search_model_versions(
            f"name = '{self._name}' and tags.training_key = '{training_key}'"
        )
        if not found:
            return None
        first = min(found, key=lambda version: int(version.version))
        return RegisteredModel(self._name, int(first.version), first.run_id, created=False)

    def register(self, result: TrainingResult, snapshot: DataSnapshot) -> RegisteredModel:
        """Store a candidate whether it passed its gate or not; identical trainings are stored once.

        Identical: same data snapshot, dataset, feature versions, as_of, parameters and code. A
        registration cut short leaves a run without a version, which nothing refers to.
        """
        key = training_key(result, snapshot)
        existing = self.find(key)
        if existing is not None:
            return existing

        model_bytes = _dump(result.model)
        metadata = _metadata(result, snapshot)
        metadata_bytes = _canonical(metadata)
        run = self._client.create_run(self._experiment_id(), run_name=f"{self._name} {result.as_of:%Y-%m-%d}")
        run_id = run.info.run_id
        for name, value in _run_params(result, snapshot).items():
            self._client.log_param(run_id, name, value)
        for name, value in _run_metrics(result).items():
            self._client.log_metric(run_id, name, value)
        with TemporaryDirectory() as folder:
            for file, content in (
                (MODEL_FILE, model_bytes),
                (METADATA_FILE, metadata_bytes),
                (SNAPSHOT_FILE, _canonical(snapshot.ranges)),
            ):
                Path(folder, file).write_bytes(content)
            self._client.log_artifacts(run_id, folder)
        self._client.set_terminated(run_id, "FINISHED")
        self._ensure_registered_model()
        version = self._client.create_model_version(
            self._name,
            source=run.info.artifact_uri,
            run_id=run_id,
            tags={
                "training_key": key,
                "model_sha256": hashlib.sha256(model_bytes).hexdigest(),
                "metadata_sha256": hashlib.sha256(metadata_bytes).hexdigest(),
                "data_snapshot": snapshot.hash,
                "gate_passed": str(result.gate.passed).lower(),
                "gate_reason": result.gate.reason,
            },
            description=f"Gate {'passed' if result.gate.passed else 'failed'}: {result.gate.reason}",
        )
        return RegisteredModel(self._name, int(version.version), run_id, created=True)

    def promote_newest_passed(self) -> int | None:
        """Make the newest version that passed its gate champion; returns its number.

        None when no candidate ever passed. Candidates that failed never carry the alias. Repeating it
        changes nothing.
        """
        passed = self._client.search_model_versions(
            f"name = '{self._name}' and tags.gate_passed = 'true'",
            max_results=1,
            order_by=["version_number DESC"],
        )
        if not passed:
            return None
        newest = int(passed[0].version)
        if self.champion_version() != newest:
            self._client.set_registered_model_alias(self._name, CHAMPION, str(newest))
        return newest

    def champion_version(self) -> int | None:
        """Version number that carries the alias, or None when no candidate ever passed."""
        from mlflow.exceptions import MlflowException

        try:
            return int(self._client.get_model_version_by_alias(self._name, CHAMPION).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise RegistryError(f"cannot look up the champion of '{self._name}': {error}") from error

    def load_champion(self) -> Champion | None:
        """The champion, or None when no candidate ever passed its gate.

        Raises ArtifactTamperedError when stored bytes do not match their recorded hash, and
        RegistryError when they are gone or were written by another scikit-learn version.
        """
        number = self.champion_version()
        if number is None:
            return None
        version = self._client.get_model_version(self._name, str(number))
        with TemporaryDirectory() as folder:
            metadata = json.loads(self._verified(version, METADATA_FILE, "metadata_sha256", folder))
            _refuse_other_sklearn(self._name, number, metadata["params"]["scikit_learn"])
            model = _load(self._verified(version, MODEL_FILE, "model_sha256", folder))
        return Champion(
            model=model,
            name=self._name,
            version=number,
            run_id=version.run_id,
            feature_versions=metadata["feature_versions"],
            horizon_days=metadata["horizon_days"],
            as_of=datetime.fromisoformat(metadata["as_of"]),
            data_snapshot_hash=metadata["data_snapshot"],
            metrics=metadata["metrics"],
        )

    def _verified(self, version: Any, file: str, tag: str, folder: str) -> bytes:
        from mlflow.exceptions import MlflowException

        label = f"{file} of model '{self._name}' version {version.version}"
        try:
            content = Path(self._client.download_artifacts(version.run_id, file, folder)).read_bytes()
        except (OSError, MlflowException) as error:
            raise RegistryError(
                f"{label} is not where the registry says ({version.source}); restore it or train again"
            ) from error
        if hashlib.sha256(content).hexdigest() != version.tags.get(tag):
            raise ArtifactTamperedError(
                f"{label} differs from the hash recorded at its registration and is not loaded; "
                "restore it from a backup or train again in a new registry folder"
            )
        return content

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=self._artifact_location))

    def _ensure_registered_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(
                self._name, description="Risk of an unplanned clinic visit, per pet and day"
            )
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def training_key(result: TrainingResult, snapshot: DataSnapshot) -> str:
    """What makes two trainings the same training."""
    return _hash(
        {
            "data_snapshot": snapshot.hash,
            "dataset": result.dataset_hash,
            "feature_versions": result.feature_versions,
            "as_of": result.as_of.isoformat(),
            "params": result.params,
        }
    )


def _open_client(uri: str) -> Any:
    # Read while mlflow is imported; its progress bars and schema messages are noise to our users.
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    # Its own seven retries keep a user waiting for minutes before an unreachable server is named.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RegistryError(
            f"cannot open the model registry at {_without_credentials(uri)} ({type(error).__name__}); "
            "set PETWELLNESS_ML_REGISTRY_URI or PETWELLNESS_ML_REGISTRY_FOLDER"
        ) from error
    return client


def _without_credentials(uri: str) -> str:
    """User, password and query of a server's address left out; a file's address has none."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _metadata(result: TrainingResult, snapshot: DataSnapshot) -> dict[str, Any]:
    not_tested = isinstance(result.out_of_time, NotApplicable)
    return {
        "as_of": result.as_of.isoformat(),
        "labels_until": result.labels_until.isoformat(),
        "horizon_days": result.horizon_days,
        "feature_versions": result.feature_versions,
        "data_snapshot": snapshot.hash,
        "dataset_hash": result.dataset_hash,
        "rows": result.n_rows,
        "positives": result.n_positives,
        "pets": result.n_pets,
        "households": result.n_households,
        "days": result.n_days,
        "excluded": result.excluded,
        "metrics": result.metrics,
        "baseline_metrics": result.baseline_metrics,
        "gate": asdict(result.gate),
        "out_of_time": {"applicable": not not_tested, **asdict(result.out_of_time)},
        "params": result.params,
    }


def _run_params(result: TrainingResult, snapshot: DataSnapshot) -> dict[str, Any]:
    return {
        **result.params,
        "as_of": result.as_of.isoformat(),
        "labels_until": result.labels_until.isoformat(),
        "data_snapshot": snapshot.hash,
        "data_snapshot_ranges": len(snapshot.ranges),
        "dataset_hash": result.dataset_hash,
        "feature_version": _hash(result.feature_versions)[:16],
    }


def _run_metrics(result: TrainingResult) -> dict[str, float]:
    return {
        **result.metrics,
        **{f"baseline_{name}": value for name, value in result.baseline_metrics.items()},
        "advantage_p05": result.gate.advantage_p05,
        "gate_passed": float(result.gate.passed),
        "rows": result.n_rows,
        "positives": result.n_positives,
        "pets": result.n_pets,
        "households": result.n_households,
    }


def _refuse_other_sklearn(name: str, number: int, trained_with: str) -> None:
    from importlib.metadata import version

    installed = version("scikit-learn")
    if trained_with != installed:
        raise RegistryError(
            f"model '{name}' version {number} was trained with scikit-learn {trained_with}, "
            f"installed is {installed}; train again or install that version"
        )


def _dump(model: RiskModel) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


def _load(content: bytes) -> RiskModel:
    import joblib

    model = joblib.load(io.BytesIO(content))
    if not isinstance(model, RiskModel):
        raise RegistryError(f"{MODEL_FILE} holds a {type(model).__name__}, not a RiskModel; train again")
    return model


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _hash(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
