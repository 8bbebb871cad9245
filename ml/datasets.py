"""From warehouse tables to training sets and feature matrices; no model is fitted here.

The functions that decide anything are pure (Arrow tables in, arrays out); the `read_*` functions at
the end only select. Two moments matter for every row: `end_ts`, when the prediction would have been
made, and `as_of`, when the model is trained. Features of a row rest on records with
arrival_ts <= end_ts (`ml.computed_features` guarantees it), its label on records with
arrival_ts <= as_of, and a label exists only once its whole horizon lies before `labels_until`, the last
moment of which the clinics have reported: telemetry goes on arriving after the newest extract of visits,
and days without a report are not days without a visit. Nothing that arrived after `as_of` is read at all.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ml.errors import DatasetError, FeatureVersionError
from ml.warehouse import Value, Warehouse

Floats = NDArray[np.float64]
Objects = NDArray[np.object_]
Times = NDArray[np.datetime64]

DAY_US = 86_400_000_000

_TIME = pa.timestamp("us")

FEATURE_ROWS = pa.schema(
    {
        "pet_id": pa.string(),
        "feature_name": pa.string(),
        "end_ts": _TIME,
        "value": pa.float64(),
        "feature_version": pa.string(),
    }
)

# What ml keeps of records: rows that were known from known_from up to known_to (null: still), by table.
_KNOWN = {"known_from": _TIME, "known_to": _TIME}
RECORDS = {
    "visit_records": pa.schema(
        {
            "visit_id": pa.string(),
            "pet_id": pa.string(),
            "visit_ts": _TIME,
            "is_unplanned": pa.bool_(),
            **_KNOWN,
        }
    ),
    "pet_records": pa.schema({"pet_id": pa.string(), "owner_id": pa.string(), **_KNOWN}),
    "owner_records": pa.schema({"owner_id": pa.string(), **_KNOWN}),
}

RECORD_FEATURES = frozenset(
    {
        "age_years",
        "days_on_platform",
        "days_since_last_visit",
        "no_shows_365d",
        "unplanned_visits_365d",
        "vaccine_due_in_days",
        "visits_365d",
    }
)
"""Features known without a collar. A day that has only these says nothing about that day."""

TRAILING_FEATURES = frozenset(
    {
        "battery_drain_7d",
        "coverage_24h",
        "coverage_7d",
        "silent_days_7d",
        "steps_cv_7d",
        "steps_mean_7d",
        "weight_latest_30d",
        "weight_trend_30d",
    }
)
"""Features that earlier days can fill, and the share of the day that was measured, which is 0 on a silent day:
nor do these say that anything was measured on the day itself."""


@dataclass(frozen=True)
class FeatureMatrix:
    """One row per (pet_id, end_ts), ordered by both; one column per feature, NaN where there is none."""

    pet_ids: Objects
    end_ts: Times
    values: Floats
    versions: dict[str, str]
    """feature_name -> feature_version, in column order (sorted by name)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(self.versions)

    def rows(self, keep: NDArray[Any]) -> "FeatureMatrix":
        """The rows that a mask or index array selects."""
        return FeatureMatrix(self.pet_ids[keep], self.end_ts[keep], self.values[keep], self.versions)

    def is_observed(self) -> NDArray[np.bool_]:
        """Rows with a value in at least one feature besides RECORD_FEATURES and TRAILING_FEATURES."""
        elsewhere = RECORD_FEATURES | TRAILING_FEATURES
        of_the_day = [column for column, name in enumerate(self.names) if name not in elsewhere]
        return np.asarray(~np.isnan(self.values[:, of_the_day]).all(axis=1), dtype=np.bool_)

    def content_hash(self) -> str:
        """First 16 hex digits of a SHA-256 over keys and values, to six significant digits.

        Rounded so that engines whose last bits of a ratio differ agree on the hash.
        """
        digest = hashlib.sha256(json.dumps(self.versions).encode())
        for pet_id, end_ts, row in zip(self.pet_ids, self.end_ts, self.values, strict=True):
            digest.update(f"{pet_id}|{end_ts}|{'|'.join(f'{value:.6g}' for value in row)}\n".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TrainingSet:
    """Labelled pet-days of households that share their data, as known at `as_of`."""

    features: FeatureMatrix
    owner_ids: Objects
    """Household of each row at `as_of`: the group that folds must not split."""
    days_since_visit: Floats
    """Days from the last completed visit known at end_ts to end_ts; NaN where none was known."""
    labels: NDArray[np.int8]
    """1 where an unplanned visit was completed in (end_ts, end_ts + horizon_days]."""
    as_of: datetime
    labels_until: datetime | None
    """Moment of the newest extract of visits known at `as_of`; None when there is none."""
    horizon_days: int
    excluded: dict[str, int]
    """Pet-days left out, by reason: horizon_open, not_observed, no_owner, no_consent, label_unknown."""

    def __len__(self) -> int:
        return len(self.labels)

    def content_hash(self) -> str:
        """Hash of everything a fit or an evaluation sees; see `FeatureMatrix.content_hash`."""
        digest = hashlib.sha256(self.features.content_hash().encode())
        for owner_id, recency, label in zip(self.owner_ids, self.days_since_visit, self.labels, strict=True):
            digest.update(f"{owner_id}|{recency:.6g}|{label}\n".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class NotApplicable:
    """Training or a check has nothing to work on: neither a pass nor a failure."""

    reason: str


def pivot_features(table: pa.Table, versions: Mapping[str, str] | None = None) -> FeatureMatrix:
    """Long `ml.computed_features` rows (pet_id, feature_name, end_ts, value, feature_version) made wide.

    `versions` asks for exactly these features at these versions, as a trained model does. Without it
    every feature is taken at its newest version; other versions are ignored.
    Raises FeatureVersionError when an asked-for feature is there on a day, but only at another version, and
    DatasetError when one (pet_id, end_ts, feature_name, feature_version) has two rows.
    """
    names = _objects(table, "feature_name")
    row_versions = _objects(table, "feature_version")
    present = table.group_by(["feature_name", "feature_version", "end_ts"]).aggregate([]).to_pylist()
    if versions is None:
        chosen = _newest_versions(present)
    else:
        chosen = {name: versions[name] for name in sorted(versions)}
        _refuse_other_versions(chosen, present)

    column_of = {pair: column for column, pair in enumerate(chosen.items())}
    columns = np.array([column_of.get(pair, -1) for pair in zip(names, row_versions, strict=True)], dtype=int)
    keep = columns >= 0
    pet_ids, end_ts = _objects(table, "pet_id")[keep], _times(table, "end_ts")[keep]
    cell_values = _floats(table, "value")[keep]

    pets, pet_codes = np.unique(pet_ids, return_inverse=True)
    ends, end_codes = np.unique(end_ts, return_inverse=True)
    keys, row_codes = np.unique(pet_codes * max(len(ends), 1) + end_codes, return_inverse=True)
    cells = row_codes * max(len(chosen), 1) + columns[keep]
    if len(np.unique(cells)) != len(cells):
        raise DatasetError(
            "ml.computed_features has more than one row for a (pet_id, end_ts, feature_name, "
            "feature_version); rebuild the feature days concerned"
        )
    values = np.full((len(keys), len(chosen)), np.nan)
    values[row_codes, columns[keep]] = cell_values
    pet_rows, end_rows = np.divmod(keys, max(len(ends), 1))
    return FeatureMatrix(pets[pet_rows], ends[end_rows], values, chosen)


def in_force(records: pa.Table, known_at: datetime) -> pa.Table:
    """The rows that were what the platform knew at `known_at`."""
    moment = pa.scalar(known_at, _TIME)
    until = pc.field("known_to")
    return records.filter((pc.field("known_from") <= moment) & (until.is_null() | (until > moment)))


def build_training_set(
    features: pa.Table,
    visits: pa.Table,
    pets: pa.Table,
    owners: pa.Table,
    *,
    as_of: datetime,
    labels_until: datetime | None,
    horizon_days: int,
) -> TrainingSet:
    """The training set of a model trained at `as_of` (UTC, naive).

    `features` is `ml.computed_features`; `visits` are the visits that took place, `pets` the pets with an
    owner, `owners` those who share their data, each with when it was known (RECORDS). What a visit that took
    place is, and who shares, is decided where those tables are made, and nowhere here.

    A label is 1 when a visit with is_unplanned true has visit_ts in (end_ts, end_ts + horizon]; it is unknown,
    and the row left out, when the only visits there do not say whether they were planned. A pet-day is left out
    when its pet has no owner, or its owner is not among `owners`, all as known at `as_of`.
    """
    moment = np.datetime64(as_of, "us")
    horizon = np.timedelta64(horizon_days * DAY_US, "us")
    known_features = features.filter(pa.array(_times(features, "end_ts") <= moment))
    matrix = pivot_features(known_features)
    excluded: dict[str, int] = {}

    def leave_out(reason: str, rows: NDArray[np.bool_]) -> None:
        nonlocal matrix
        excluded[reason] = int(rows.sum())
        matrix = matrix.rows(~rows)

    reported = np.datetime64("NaT") if labels_until is None else np.datetime64(min(as_of, labels_until), "us")
    leave_out("horizon_open", ~(matrix.end_ts + horizon <= reported))
    leave_out("not_observed", ~matrix.is_observed())
    owner_of = _owner_by_pet(pets, as_of)
    leave_out("no_owner", np.array([pet_id not in owner_of for pet_id in matrix.pet_ids], dtype=bool))
    sharing = set(_objects(in_force(owners, as_of), "owner_id"))
    leave_out("no_consent", np.array([owner_of[pet_id] not in sharing for pet_id in matrix.pet_ids], bool))
    labels = _labels(matrix, in_force(visits, as_of), horizon)
    leave_out("label_unknown", labels < 0)

    return TrainingSet(
        features=matrix,
        owner_ids=np.array([owner_of[pet_id] for pet_id in matrix.pet_ids], dtype=object),
        days_since_visit=_days_since_visit(matrix, visits),
        labels=labels[labels >= 0],
        as_of=as_of,
        labels_until=labels_until,
        horizon_days=horizon_days,
        excluded=excluded,
    )


def _newest_versions(present: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    newest: dict[str, str] = {}
    for row in sorted(present, key=lambda row: str(row["feature_name"])):
        name, version = row["feature_name"], row["feature_version"]
        if name not in newest or _version_order(version) > _version_order(newest[name]):
            newest[name] = version
    return newest


def _version_order(version: str) -> tuple[tuple[int, ...], str]:
    """`v10` is newer than `v9`, `1.10` than `1.9`."""
    numbers = "".join(character if character.isdigit() else " " for character in version).split()
    return tuple(int(number) for number in numbers), version


def _refuse_other_versions(asked: Mapping[str, str], present: Sequence[Mapping[str, Any]]) -> None:
    """Day by day: old days keep superseded versions, days built since a change have the new one alone."""
    there: dict[tuple[str, datetime], set[str]] = {}
    for row in present:
        if row["feature_name"] in asked:
            there.setdefault((row["feature_name"], row["end_ts"]), set()).add(row["feature_version"])
    for (name, end_ts), versions in sorted(there.items()):
        if asked[name] not in versions:
            raise FeatureVersionError(
                f"feature '{name}' is at version {', '.join(sorted(versions))} in ml.computed_features on "
                f"the day that ends at {end_ts:%Y-%m-%d %H:%M}, but the model was trained on version "
                f"{asked[name]}; train again"
            )


def _owner_by_pet(pets: pa.Table, as_of: datetime) -> dict[str, str]:
    current = in_force(pets, as_of)
    return dict(zip(_objects(current, "pet_id"), _objects(current, "owner_id"), strict=True))


def _labels(matrix: FeatureMatrix, visits: pa.Table, horizon: np.timedelta64) -> NDArray[np.int8]:
    """1 unplanned visit in the horizon, 0 none, -1 a visit of unknown kind and no unplanned one.

    `visits` are as known when the model is trained.
    """
    is_unplanned = _objects(visits, "is_unplanned")
    unplanned = _times_by_pet(visits.filter(pa.array([kind is True for kind in is_unplanned], pa.bool_())))
    unknown = _times_by_pet(visits.filter(pa.array([kind is None for kind in is_unplanned], pa.bool_())))
    labels = np.zeros(len(matrix.pet_ids), dtype=np.int8)
    for pet_id, rows in _rows_by_pet(matrix.pet_ids):
        ends = matrix.end_ts[rows]
        for times, label in ((unknown.get(pet_id), -1), (unplanned.get(pet_id), 1)):
            if times is not None:
                after = np.searchsorted(times, ends, side="right")
                until = np.searchsorted(times, ends + horizon, side="right")
                labels[rows] = np.where(until > after, label, labels[rows])
    return labels


def _days_since_visit(matrix: FeatureMatrix, visits: pa.Table) -> Floats:
    """Per row: what was known at its end_ts, not at training time."""
    days = np.full(len(matrix.pet_ids), np.nan)
    for end in np.unique(matrix.end_ts):
        times_by_pet = _times_by_pet(in_force(visits, end.astype(object)))
        for row in np.flatnonzero(matrix.end_ts == end):
            times = times_by_pet.get(matrix.pet_ids[row])
            past = 0 if times is None else np.searchsorted(times, end, side="right")
            if times is not None and past > 0:
                days[row] = (end - times[past - 1]) / np.timedelta64(DAY_US, "us")
    return days


def _times_by_pet(visits: pa.Table) -> dict[str, Times]:
    """Ascending visit_ts of each pet."""
    ordered = visits.sort_by([("pet_id", "ascending"), ("visit_ts", "ascending")])
    times = _times(ordered, "visit_ts")
    return {pet_id: times[rows] for pet_id, rows in _rows_by_pet(_objects(ordered, "pet_id"))}


def _rows_by_pet(pet_ids: Objects) -> list[tuple[str, slice]]:
    """Each pet's slice of rows that are ordered by pet_id."""
    pets, starts = np.unique(pet_ids, return_index=True)
    bounds = [*starts.tolist(), len(pet_ids)]
    return [(pet_id, slice(bounds[i], bounds[i + 1])) for i, pet_id in enumerate(pets)]


def _objects(table: pa.Table, column: str) -> Objects:
    return np.array(table[column].to_pylist(), dtype=object)


def _times(table: pa.Table, column: str) -> Times:
    return table[column].cast(pa.timestamp("us")).to_numpy().astype("datetime64[us]")


def _floats(table: pa.Table, column: str) -> Floats:
    return table[column].cast(pa.float64()).to_numpy().astype(np.float64)


def read_training_set(
    warehouse: Warehouse,
    *,
    as_of: datetime,
    labels_until: datetime | None,
    horizon_days: int,
    features: Sequence[str] | None = None,
) -> TrainingSet:
    """`build_training_set` over a warehouse, of these features (None: of all there are).

    `labels_until` is the moment of the newest extract of visits known at `as_of`.
    Raises DatasetError when a table or column is missing, or a feature of which no pet has a row.
    """
    table = read_features(warehouse, until=as_of, names=features)
    if features is not None and table.num_rows > 0:
        missing = sorted(set(features) - set(_objects(table, "feature_name")))
        if missing:
            raise DatasetError(
                f"ml.computed_features has no rows of {', '.join(missing)}; run dbt build, or take them out "
                "of PETWELLNESS_ML_FEATURES"
            )
    return build_training_set(
        table,
        _read_records(warehouse, "visit_records", as_of),
        _read_records(warehouse, "pet_records", as_of),
        _read_records(warehouse, "owner_records", as_of),
        as_of=as_of,
        labels_until=labels_until,
        horizon_days=horizon_days,
    )


def read_features(
    warehouse: Warehouse,
    *,
    until: datetime | None = None,
    end_ts: Sequence[datetime] = (),
    names: Iterable[str] | None = None,
) -> pa.Table:
    """Long feature rows up to `until`, or of exactly the days that end at the moments `end_ts`.

    `names` limits them to these features; all versions of each are read.
    """
    columns = "pet_id, feature_name, end_ts, cast(value as double) as value, feature_version"
    values: list[Value] = [end_ts if until is None else until]
    days = "end_ts in (?)" if until is None else "end_ts <= ?"
    of_names = ""
    if names is not None:
        of_names = " and feature_name in (?)"
        values.append(sorted(names))
    sql = f"select {columns} from ml.computed_features where {days}{of_names}"
    return warehouse.select(sql, values, FEATURE_ROWS)


def read_feature_ends(warehouse: Warehouse) -> list[datetime]:
    """The ends of the days that have features, in order. Raises DatasetError when the table is missing."""
    sql = "select distinct end_ts from ml.computed_features order by end_ts"
    found = warehouse.select(sql, (), pa.schema({"end_ts": _TIME}))
    ends: list[datetime] = found["end_ts"].to_pylist()
    return ends


def forget_superseded_features(warehouse: Warehouse, pet_ids: Sequence[str], days: Sequence[date]) -> int:
    """Delete rows of superseded versions, of some pets and of some days; returns how many.

    For erasure: rows of current versions are computed again without what was erased, these would keep it.
    """
    if not warehouse.has("ml.computed_features"):
        return 0
    return warehouse.delete(
        "ml.computed_features",
        "(pet_id in (?) or event_date in (?)) and (feature_name, feature_version) not in"
        " (select feature_name, feature_version from ml.feature_catalogue where status = 'current')",
        [pet_ids, days],
    )


def _read_records(warehouse: Warehouse, name: str, as_of: datetime) -> pa.Table:
    """What was known by `as_of`: not the histories in cur, which do not keep when a version became known."""
    schema = RECORDS[name]
    return warehouse.select(
        f"select {', '.join(schema.names)} from ml.{name} where known_from <= ?", [as_of], schema
    )


def day_end(day: Any) -> datetime:
    """`end_ts` of a date: midnight UTC at which the day is over."""
    return datetime(day.year, day.month, day.day) + timedelta(days=1)
