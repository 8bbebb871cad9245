"""Training sets: what is known when, who is left out, and the shape of the feature matrix."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.datasets import RECORDS, TrainingSet, build_training_set, in_force, pivot_features
from ml.errors import DatasetError, FeatureVersionError

START = datetime(2026, 6, 1)
DAY = timedelta(days=1)
AS_OF = START + 12 * DAY

FEATURE = pa.schema(
    [
        ("pet_id", pa.string()),
        ("feature_name", pa.string()),
        ("end_ts", pa.timestamp("us")),
        ("value", pa.float64()),
        ("feature_version", pa.string()),
    ]
)


def table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    return pa.table(
        [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)], schema=schema
    )


def spans(name: str, changes: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of ml.<name> from changes: what is known of it, op, changed_at, arrival_ts, in the order of offsets.

    The slow way: at every moment at which something became known, the last of the changes that were known then.
    A change that is no longer worth a row (a visit that did not take place, a refusal) ends the one before.
    """
    rows = []
    for key in {change[0] for change in changes}:
        theirs = [change for change in changes if change[0] == key]
        moments = sorted({max(change[-2:]) for change in theirs})
        for moment, end in zip(moments, [*moments[1:], None], strict=True):
            known = [change for change in theirs if max(change[-2:]) <= moment]
            *values, op, _, _ = max(known, key=lambda change: (*change[-2:], changes.index(change)))
            if op != "delete":
                rows.append((*values, moment, end))
    return table(RECORDS[name], rows)


def feature(
    pet_id: str, day: int, value: float | None = 1.0, name: str = "steps", version: str = "1"
) -> tuple:
    return (pet_id, name, START + day * DAY, value, version)


def visit(
    day: float,
    pet_id: str = "rex",
    *,
    visit_id: str = "v1",
    status: str = "completed",
    unplanned: bool | None = True,
    deleted: bool = False,
    changed: float | None = None,
    arrived: float | None = None,
) -> tuple:
    """One that did not take place (yet) is, as in ml.visit_records, not there."""
    changed = day if changed is None else changed
    arrived = changed if arrived is None else arrived
    return (
        visit_id,
        pet_id,
        START + day * DAY,
        unplanned,
        "delete" if deleted or status != "completed" else "upsert",
        START + changed * DAY,
        START + arrived * DAY,
    )


def build(
    features: list[tuple],
    visits: list[tuple] = (),
    pets: list[tuple] = (("rex", "ann", "upsert", START, START),),
    owners: list[tuple] = (("ann", "upsert", START, START),),
    as_of: datetime = AS_OF,
    labels_until: datetime | None = datetime.max,
) -> TrainingSet:
    return build_training_set(
        table(FEATURE, features),
        spans("visit_records", list(visits)),
        spans("pet_records", list(pets)),
        spans("owner_records", list(owners)),
        as_of=as_of,
        labels_until=labels_until,
        horizon_days=7,
    )


def test_pivot_orders_rows_and_columns_and_leaves_gaps_missing() -> None:
    matrix = pivot_features(
        table(
            FEATURE, [feature("rex", 2, 5.0), feature("bo", 1, 3.0, "licks"), feature("rex", 1, 4.0, "licks")]
        )
    )
    assert matrix.names == ("licks", "steps")
    assert list(zip(matrix.pet_ids, matrix.end_ts.astype(object), strict=True)) == [
        ("bo", START + DAY),
        ("rex", START + DAY),
        ("rex", START + 2 * DAY),
    ]
    np.testing.assert_array_equal(matrix.values, [[3.0, np.nan], [4.0, np.nan], [np.nan, 5.0]])


def test_pivot_takes_the_newest_version_counting_in_numbers() -> None:
    rows = [feature("rex", 1, 9.0, version="v9"), feature("rex", 1, 10.0, version="v10")]
    matrix = pivot_features(table(FEATURE, rows))
    assert matrix.versions == {"steps": "v10"}
    assert matrix.values.tolist() == [[10.0]]


def test_pivot_for_a_model_refuses_another_version_and_accepts_absence() -> None:
    rows = table(FEATURE, [feature("rex", 1, version="2")])
    with pytest.raises(FeatureVersionError, match=r"'steps' is at version 2 .* trained on version 1"):
        pivot_features(rows, {"steps": "1"})
    # An old day keeps the version that the model knows; a day built since has the new one alone.
    mixed = table(FEATURE, [feature("rex", 1, version="1"), feature("rex", 2, version="2")])
    with pytest.raises(FeatureVersionError, match=r"version 2 .* ends at 2026-06-03 00:00, .* version 1"):
        pivot_features(mixed, {"steps": "1"})
    beside = table(FEATURE, [feature("rex", 1, 3.0, version="1"), feature("rex", 1, 5.0, version="2")])
    assert pivot_features(beside, {"steps": "1"}).values.tolist() == [[3.0]]
    matrix = pivot_features(rows, {"steps": "2", "licks": "1"})
    assert matrix.names == ("licks", "steps")
    np.testing.assert_array_equal(matrix.values, [[np.nan, 1.0]])


def test_pivot_refuses_two_values_for_one_cell() -> None:
    with pytest.raises(DatasetError, match="more than one row"):
        pivot_features(table(FEATURE, [feature("rex", 1, 1.0), feature("rex", 1, 2.0)]))


def test_content_hash_follows_the_values() -> None:
    first = pivot_features(table(FEATURE, [feature("rex", 1, 1.0), feature("bo", 1, 2.0)]))
    shuffled = pivot_features(table(FEATURE, [feature("bo", 1, 2.0), feature("rex", 1, 1.0 + 1e-12)]))
    changed = pivot_features(table(FEATURE, [feature("rex", 1, 1.1), feature("bo", 1, 2.0)]))
    assert first.content_hash() == shuffled.content_hash() != changed.content_hash()


@pytest.mark.parametrize(
    ("visit_day", "label"), [(2.0, 0), (2.0 + 1e-6, 1), (9.0, 1), (9.0 + 1e-6, 0), (1.0, 0)]
)
def test_horizon_is_open_at_its_start_and_closed_at_its_end(visit_day: float, label: int) -> None:
    assert build([feature("rex", 2)], [visit(visit_day)]).labels.tolist() == [label]


def test_days_whose_horizon_is_not_over_have_no_label() -> None:
    dataset = build([feature("rex", day) for day in range(1, 13)], [visit(7)])
    assert dataset.features.end_ts.astype(object).tolist() == [START + day * DAY for day in range(1, 6)]
    assert dataset.excluded["horizon_open"] == 7


def test_days_that_the_clinics_have_not_reported_have_no_label() -> None:
    features = [feature("rex", day) for day in (1, 2, 3)]
    assert len(build(features, labels_until=START + 9 * DAY)) == 2
    assert len(build(features, labels_until=START + 9 * DAY, as_of=START + 8 * DAY)) == 1
    assert build(features, labels_until=None).excluded["horizon_open"] == 3


@pytest.mark.parametrize(
    "other",
    [
        visit(4, status="no_show"),
        visit(4, status="cancelled"),
        visit(4, unplanned=False),
        visit(4, deleted=True),
        visit(4, pet_id="bo"),
    ],
)
def test_only_completed_unplanned_visits_of_the_pet_are_positives(other: tuple) -> None:
    assert build([feature("rex", 2)], [other]).labels.tolist() == [0]


def test_the_latest_version_of_a_visit_decides() -> None:
    versions = [visit(4, status="scheduled", changed=1), visit(4, status="completed", changed=4)]
    assert build([feature("rex", 2)], versions).labels.tolist() == [1]
    corrected = [*versions, visit(4, unplanned=False, changed=5)]
    assert build([feature("rex", 2)], corrected).labels.tolist() == [0]


def test_a_correction_that_arrived_after_training_is_not_known() -> None:
    versions = [visit(4), visit(4, unplanned=False, changed=5, arrived=12.5)]
    assert build([feature("rex", 2)], versions).labels.tolist() == [1]


def test_a_visit_of_unknown_kind_leaves_the_label_open_unless_another_settles_it() -> None:
    unknown = visit(4, unplanned=None)
    dataset = build([feature("rex", 2), feature("rex", 5)], [unknown])
    assert dataset.labels.tolist() == [0]
    assert dataset.excluded["label_unknown"] == 1
    assert build([feature("rex", 2)], [unknown, visit(5, visit_id="v2")]).labels.tolist() == [1]


def test_recency_is_what_was_known_on_the_day() -> None:
    late = visit(1, unplanned=False, arrived=3.5)
    dataset = build([feature("rex", day) for day in (2, 3, 4)], [late])
    np.testing.assert_array_equal(dataset.days_since_visit, [np.nan, np.nan, 3.0])


def test_households_that_do_not_share_and_pets_without_owner_stay_out() -> None:
    pets = [(pet, owner, "upsert", START, START) for pet, owner in (("rex", "ann"), ("bo", "ben"))]
    features = [feature(pet, 1) for pet in ("rex", "bo", "stray")]
    dataset = build(features, pets=pets)
    assert dataset.features.pet_ids.tolist() == ["rex"]
    assert dataset.owner_ids.tolist() == ["ann"]
    assert (dataset.excluded["no_consent"], dataset.excluded["no_owner"]) == (1, 1)


def test_consent_is_what_is_known_at_training_time() -> None:
    withdrawn = [("ann", "upsert", START, START), ("ann", "delete", START + DAY, START + 13 * DAY)]
    assert len(build([feature("rex", 1)], owners=withdrawn)) == 1
    assert build([feature("rex", 1)], owners=withdrawn, as_of=START + 13 * DAY).excluded["no_consent"] == 1


@pytest.mark.parametrize("known_anyway", ["age_years", "steps_mean_7d"])
def test_days_of_which_the_collar_says_nothing_are_counted_out(known_anyway: str) -> None:
    ages = [feature("rex", day, 4.0, known_anyway) for day in (1, 2, 3)]
    dataset = build([*ages, feature("rex", 1, None), feature("rex", 2, 1.0)])
    assert dataset.features.end_ts.astype(object).tolist() == [START + 2 * DAY]
    assert dataset.excluded["not_observed"] == 2


def test_empty_tables_give_an_empty_set() -> None:
    dataset = build([], pets=[], owners=[])
    assert len(dataset) == 0
    assert sum(dataset.excluded.values()) == 0


HOURS = st.integers(0, 20 * 24).map(lambda hours: START + timedelta(hours=hours))
PETS = st.sampled_from(["rex", "bo", "kit"])
OWNERS = st.sampled_from(["ann", "ben"])
OPS = st.sampled_from(["upsert", "upsert", "delete"])

FEATURES = st.lists(
    st.tuples(
        PETS,
        st.sampled_from(["steps", "licks"]),
        st.integers(0, 20).map(lambda day: START + day * DAY),
        st.none() | st.integers(0, 9).map(float),
        st.sampled_from(["1", "2"]),
    ),
    unique_by=lambda row: (row[0], row[1], row[2], row[4]),
    max_size=25,
)
VISITS = st.lists(
    st.tuples(
        st.sampled_from(["v1", "v2", "v3"]),
        PETS,
        HOURS,
        st.sampled_from([True, False, None]),
        OPS,
        HOURS,
        HOURS,
    ),
    max_size=12,
)
PET_VERSIONS = st.lists(
    st.tuples(PETS, OWNERS, OPS, HOURS, HOURS),
    max_size=8,
)
OWNER_VERSIONS = st.lists(
    st.tuples(OWNERS, OPS, HOURS, HOURS),
    max_size=8,
)


@settings(max_examples=settings.default.max_examples // 2)
@given(FEATURES, VISITS, PET_VERSIONS, OWNER_VERSIONS, HOURS)
def test_nothing_that_arrived_after_training_changes_the_training_set(
    features: list, visits: list, pets: list, owners: list, as_of: datetime
) -> None:
    """The same as if the world had ended at as_of, row by row, whatever came later."""
    pets = [("rex", "ann", "upsert", START, START), *pets]
    owners = [("ann", "upsert", START, START), *owners]
    everything = build(features, visits, pets, owners, as_of)
    known = build(
        [row for row in features if row[2] <= as_of],
        [row for row in visits if row[-1] <= as_of],
        [row for row in pets if row[-1] <= as_of],
        [row for row in owners if row[-1] <= as_of],
        as_of,
    )
    assert_same(everything, known)


@settings(max_examples=settings.default.max_examples // 2)
@given(VISITS, HOURS)
def test_what_is_known_of_a_day_does_not_change_with_later_arrivals(visits: list, as_of: datetime) -> None:
    """Inputs of a row (features, recency) rest on what had arrived by its own end_ts, even when the
    model is trained later; only its label may learn from the time between."""
    features = [feature("rex", day, float(day)) for day in range(14)]
    later = build(features, visits, as_of=START + 30 * DAY)
    early = build(features, [row for row in visits if row[-1] <= as_of], as_of=START + 30 * DAY)
    for end_ts, recency in inputs(early).items():
        if end_ts <= as_of and end_ts in inputs(later):
            assert inputs(later)[end_ts] == recency


def inputs(dataset: TrainingSet) -> dict[datetime, tuple[str, str]]:
    return {
        end: (str(row), f"{recency}")
        for end, row, recency in zip(
            dataset.features.end_ts.astype(object),
            dataset.features.values.tolist(),
            dataset.days_since_visit,
            strict=True,
        )
    }


def assert_same(left: TrainingSet, right: TrainingSet) -> None:
    assert left.features.versions == right.features.versions
    assert left.features.pet_ids.tolist() == right.features.pet_ids.tolist()
    assert left.owner_ids.tolist() == right.owner_ids.tolist()
    np.testing.assert_array_equal(left.features.end_ts, right.features.end_ts)
    np.testing.assert_array_equal(left.features.values, right.features.values)
    np.testing.assert_array_equal(left.days_since_visit, right.days_since_visit)
    assert left.labels.tolist() == right.labels.tolist()
    assert left.excluded == right.excluded
    assert left.content_hash() == right.content_hash()


def test_in_force_is_what_was_known_its_end_excluded() -> None:
    rows = table(RECORDS["owner_records"], [("ann", START, START + DAY), ("ben", START + DAY, None)])
    known = {day: in_force(rows, START + day * DAY)["owner_id"].to_pylist() for day in (-1, 0, 1, 9)}
    assert known == {-1: [], 0: ["ann"], 1: ["ben"], 9: ["ben"]}
