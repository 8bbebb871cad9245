"""The registry: owners, dogs without an id, repeats, impossible years, and rows accounted for."""

import random
from datetime import datetime
from pathlib import Path

import pytest

from ingestion.extracts.files import SourceFile
from ingestion.extracts.model import MissingColumnError, Problem, RecordExtract, SourceFormatError, SourceRead
from ingestion.extracts.zurich import (
    BREED_TYPES,
    DOG_COLUMNS,
    OWNER_COLUMNS,
    impossible_birth_year,
    read_breed_types,
    read_registry,
    read_snapshot,
    snapshot_moment,
)

HEADER = ",".join((*OWNER_COLUMNS, *DOG_COLUMNS))
NAME = "registry/zurich_20160307_hundehalter.csv"
TYPES = SourceFile(
    BREED_TYPES,
    "\ufeffHUNDERASSE,HUNDERASSENTYP_KURZ\nPudel,\nMops,K\nMops,K\nMops,I\nDogge,I\n".encode(),
)
ROWS = [
    '1,"51-60","m",9,"92","Mops",,,,"K",2011,"w","schwarz"',
    '1,"51-60","m",9,"92","Mops",,,,"K",2011,"w","braun"',
    '1,"51-60","m",9,"92","Mops",,,,"K",2011,"w","braun"',
    '2,"21-30","w",,,"Podengo ",,,,,5012,"m","weiss"',
    '3,"21-30","w",7,"71","Mops","Mischling",,,,2016,"m","weiss"',
    '3,"21-30","w",7,"71","Dogge",,"Mops",,"K",1985,"x","weiss"',
    'x,"21-30","w",7,"71","Mops",,,,"K",2010,"m","weiss"',
    "4,short",
]


def snapshot(rows: list[str], name: str = NAME) -> SourceRead:
    file = SourceFile(name, ("\ufeff" + "\n".join([HEADER, *rows]) + "\n").encode())
    return read_snapshot(file, TYPES, read_breed_types(TYPES)[0])


def records(extract: RecordExtract) -> dict[str, dict[str, object]]:
    return {row["business_key"]: row for row in extract.table.to_pylist()}


def reasons(problems: list[Problem]) -> list[tuple[int, str, bool]]:
    return sorted((problem.row, problem.reason, problem.set_aside) for problem in problems)


def test_a_snapshot_is_a_complete_extract_of_owners_and_of_pets() -> None:
    owners, pets = snapshot(ROWS).extracts
    assert [(one.source, one.feed, one.complete) for one in (owners, pets)] == [
        ("zurich-registry", "owners", True),
        ("zurich-registry", "pets", True),
    ]
    for one in (owners, pets):
        assert one.extracted_at == datetime(2016, 3, 7)
        rows = one.table.to_pylist()
        assert {(row["op"], row["changed_at"]) for row in rows} == {("snapshot", datetime(2016, 3, 7))}
    assert {key: row["district"] for key, row in records(owners).items()} == {"1": "9", "2": None, "3": "7"}
    assert records(owners)["1"]["sex"] == "male"
    assert records(owners)["1"]["age_band"] == "51-60"


def test_a_dog_is_known_by_owner_breed_year_sex_and_ordinal() -> None:
    pets = records(snapshot(ROWS).extracts[1])
    assert {key: (row["color"], row["birth_year"]) for key, row in pets.items()} == {
        "zurich:1:Mops:2011:w:1": ("braun", 2011),
        "zurich:1:Mops:2011:w:2": ("schwarz", 2011),
        "zurich:2:Podengo:5012:m:1": ("weiss", None),
        "zurich:3:Mops:2016:m:1": ("weiss", 2016),
        "zurich:3:Dogge:1985:x:1": ("weiss", None),
    }
    assert {row["pet_id"] for row in pets.values()} == pets.keys()
    assert '"GEBURTSJAHR_HUND":"5012"' in str(pets["zurich:2:Podengo:5012:m:1"]["payload"])
    assert '"RASSE1":"Podengo "' in str(pets["zurich:2:Podengo:5012:m:1"]["payload"])
    crossed = {key: row["is_crossbreed"] for key, row in pets.items()}
    assert [key for key, value in crossed.items() if value] == [
        "zurich:3:Mops:2016:m:1",
        "zurich:3:Dogge:1985:x:1",
    ]


def test_the_order_of_rows_changes_nothing_but_the_lines() -> None:
    def content(rows: list[str]) -> list[list[dict[str, object]]]:
        tables = [one.table.to_pylist() for one in snapshot(rows).extracts]
        return [sorted(table, key=lambda row: str(row["business_key"])) for table in tables]

    for seed in range(5):
        shuffled = random.Random(seed).sample(ROWS, len(ROWS))
        assert content(shuffled) == content(ROWS)


def test_what_does_not_fit_is_reported_with_its_line() -> None:
    read = snapshot(ROWS)
    assert reasons(read.problems) == [
        (4, "duplicate_row", True),
        (5, "impossible_birth_year", False),
        (7, "breed_type_differs", False),
        (7, "impossible_birth_year", False),
        (7, "unknown_code", False),
        (8, "missing_value", True),
        (9, "malformed_row", True),
    ]
    assert {problem.file for problem in read.problems} == {NAME}
    set_aside = [problem for problem in read.problems if problem.set_aside]
    assert read.rows_read == {NAME: len(ROWS)}
    assert read.extracts[1].table.num_rows + len(set_aside) == len(ROWS)


def test_the_breed_type_of_the_row_stands_and_the_table_fills_gaps() -> None:
    pets = records(snapshot(ROWS).extracts[1])
    assert pets["zurich:3:Dogge:1985:x:1"]["breed_type"] == "K"
    assert pets["zurich:3:Mops:2016:m:1"]["breed_type"] == "K"
    assert pets["zurich:2:Podengo:5012:m:1"]["breed_type"] is None


def test_the_table_of_breeds_reports_what_it_lists_again() -> None:
    types, rows, problems = read_breed_types(TYPES)
    assert types == {"Mops": "K", "Dogge": "I"}
    assert rows == 5
    assert reasons(problems) == [(4, "duplicate_row", True), (5, "contradicting_row", True)]


def test_an_owner_stated_in_two_ways_is_the_one_stated_most_often() -> None:
    rows = [
        '1,"51-60","m",9,"92","Mops",,,,"K",2011,"w","schwarz"',
        '1,"51-60","m",8,"81","Mops",,,,"K",2012,"w","schwarz"',
        '1,"51-60","m",9,"92","Mops",,,,"K",2013,"w","schwarz"',
    ]
    read = snapshot(rows)
    assert records(read.extracts[0])["1"]["district"] == "9"
    assert reasons(read.problems) == [(3, "owner_differs", False)]
    assert read.extracts[1].table.num_rows == 3


@pytest.mark.parametrize(
    ("year", "possible"),
    [
        ("2016", True),
        ("1986", True),
        ("1985", False),
        ("1899", False),
        ("2017", False),
        ("0", False),
        ("5012", False),
        ("", False),
        ("-2011", False),
        ("2011.0", False),
        ("²011", False),
        ("9" * 5000, False),
    ],
)
def test_which_birth_years_are_possible(year: str, possible: bool) -> None:
    assert (impossible_birth_year(year, 2016) is None) is possible


def test_landing_again_gives_the_same_ids_and_another_content_others() -> None:
    def ids(rows: list[str]) -> list[str]:
        return [one.extract_id for one in snapshot(rows).extracts]

    assert ids(ROWS) == ids(ROWS)
    assert set(ids(ROWS)).isdisjoint(ids(ROWS[1:]))
    assert len(set(ids(ROWS))) == 2


def test_a_column_that_is_missing_stops_the_whole_registry(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / Path(BREED_TYPES).name).write_bytes(TYPES.content)
    (folder / "zurich_20151001_hundehalter.csv").write_text("\n".join([HEADER, *ROWS]))
    (folder / "zurich_20160307_hundehalter.csv").write_text(
        "\n".join([HEADER.replace("STADTKREIS", "KREIS"), *ROWS])
    )
    with pytest.raises(
        MissingColumnError, match=r"zurich_20160307_hundehalter\.csv lacks the column 'STADTKREIS'"
    ):
        read_registry(tmp_path)


def test_a_snapshot_without_a_day_in_its_name_is_refused() -> None:
    for name in ("registry/zurich_2016_hundehalter.csv", "registry/zurich_20161301_hundehalter.csv"):
        with pytest.raises(SourceFormatError, match="does not carry its day"):
            snapshot_moment(name)
