"""The dog registry of the City of Zurich: full snapshots of owners and their dogs.

Each `registry/zurich_YYYYMMDD_hundehalter.csv` is a COMPLETE extract of owners and
one of pets, extracted at that day's 00:00 UTC; the day's name is all the source
says about time, so `changed_at` is the same moment. A row is one dog; the owner's
columns repeat on each of the owner's rows.

Decisions:

- Owner: `owner_id` is HALTER_ID. Should rows of one owner differ in the owner's own
  columns, the content stated most often stands and each other row is reported.
- Dog: there is no id. The key is (owner, breed, birth year, sex, ordinal) as the
  file states them, an impossible year included, so that a corrected year is a new
  dog and nothing is guessed; only white space around the breed is dropped
  ("Podengo Portugues " is one breed with "Podengo Portugues"). The ordinal is the
  rank of the row's remaining content among rows with the same first four, so the
  order of rows in the file does not matter. When the lower of two such dogs leaves,
  the other takes its ordinal: without an id the source cannot say which left. Of
  16,208 dogs met again in the next snapshot this touches 5.
- A row that repeats another row of its snapshot in every column: set aside as
  `duplicate_row`. Nothing in the file tells two equal dogs of one owner from a row
  written twice. (Most repeats come back in the next snapshot, 28 of 28 from 2015 to
  2016 and 27 of 30 to 2017, which speaks for litter mates; the count of dogs is
  therefore a lower bound, by the number of rows set aside.)
- An impossible birth year (not a whole number, before 1900, after the snapshot's
  year, or making the dog older than 30): the dog is kept with a null `birth_year`
  and the row reported; payload and key keep what the file says.
- `breed_type` is the row's own RASSENTYP (K small, I list I, II list II); where the
  row leaves it empty, the registry's table of breeds fills it in; where both speak
  and differ, the row stands and is reported.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from contracts.records import canonical_json
from ingestion.extracts.build import Draft, build_extract
from ingestion.extracts.files import CsvRow, SourceFile, find_sources, read_csv, read_source
from ingestion.extracts.model import Problem, RecordExtract, SourceFormatError, SourceRead

SOURCE = "zurich-registry"
ROW_FEED = "pets"
SNAPSHOTS = "registry/zurich_*_hundehalter.csv"
BREED_TYPES = "registry/zurich_zuordnungstabelle_hunderasse_hundetyp.csv"

OWNER_COLUMNS = ("HALTER_ID", "ALTER", "GESCHLECHT", "STADTKREIS", "STADTQUARTIER")
DOG_COLUMNS = (
    "RASSE1",
    "RASSE1_MISCHLING",
    "RASSE2",
    "RASSE2_MISCHLING",
    "RASSENTYP",
    "GEBURTSJAHR_HUND",
    "GESCHLECHT_HUND",
    "HUNDEFARBE",
)

MIN_BIRTH_YEAR = 1900
MAX_AGE_YEARS = 30
SEXES = {"w": "female", "m": "male", "": None}


def read_registry(data_dir: Path) -> SourceRead:
    """All snapshots as complete extracts of owners and pets, in the order of their days.

    Raises MissingSourceError, MissingColumnError or SourceFormatError before any
    extract is handed over.
    """
    types_file = read_source(data_dir, BREED_TYPES)
    breed_types, lookup_rows, problems = read_breed_types(types_file)
    extracts: list[RecordExtract] = []
    rows_read: dict[str, int] = {}
    for file in find_sources(data_dir, SNAPSHOTS):
        snapshot = read_snapshot(file, types_file, breed_types)
        extracts += snapshot.extracts
        problems += snapshot.problems
        rows_read |= snapshot.rows_read
    return SourceRead(ROW_FEED, extracts, problems, rows_read, {types_file.name: lookup_rows})


def read_breed_types(file: SourceFile) -> tuple[dict[str, str], int, list[Problem]]:
    """The registry's table of breeds as {breed: type code}, rows read, and rows that say nothing new.

    Breeds without a type in the table are left out: the table knows them and says nothing.
    """
    table = read_csv(file, ["HUNDERASSE", "HUNDERASSENTYP_KURZ"])
    problems = list(table.problems)
    seen: dict[str, str] = {}
    for line, row in table.rows:
        breed, code = row["HUNDERASSE"].strip(), row["HUNDERASSENTYP_KURZ"].strip()
        if breed in seen:
            differs = seen[breed] != code
            reason = "contradicting_row" if differs else "duplicate_row"
            problems.append(Problem(file.name, line, reason, f"breed '{breed}' is listed before"))
        else:
            seen[breed] = code
    return {breed: code for breed, code in seen.items() if code}, table.rows_read, problems


def read_snapshot(file: SourceFile, types_file: SourceFile, breed_types: Mapping[str, str]) -> SourceRead:
    """One snapshot as a complete extract of owners and one of pets."""
    extracted_at = snapshot_moment(file.name)
    table = read_csv(file, [*OWNER_COLUMNS, *DOG_COLUMNS])
    problems = list(table.problems)

    stated: list[tuple[int, CsvRow]] = []
    for line, row in table.rows:
        if row["HALTER_ID"].strip().isdigit():
            stated.append((line, row))
        else:
            problems.append(Problem(file.name, line, "missing_value", "HALTER_ID is not a number"))

    owner_drafts, owner_problems = _owners(file.name, extracted_at, stated)
    distinct, duplicates = _without_repeats(file.name, stated)
    pet_drafts, pet_problems = _pets(file.name, extracted_at, distinct, breed_types)
    problems += owner_problems + duplicates + pet_problems

    extracts = []
    for feed, drafts, files in (
        ("owners", owner_drafts, [file]),
        ("pets", pet_drafts, [file, types_file]),
    ):
        extract, faults = build_extract(
            SOURCE,
            feed,
            drafts,
            files=files,
            complete=True,
            extracted_at=extracted_at,
            states_rows=feed == ROW_FEED,
        )
        extracts.append(extract)
        problems += faults
    return SourceRead(ROW_FEED, extracts, problems, {file.name: table.rows_read})


def snapshot_moment(name: str) -> datetime:
    """00:00 UTC of the day in a snapshot's file name. Raises SourceFormatError when there is none."""
    match = re.search(r"zurich_(\d{8})_hundehalter\.csv$", name)
    try:
        return datetime.strptime(match[1], "%Y%m%d") if match else _no_day(name)
    except ValueError:
        return _no_day(name)


def _no_day(name: str) -> datetime:
    raise SourceFormatError(f"{name} does not carry its day; name it zurich_YYYYMMDD_hundehalter.csv")


def impossible_birth_year(text: str, snapshot_year: int) -> str | None:
    """Why a dog of a snapshot cannot be born in this year, or None when it can."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        return "is not a whole number"
    year = int(text)
    if year < MIN_BIRTH_YEAR:
        return f"{year} is before {MIN_BIRTH_YEAR}"
    if year > snapshot_year:
        return f"{year} is after the snapshot of {snapshot_year}"
    if snapshot_year - year > MAX_AGE_YEARS:
        return f"{year} makes the dog older than {MAX_AGE_YEARS} years in {snapshot_year}"
    return None


def _owners(
    name: str, extracted_at: datetime, rows: Sequence[tuple[int, CsvRow]]
) -> tuple[list[Draft], list[Problem]]:
    by_owner: dict[str, list[tuple[int, tuple[str, ...]]]] = defaultdict(list)
    for line, row in rows:
        content = tuple(row[column].strip() for column in OWNER_COLUMNS)
        by_owner[content[0]].append((line, content))
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for owner_id, statements in by_owner.items():
        counts = Counter(content for _, content in statements)
        standing = min(counts, key=lambda content: (-counts[content], content))
        line = min(line for line, content in statements if content == standing)
        for other_line, content in statements:
            if content != standing:
                detail = "the owner's columns differ from the owner's other rows, which stand"
                problems.append(Problem(name, other_line, "owner_differs", detail, set_aside=False))
        _, age_band, sex, district, quarter = standing
        if sex not in SEXES:
            problems.append(Problem(name, line, "unknown_code", "GESCHLECHT is unknown", set_aside=False))
        record = {
            "business_key": owner_id,
            "op": "snapshot",
            "changed_at": extracted_at,
            "payload": canonical_json(dict(zip(OWNER_COLUMNS, standing, strict=True))),
            "owner_id": owner_id,
            "district": district or None,
            "quarter": quarter or None,
            "age_band": age_band or None,
            "sex": SEXES.get(sex),
        }
        drafts.append(Draft(name, line, record))
    return drafts, problems


def _without_repeats(
    name: str, rows: Sequence[tuple[int, CsvRow]]
) -> tuple[list[tuple[int, CsvRow]], list[Problem]]:
    first_line: dict[tuple[str, ...], int] = {}
    distinct: list[tuple[int, CsvRow]] = []
    problems: list[Problem] = []
    for line, row in rows:
        content = tuple(row.values())
        if content in first_line:
            detail = f"repeats line {first_line[content]} in every column"
            problems.append(Problem(name, line, "duplicate_row", detail))
        else:
            first_line[content] = line
            distinct.append((line, row))
    return distinct, problems


def _pets(
    name: str,
    extracted_at: datetime,
    rows: Sequence[tuple[int, CsvRow]],
    breed_types: Mapping[str, str],
) -> tuple[list[Draft], list[Problem]]:
    alike: dict[tuple[str, ...], list[tuple[tuple[str, ...], int, CsvRow]]] = defaultdict(list)
    for line, row in rows:
        key = tuple(
            row[column].strip() for column in ("HALTER_ID", "RASSE1", "GEBURTSJAHR_HUND", "GESCHLECHT_HUND")
        )
        alike[key].append((tuple(row[column] for column in DOG_COLUMNS), line, row))
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for key, dogs in alike.items():
        for ordinal, (_, line, row) in enumerate(sorted(dogs, key=lambda dog: dog[0]), start=1):
            record, notes = _pet(key, ordinal, row, extracted_at, breed_types)
            drafts.append(Draft(name, line, record))
            problems += [Problem(name, line, reason, detail, set_aside=False) for reason, detail in notes]
    return drafts, problems


def _pet(
    key: tuple[str, ...],
    ordinal: int,
    row: CsvRow,
    extracted_at: datetime,
    breed_types: Mapping[str, str],
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    owner_id, breed, birth_year, sex = key
    notes: list[tuple[str, str]] = []
    impossible = impossible_birth_year(birth_year, extracted_at.year)
    if impossible:
        notes.append(("impossible_birth_year", f"GEBURTSJAHR_HUND {impossible}; birth_year is null"))
    if sex not in SEXES:
        notes.append(("unknown_code", "GESCHLECHT_HUND is unknown; sex is null"))
    own_type, table_type = row["RASSENTYP"].strip(), breed_types.get(breed)
    if own_type and table_type and own_type != table_type:
        detail = f"RASSENTYP '{own_type}' stands; the table of breeds says '{table_type}'"
        notes.append(("breed_type_differs", detail))
    crossed = bool(row["RASSE1_MISCHLING"].strip() or row["RASSE2"].strip() or breed.startswith("Mischling"))
    pet_id = ":".join(("zurich", owner_id, breed, birth_year, sex, str(ordinal)))
    record: dict[str, object] = {
        "business_key": pet_id,
        "op": "snapshot",
        "changed_at": extracted_at,
        "payload": canonical_json(row),
        "pet_id": pet_id,
        "owner_id": owner_id,
        "species": "dog",
        "breed": breed or None,
        "breed_type": own_type or table_type,
        "is_crossbreed": crossed,
        "birth_year": None if impossible else int(birth_year),
        "sex": SEXES.get(sex),
        "color": row["HUNDEFARBE"].strip() or None,
    }
    return record, notes
