"""Breeds, cats and trackers: reference figures, collars and when they were on, trackers on no pet."""

import gzip
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from ingestion.extracts import breeds, cats, tracker
from ingestion.extracts.model import MissingColumnError, SourceFormatError, SourceRead

BREEDS = """,temperament,min_height,max_height,min_weight,max_weight,min_expectancy,max_expectancy,group
Affenpinscher,"Confident, Funny",22.86,29.25,3.17514659,4.535923700000001,12.0,15.0,Toy Group
Löwchen,,30.48,35.56,0.0,0.0,,,Non-Sporting Group
Lowchen,,30.48,35.56,1,2,,,Non-Sporting Group
Odd,,30,20,x,2,,,Toy Group
"""
CATS = """tag_id,animal_id,animal_taxon,deploy_on_date,deploy_off_date,animal_reproductive_condition,animal_sex,age_years
Tom-Tag,Tom,Felis catus,2017-06-03 01:02:09,2017-06-10 02:10:52,Neutered,m,11
Ada,Ada,Felis catus,2017-06-24 01:02:13,2017-06-30 23:59:32,NA,f,NA
Tom-Tag,Other,Felis catus,2017-07-03 01:02:09,2017-07-10 02:10:52,Neutered,m,11
Bad,Bad,Felis catus,2017-06-24,2017-06-30 23:59:32,Spayed,f,3
Eve,Eve,Felis catus,2017-06-24 01:02:13,2017-06-23 23:59:32,Spayed,f,3
Leo,Leo,Panthera leo,2017-06-24 01:02:13,2017-06-24 01:02:13,Maned,m,3
"""


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def by_feed(read: SourceRead) -> dict[str, dict[str, dict[str, Any]]]:
    return {one.feed: {row["business_key"]: row for row in one.table.to_pylist()} for one in read.extracts}


def accounted(read: SourceRead) -> bool:
    records = sum(one.table.num_rows for one in read.extracts if one.feed == read.row_feed)
    return records + sum(problem.set_aside for problem in read.problems) == sum(read.rows_read.values())


def reasons(read: SourceRead) -> list[tuple[int, str, bool]]:
    return sorted((problem.row, problem.reason, problem.set_aside) for problem in read.problems)


def test_breed_figures_are_rounded_to_their_columns_and_zero_is_not_known(tmp_path: Path) -> None:
    read = breeds.read_breeds(write(tmp_path, breeds.FILE, BREEDS))
    found = by_feed(read)["breeds"]
    assert sorted(found) == ["akc:affenpinscher", "akc:lowchen"]
    first = found["akc:affenpinscher"]
    assert (first["min_weight_kg"], first["max_weight_kg"]) == (Decimal("3.175"), Decimal("4.536"))
    # 29.25 is half way: half to even.
    assert (first["min_height_cm"], first["max_height_cm"]) == (Decimal("22.9"), Decimal("29.2"))
    assert '"max_weight":"4.535923700000001"' in first["payload"]
    assert '"breed":"Affenpinscher"' in first["payload"]
    assert found["akc:lowchen"]["breed"] == "Löwchen"
    assert found["akc:lowchen"]["min_weight_kg"] is None
    assert reasons(read) == [
        (3, "not_positive", False),
        (3, "not_positive", False),
        (4, "duplicate_key", True),
        (5, "invalid_value", False),
        (5, "invalid_value", True),
    ]
    assert accounted(read)


def test_cats_wear_their_collar_until_the_last_second(tmp_path: Path) -> None:
    read = cats.read_cats(write(tmp_path, cats.FILE, CATS))
    feeds = by_feed(read)
    assignment = feeds["device_assignments"]["Tom-Tag:2017-06-03T01:02:09"]
    assert (assignment["device_id"], assignment["pet_id"]) == ("Tom-Tag", "movebank:Tom")
    assert assignment["assigned_from"] == datetime(2017, 6, 3, 1, 2, 9)
    assert assignment["assigned_to"] == datetime(2017, 6, 10, 2, 10, 53)
    assert sorted(feeds["devices"]) == ["Ada", "Leo", "Tom-Tag"]
    pets = feeds["pets"]
    assert {key: (row["species"], row["sex"], row["neutered"]) for key, row in pets.items()} == {
        "movebank:Tom": ("cat", "male", True),
        "movebank:Ada": ("cat", "female", None),
        "movebank:Leo": (None, "male", None),
    }
    assert reasons(read) == [
        (4, "duplicate_key", True),
        (5, "invalid_value", True),
        (6, "invalid_value", True),
        (7, "unknown_code", False),
        (7, "unknown_code", False),
    ]
    assert accounted(read)


def test_a_missing_column_of_the_cats_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match=f"{cats.FILE} lacks the column 'deploy_off_date'"):
        cats.read_cats(write(tmp_path, cats.FILE, CATS.replace("deploy_off_date", "off")))


def ndjson(*frames: Any) -> bytes:
    return gzip.compress(
        b"".join(f if isinstance(f, bytes) else json.dumps(f).encode() + b"\n" for f in frames)
    )


def test_trackers_are_devices_that_no_pet_wears(tmp_path: Path) -> None:
    frames = [
        {"dev_eui": "E1", "name": "new", "_timestamp": 1630589956209},
        {"dev_eui": "E1", "name": "old", "_timestamp": 1630589706724},
        {"dev_eui": "E2", "_timestamp": 1630589706725},
        {"dev_eui": 3, "_timestamp": 1630589706726},
    ]
    read = tracker.read_trackers(write(tmp_path, tracker.FILE, ndjson(*frames)))
    assert [one.feed for one in read.extracts] == ["devices"]
    devices = by_feed(read)["devices"]
    assert sorted(devices) == ["E1", "E2"]
    assert devices["E1"]["payload"] == '{"dev_eui":"E1","names":["new","old"]}'
    assert devices["E1"]["changed_at"] == datetime(2021, 9, 2, 13, 35, 6, 724_000)
    assert devices["E1"]["expected_events_per_day"] is None
    assert read.extracts[0].extracted_at == datetime(2021, 9, 2, 13, 39, 16, 209_000)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"{}")[:-4]], ids=["no gzip", "cut short"])
def test_a_file_that_is_no_whole_gzip_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceFormatError, match=f"{tracker.FILE} is not a whole gzip file"):
        tracker.read_trackers(write(tmp_path, tracker.FILE, content))
