"""Training sets and scores on Snowflake are those of the embedded warehouse, on the emulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from infrastructure.snowflake_emulator.local import LocalEmulator
from ml.datasets import TrainingSet, forget_superseded_features, read_feature_ends, read_training_set
from ml.errors import DatasetError, FeatureVersionError
from ml.scoring import SCORES_SCHEMA, SCORES_TABLE, forget_scores, score_days, write_scores
from ml.warehouse import DuckDBWarehouse, SnowflakeWarehouse, Warehouse

START, DAY = datetime(2026, 6, 1), timedelta(days=1)
DAYS = 10
AS_OF = START + DAYS * DAY
DATES = [date(2026, 6, 1) + number * DAY for number in range(DAYS)]
# What LIKE and formats of strings would take for their own is a letter like any other here.
PETS = ["it's", "100%", "a?b", *(f"p{number}" for number in range(9))]

COLUMNS = {
    "ml.computed_features": (
        "pet_id varchar, feature_name varchar, feature_version varchar, end_ts timestamp, event_date date, value double"
    ),
    "ml.feature_catalogue": "feature_name varchar, feature_version varchar, status varchar",
    "ml.visit_records": "visit_id varchar, pet_id varchar, visit_ts timestamp, is_unplanned boolean",
    "ml.pet_records": "pet_id varchar, owner_id varchar",
    "ml.owner_records": "owner_id varchar",
}
KNOWN = "known_from timestamp, known_to timestamp"


def rows_of() -> dict[str, list[tuple[Any, ...]]]:
    """Features of two versions, some missing; a visit that arrives after training, one taken back before, an owner who no longer shares."""
    draws = np.random.default_rng(3)
    features: list[tuple[Any, ...]] = []
    for number in range(1, DAYS + 1):
        end = START + number * DAY
        for pet in PETS:
            for name in ("f0", "f1", "visits_365d"):
                value = None if draws.random() < 0.2 else float(draws.normal())
                features.append((pet, name, "v2", end, (end - DAY).date(), value))
            features.append((pet, "f0", "v1", end, (end - DAY).date(), 1.0))

    visits: list[tuple[Any, ...]] = []
    for number in range(6):
        moment, kind = START + number * DAY, [False, True, None][number % 3]
        visits.append((f"v{number}", PETS[number], moment, kind, moment, None))
    visits.append(("taken back", PETS[6], START + 4 * DAY, True, START + 4 * DAY, AS_OF))
    visits.append(("late", PETS[7], START + 4 * DAY, True, AS_OF + DAY, None))
    return {
        "ml.computed_features": features,
        "ml.feature_catalogue": [
            ("f0", "v1", "superseded"),
            *((n, "v2", "current") for n in ("f0", "f1", "visits_365d")),
        ],
        "ml.visit_records": visits,
        "ml.pet_records": [(pet, f"o{number % 4}", START, None) for number, pet in enumerate(PETS)],
        "ml.owner_records": [(f"o{number}", START, AS_OF if number == 3 else None) for number in range(4)],
    }


@dataclass
class Both:
    """The two warehouses with the same tables."""

    embedded: Warehouse
    account: Warehouse
    session: SnowflakeConnection


@pytest.fixture
def both(emulator: LocalEmulator, make_database: Callable[[str], str]) -> Iterator[Both]:
    database = make_database("file:///nowhere/landing/")
    with duckdb.connect() as con, emulator.connect(database, "RAW") as session, session.cursor() as cursor:
        con.execute("create schema ml")
        for table, rows in rows_of().items():
            columns = COLUMNS[table] + (f", {KNOWN}" if table.endswith("_records") else "")
            width = columns.count(",") + 1
            con.execute(f"create table {table} ({columns})")
            con.executemany(f"insert into {table} values ({', '.join('?' * width)})", rows)
            cursor.execute(f"create table {table} ({columns})")
            cursor.executemany(f"insert into {table} values ({', '.join(['%s'] * width)})", rows)
        yield Both(DuckDBWarehouse(con), SnowflakeWarehouse(session), session)


def training_set(warehouse: Warehouse, features: list[str] | None = None) -> TrainingSet:
    return read_training_set(warehouse, as_of=AS_OF, labels_until=AS_OF, horizon_days=2, features=features)


def champion(**feature_versions: str) -> Any:
    """What scoring asks of a champion; the risk is a function of the features alone."""
    model = SimpleNamespace(predict_risk=lambda values: np.nan_to_num(values).sum(axis=1))
    return SimpleNamespace(
        name="visit-risk-7d",
        version=3,
        feature_version="abc",
        feature_versions=feature_versions or {"f0": "v2", "f1": "v2"},
        model=model,
    )


@pytest.mark.parametrize("features", [None, ["f1", "f0"]])
def test_the_training_set_is_the_same(both: Both, features: list[str] | None) -> None:
    here, there = training_set(both.embedded, features), training_set(both.account, features)
    assert here.content_hash() == there.content_hash()
    assert here.excluded == there.excluded
    assert here.excluded["no_consent"] > 0
    assert here.labels.sum() > 0
    assert len(here) > 50
    np.testing.assert_array_equal(here.owner_ids, there.owner_ids)
    np.testing.assert_array_equal(here.days_since_visit, there.days_since_visit)
    with pytest.raises(DatasetError, match="no rows of f9"):
        training_set(both.account, ["f0", "f9"])


def test_scores_are_the_same_and_days_are_replaced(both: Both) -> None:
    assert (
        read_feature_ends(both.account)
        == read_feature_ends(both.embedded)
        == [START + number * DAY for number in range(1, DAYS + 1)]
    )
    for days in (DATES, DATES[:3], DATES[:3]):
        tables = []
        for warehouse in (both.embedded, both.account):
            scores = score_days(warehouse, champion(), days)
            assert scores.table.num_rows > 0
            write_scores(warehouse, scores.table, days)
            stored = (
                f"select {', '.join(SCORES_SCHEMA.names)} from {SCORES_TABLE} order by event_date, pet_id"
            )
            tables.append(warehouse.select(stored, [], SCORES_SCHEMA))
        assert tables[0].equals(tables[1])
        assert set(tables[0]["event_date"].to_pylist()) == {*DATES}
    for warehouse in (both.embedded, both.account):
        write_scores(warehouse, SCORES_SCHEMA.empty_table(), DATES[1:])
    kept = f"select distinct event_date from {SCORES_TABLE}"
    assert both.account.select(kept, [], pa.schema([SCORES_SCHEMA.field("event_date")])).to_pylist() == [
        {"event_date": DATES[0]}
    ]


def test_a_feature_at_another_version_is_refused(both: Both) -> None:
    with pytest.raises(FeatureVersionError, match="train again"):
        score_days(both.account, champion(f1="v7"), DATES)


def test_what_an_erasure_takes_is_the_same(both: Both) -> None:
    for warehouse in (both.embedded, both.account):
        write_scores(warehouse, score_days(warehouse, champion(), DATES).table, DATES)
    for pets, days in (([], []), (["it's"], []), ([], DATES[4:6]), (["100%", "a?b"], DATES[:1])):
        assert forget_scores(both.account, pets, days) == forget_scores(both.embedded, pets, days)
        superseded = forget_superseded_features(both.embedded, pets, days)
        assert forget_superseded_features(both.account, pets, days) == superseded
        assert (superseded > 0) == bool(pets or days)


def test_a_failed_replacement_leaves_what_was_there(both: Both) -> None:
    scores = score_days(both.account, champion(), DATES)
    write_scores(both.account, scores.table, DATES)
    with both.session.cursor() as cursor:
        cursor.execute(f"alter table {SCORES_TABLE} rename column scored_on to other")
    with pytest.raises(ProgrammingError, match=r"(?i)scored_on"):
        write_scores(both.account, scores.table, DATES)
    with both.session.cursor() as cursor:
        cursor.execute(f"select count(*) as row_count from {SCORES_TABLE}")
        assert cursor.fetchall() == [(scores.table.num_rows,)]


def test_tables_that_are_not_there(both: Both) -> None:
    assert both.account.has(SCORES_TABLE)
    with both.session.cursor() as cursor:
        cursor.execute(f"drop table {SCORES_TABLE}")
        cursor.execute("drop table ml.computed_features")
    assert not both.account.has(SCORES_TABLE)
    assert forget_scores(both.account, ["p1"], DATES) == 0
    assert forget_superseded_features(both.account, ["p1"], DATES) == 0
