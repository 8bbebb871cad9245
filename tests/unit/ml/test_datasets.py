"""Training sets: what is known when, who is left out, and the shape of the feature matrix."""

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.datasets import TrainingSet, build_training_set, in_force, pivot_features, shares_research
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
CHANGE = [
    ("op", pa.string()),
    ("changed_at", pa.timestamp("us")),
    ("arrival_ts", pa.timestamp("us")),
    ("stream_id", pa.string()),
    ("kafka_partition", pa.int32()),
    ("kafka_offset", pa.int64()),
]
VISIT = pa.schema(
    [
        ("visit_id", pa.string()),
        ("pet_id", pa.string()),
        ("visit_ts", pa.timestamp("us")),
        ("status", pa.string()),
        ("is_unplanned", pa.bool_()),
        *CHANGE,
    ]
)
PET = pa.schema([("pet_id", pa.string()), ("owner_id", pa.string()), *CHANGE])
OWNER = pa.schema([("owner_id", pa.string()), ("consent_flags", pa.string()), *CHANGE])

SHARES = '{"share_research":{"at":"2026-05-01T00:00:00Z","value":true}}'
REFUSES = '{"share_research":{"at":"2026-05-01T00:00:00Z","value":false}}'


def table(schema: pa.Schema, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Records come in the order of their offsets."""
    if "kafka_offset" in schema.names:
        rows = [(*row, "stream", 0, offset) for offset, row in enumerate(rows)]
    return pa.table(
        [pa.array([row[i] for row in rows], field.type) for i, field in enumerate(schema)], schema=schema
    )


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
    changed = day if changed is None else changed
    arrived = changed if arrived is None else arrived
    return (
        visit_id,
        pet_id,
        START + day * DAY,
        status,
        unplanned,
        "delete" if deleted else "upsert",
        START + changed * DAY,
        START + arrived * DAY,
    )


def build(
    features: list[tuple],
    visits: list[tuple] = (),
    pets: list[tuple] = (("rex", "ann", "upsert", START, START),),
    owners: list[tuple] = (("ann", SHARES, "upsert", START, START),),
    as_of: datetime = AS_OF,
    labels_until: datetime | None = datetime.max,
) -> TrainingSet:
    return build_training_set(
        table(FEATURE, features),
        table(VISIT, list(visits)),
        table(PET, list(pets)),
        table(OWNER, list(owners)),
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


def test_households_that_refuse_research_and_pets_without_owner_stay_out() -> None:
    pets = [
        (pet, owner, "upsert", START, START) for pet, owner in (("rex", "ann"), ("bo", "ben"), ("kit", None))
    ]
    owners = [("ann", SHARES, "upsert", START, START), ("ben", REFUSES, "upsert", START, START)]
    features = [feature(pet, 1) for pet in ("rex", "bo", "kit", "stray")]
    dataset = build(features, pets=pets, owners=owners)
    assert dataset.features.pet_ids.tolist() == ["rex"]
    assert dataset.owner_ids.tolist() == ["ann"]
    assert (dataset.excluded["no_consent"], dataset.excluded["no_owner"]) == (1, 2)


def test_consent_is_the_owners_current_one_at_training_time() -> None:
    withdrawn = [
        ("ann", SHARES, "upsert", START, START),
        ("ann", REFUSES, "upsert", START + DAY, START + 13 * DAY),
    ]
    assert len(build([feature("rex", 1)], owners=withdrawn)) == 1
    assert len(build([feature("rex", 1)], owners=withdrawn, as_of=START + 13 * DAY)) == 0
    gone = [("ann", SHARES, "delete", START, START)]
    assert build([feature("rex", 1)], owners=gone).excluded["no_consent"] == 1


@pytest.mark.parametrize("known_anyway", ["age_years", "steps_mean_7d"])
def test_days_of_which_the_collar_says_nothing_are_counted_out(known_anyway: str) -> None:
    ages = [feature("rex", day, 4.0, known_anyway) for day in (1, 2, 3)]
    dataset = build([*ages, feature("rex", 1, None), feature("rex", 2, 1.0)])
    assert dataset.features.end_ts.astype(object).tolist() == [START + 2 * DAY]
    assert dataset.excluded["not_observed"] == 2


@pytest.mark.parametrize("flags", [None, "null", "{}", '{"email":{"value":false}}', SHARES])
def test_no_refusal_is_no_refusal(flags: str | None) -> None:
    assert shares_research(flags)


@pytest.mark.parametrize(
    "flags", ["", "[]", "7", '{"share_research":false}', '{"share_research":{"value":"no"}}']
)
def test_consent_that_cannot_be_read_is_an_error(flags: str) -> None:
    if flags == "[]":
        flags = '["share_research"]'
    with pytest.raises(DatasetError, match="consent_flags"):
        shares_research(flags)


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
        st.sampled_from(["completed", "scheduled"]),
        st.sampled_from([True, False, None]),
        OPS,
        HOURS,
        HOURS,
    ),
    max_size=12,
)
PET_VERSIONS = st.lists(
    st.tuples(PETS, st.none() | OWNERS, OPS, HOURS, HOURS),
    max_size=8,
)
OWNER_VERSIONS = st.lists(
    st.tuples(OWNERS, st.sampled_from([SHARES, REFUSES]), OPS, HOURS, HOURS),
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(FEATURES, VISITS, PET_VERSIONS, OWNER_VERSIONS, HOURS)
def test_nothing_that_arrived_after_training_changes_the_training_set(
    features: list, visits: list, pets: list, owners: list, as_of: datetime
) -> None:
    """The same as if the world had ended at as_of, row by row, whatever came later."""
    pets = [("rex", "ann", "upsert", START, START), *pets]
    owners = [("ann", SHARES, "upsert", START, START), *owners]
    everything = build(features, visits, pets, owners, as_of)
    known = build(
        [row for row in features if row[2] <= as_of],
        [row for row in visits if row[-1] <= as_of],
        [row for row in pets if row[-1] <= as_of],
        [row for row in owners if row[-1] <= as_of],
        as_of,
    )
    assert_same(everything, known)


@settings(max_examples=100, deadline=None)
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


@given(VISITS, HOURS)
def test_in_force_is_the_last_change_that_had_arrived(visits: list, known_at: datetime) -> None:
    rows = table(VISIT, visits)
    found = in_force(rows, "visit_id", known_at).to_pylist()
    known = [row for row in rows.to_pylist() if max(row["arrival_ts"], row["changed_at"]) <= known_at]
    latest = [
        max(
            (row for row in known if row["visit_id"] == key),
            key=lambda row: (row["changed_at"], row["arrival_ts"], row["kafka_offset"]),
        )
        for key in sorted({row["visit_id"] for row in known})
    ]
    assert found == [row for row in latest if row["op"] != "delete"]
