"""The shelter: stays as visits of animals that return, days as moments, impossible dates."""

import io
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ingestion.extracts.model import MissingColumnError, MissingSourceError, SourceFormatError, SourceRead
from ingestion.extracts.shelter import (
    ANIMAL_COLUMNS,
    CLINIC_ID,
    FILE,
    STAY_COLUMNS,
    local_midnight,
    read_shelter,
)

TYPES = {name: pa.string() for name in (*ANIMAL_COLUMNS, *STAY_COLUMNS, "crossing")} | {
    name: pa.date32() for name in ("dob", "intake_date", "outcome_date")
}


def stay(
    animal_id: str | None, intake: date | None, outcome: date | None = None, **changes: Any
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TYPES)
    row |= {
        "animal_id": animal_id,
        "animal_type": "dog",
        "primary_color": "tan",
        "sex": "Spayed",
        "intake_date": intake,
        "intake_type": "stray",
        "outcome_date": outcome,
        "outcome_type": "adoption" if outcome else None,
        "crossing": "1 BLK MAIN ST",
    }
    return row | changes


STAYS = [
    stay("A2", date(2024, 7, 1), date(2024, 7, 1), dob=date(2024, 7, 2), secondary_color="white"),
    stay("A1", date(2023, 1, 5), date(2023, 2, 1)),
    stay("A1", date(2024, 1, 5)),
    stay("A1", date(2023, 1, 5), date(2023, 1, 5), outcome_type="duplicate"),
    stay("A3", None),
    stay(None, date(2023, 1, 5)),
    stay("A1", date(2023, 1, 5), date(2023, 2, 1)),
]


def write(folder: Path, stays: list[dict[str, Any]], without: str | None = None) -> Path:
    path = folder / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, kind) for name, kind in TYPES.items() if name != without])
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(stays, schema=schema), out)
    path.write_bytes(out.getvalue())
    return folder


def by_feed(read: SourceRead) -> dict[str, list[dict[str, Any]]]:
    return {one.feed: one.table.to_pylist() for one in read.extracts}


def test_animals_that_return_have_one_history_of_visits(tmp_path: Path) -> None:
    read = read_shelter(write(tmp_path, STAYS))
    feeds = by_feed(read)
    visits = {row["visit_id"]: row for row in feeds["clinic_visits"]}
    assert sorted(visits) == [
        "longbeach:A1:2023-01-05:1",
        "longbeach:A1:2023-01-05:2",
        "longbeach:A1:2024-01-05:1",
        "longbeach:A2:2024-07-01:1",
    ]
    assert {row["pet_id"] for row in feeds["pets"]} == {"longbeach:A1", "longbeach:A2"}
    assert {row["pet_id"] for row in visits.values()} == {row["pet_id"] for row in feeds["pets"]}
    assert {row["clinic_id"] for row in visits.values()} == {CLINIC_ID} == {feeds["clinics"][0]["clinic_id"]}
    assert {row["is_unplanned"] for row in visits.values()} == {None}
    on_one_day = [visits[f"longbeach:A1:2023-01-05:{ordinal}"]["status"] for ordinal in (1, 2)]
    assert sorted(on_one_day) == ["cancelled", "completed"]
    assert visits["longbeach:A1:2024-01-05:1"]["status"] is None
    assert visits["longbeach:A1:2024-01-05:1"]["visit_end_ts"] is None


def test_rows_are_visits_or_problems(tmp_path: Path) -> None:
    read = read_shelter(write(tmp_path, STAYS))
    found = sorted((problem.row, problem.reason, problem.set_aside) for problem in read.problems)
    assert found == [
        (1, "impossible_dob", False),
        (4, "marked_duplicate", False),
        (5, "missing_value", True),
        (6, "missing_value", True),
        (7, "duplicate_row", True),
    ]
    assert read.rows_read == {FILE: 7}
    assert len(by_feed(read)[read.row_feed]) + sum(problem.set_aside for problem in read.problems) == 7


def test_pets_carry_what_the_shelter_says(tmp_path: Path) -> None:
    pets = {row["pet_id"]: row for row in by_feed(read_shelter(write(tmp_path, STAYS)))["pets"]}
    pet = pets["longbeach:A2"]
    assert (pet["species"], pet["sex"], pet["neutered"], pet["color"]) == ("dog", "female", True, "tan/white")
    assert pet["dob"] is None
    assert '"dob":"2024-07-02"' in pet["payload"]


def test_visit_ids_do_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    def visits(stays: list[dict[str, Any]]) -> dict[str, str]:
        rows = by_feed(read_shelter(write(tmp_path, stays)))["clinic_visits"]
        return {row["visit_id"]: row["payload"] for row in rows}

    assert visits(STAYS[::-1]) == visits(STAYS)


def test_a_day_is_its_local_midnight_and_keeps_its_date(tmp_path: Path) -> None:
    assert local_midnight(date(2024, 1, 5)) == datetime(2024, 1, 5, 8)
    assert local_midnight(date(2024, 7, 1)) == datetime(2024, 7, 1, 7)
    read = read_shelter(write(tmp_path, STAYS))
    visits = {row["visit_id"]: row for row in by_feed(read)["clinic_visits"]}
    same_day = visits["longbeach:A2:2024-07-01:1"]
    assert same_day["visit_ts"] == same_day["visit_end_ts"] == datetime(2024, 7, 1, 7)
    assert {one.extracted_at for one in read.extracts} == {datetime(2024, 7, 2, 7)}
    assert not any(one.complete for one in read.extracts)


def test_an_end_before_the_start_is_set_aside(tmp_path: Path) -> None:
    read = read_shelter(write(tmp_path, [stay("A1", date(2024, 7, 2), date(2024, 7, 1)), *STAYS]))
    faults = [problem for problem in read.problems if problem.reason == "invalid_value"]
    assert [(problem.row, problem.set_aside) for problem in faults] == [(1, True)]
    assert "visit_end_ts" in faults[0].detail


def test_an_animal_stated_in_two_ways_is_the_one_stated_most_often(tmp_path: Path) -> None:
    rows = [
        stay("A1", date(2023, day, day), sex=sex)
        for day, sex in ((1, "Male"), (2, "Neutered"), (3, "Neutered"))
    ]
    read = read_shelter(write(tmp_path, rows))
    assert by_feed(read)["pets"][0]["neutered"] is True
    assert [(problem.row, problem.reason) for problem in read.problems] == [(1, "animal_differs")]


def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingSourceError, match=FILE):
        read_shelter(tmp_path)
    with pytest.raises(MissingColumnError, match=f"{FILE} lacks the column 'outcome_date'"):
        read_shelter(write(tmp_path, STAYS, without="outcome_date"))
    with pytest.raises(SourceFormatError, match="no stay"):
        read_shelter(write(tmp_path, [stay("A3", None)]))
    (tmp_path / FILE).write_bytes(b"no parquet")
    with pytest.raises(SourceFormatError, match=f"{FILE} is not a Parquet file"):
        read_shelter(tmp_path)
