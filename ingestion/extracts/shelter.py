"""Long Beach Animal Care: intakes and outcomes of shelter animals as pets and clinic visits.

`visits/longbeach_animal_shelter.parquet` has one row per stay, 2017 to 2024.

Decisions:

- A stay is a visit of the animal at the clinic `long-beach-animal-care`; animals that
  return have several under one `pet_id`. `visit_id` is (animal, intake date,
  ordinal): 21 animals came in more than once on a day, so the ordinal ranks the
  rest of the row's content among the stays of that day, whatever the order of rows.
- Days, not moments: the source has dates without a time. A date becomes 00:00 in
  America/Los_Angeles as UTC (07:00 or 08:00), which keeps the date the same in both.
  A stay that ends on the day it began has `visit_end_ts = visit_ts`.
- `status` is `completed` once there is an outcome date; `cancelled` where the source
  itself marks the row as entered twice (outcome "duplicate", 31 rows, reported): the
  row stays as a visit, since some animals have no other; else null, still there.
- `visit_type` is the intake type, `reason` the stated reason for intake, `outcome` the
  outcome type; condition, subtypes and place stay in the payload. `is_unplanned` is
  null: a shelter's intake is neither, and the source does not say.
- An animal's own columns repeat on its rows and agree in all of them. Should they
  differ, the content stated most often stands and each other row is reported. Sex
  `Neutered` is a neutered male, `Spayed` a neutered female.
- A date of birth after the animal's first intake cannot be: null, and reported on the
  animal's first row.
- `extracted_at` is the end of the last day that the file names. A visit changed when
  its last date is, an animal when it first came in. The extracts are logs, not
  statements of what is absent: `complete` is false.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq

from contracts.records import canonical_json
from ingestion.extracts.build import Draft, build_extract
from ingestion.extracts.files import SourceFile, read_source
from ingestion.extracts.model import (
    MissingColumnError,
    Problem,
    RecordExtract,
    SourceFormatError,
    SourceRead,
)

SOURCE = "longbeach-shelter"
ROW_FEED = "clinic_visits"
FILE = "visits/longbeach_animal_shelter.parquet"
CLINIC_ID = "long-beach-animal-care"
TIMEZONE = "America/Los_Angeles"

ANIMAL_COLUMNS = (
    "animal_id",
    "animal_name",
    "animal_type",
    "primary_color",
    "secondary_color",
    "sex",
    "dob",
)
STAY_COLUMNS = (
    "intake_date",
    "intake_condition",
    "intake_type",
    "intake_subtype",
    "reason_for_intake",
    "outcome_date",
    "outcome_type",
    "outcome_subtype",
)
DATE_COLUMNS = ("dob", "intake_date", "outcome_date")
SEXES: dict[str, tuple[str | None, bool | None]] = {
    "Female": ("female", False),
    "Spayed": ("female", True),
    "Male": ("male", False),
    "Neutered": ("male", True),
    "Unknown": (None, None),
}
MARKED_DUPLICATE = "duplicate"

Stay = Mapping[str, Any]


def read_shelter(data_dir: Path) -> SourceRead:
    """Extracts of the clinic, the pets and the clinic visits.

    Raises MissingSourceError, MissingColumnError or SourceFormatError.
    """
    file = read_source(data_dir, FILE)
    stays = list(enumerate(_read_stays(file), start=1))
    problems: list[Problem] = []
    stated: list[tuple[int, Stay]] = []
    for line, stay in stays:
        if stay["animal_id"] and stay["intake_date"]:
            stated.append((line, stay))
        else:
            problems.append(Problem(file.name, line, "missing_value", "animal_id or intake_date is empty"))
    if not stated:
        raise SourceFormatError(f"{file.name} holds no stay with an animal and a date")
    extracted_at = local_midnight(
        max(day for _, stay in stated for day in (stay["intake_date"], stay["outcome_date"]) if day)
        + timedelta(days=1)
    )
    pet_drafts, pet_problems = _pets(file.name, stated)
    visit_drafts, visit_problems = _visits(file.name, stated)
    problems += pet_problems + visit_problems
    clinic_since = local_midnight(min(stay["intake_date"] for _, stay in stated))
    extracts: list[RecordExtract] = []
    for feed, drafts in (
        ("clinics", [Draft(file.name, 1, _clinic(clinic_since))]),
        ("pets", pet_drafts),
        ("clinic_visits", visit_drafts),
    ):
        extract, faults = build_extract(
            SOURCE,
            feed,
            drafts,
            files=[file],
            complete=False,
            extracted_at=extracted_at,
            states_rows=feed == ROW_FEED,
        )
        extracts.append(extract)
        problems += faults
    return SourceRead(ROW_FEED, extracts, problems, {file.name: len(stays)})


@lru_cache(maxsize=8192)
def local_midnight(day: date) -> datetime:
    """00:00 of a day in Long Beach as naive UTC."""
    return datetime.combine(day, time(), ZoneInfo(TIMEZONE)).astimezone(UTC).replace(tzinfo=None)


def _read_stays(file: SourceFile) -> list[Stay]:
    try:
        table = pq.read_table(BytesIO(file.content))
    except pa.ArrowException as error:
        raise SourceFormatError(f"{file.name} is not a Parquet file: {error}") from None
    needed = [*ANIMAL_COLUMNS, *STAY_COLUMNS]
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise MissingColumnError(file.name, missing)
    for name in DATE_COLUMNS:
        if not pa.types.is_date(table.schema.field(name).type):
            raise SourceFormatError(f"{file.name}: column '{name}' holds no dates")
    stays: list[Stay] = table.to_pylist()
    return stays


def _clinic(since: datetime) -> dict[str, object]:
    return {
        "business_key": CLINIC_ID,
        "op": "upsert",
        "changed_at": since,
        "payload": canonical_json({"clinic_id": CLINIC_ID, "stated_by": FILE}),
        "clinic_id": CLINIC_ID,
        "name": "Long Beach Animal Care",
        "timezone": TIMEZONE,
    }


def pet_id_of(animal_id: str) -> str:
    return f"longbeach:{animal_id}"


def _json_ready(stay: Stay, columns: Sequence[str] | None = None) -> dict[str, object]:
    names = columns or list(stay)
    return {name: value.isoformat() if isinstance(value := stay[name], date) else value for name in names}


def _pets(name: str, stays: Sequence[tuple[int, Stay]]) -> tuple[list[Draft], list[Problem]]:
    by_animal: dict[str, list[tuple[int, Stay]]] = defaultdict(list)
    for line, stay in stays:
        by_animal[stay["animal_id"]].append((line, stay))
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for animal_id, rows in by_animal.items():
        contents = {line: canonical_json(_json_ready(stay, ANIMAL_COLUMNS)) for line, stay in rows}
        counts = Counter(contents.values())
        standing = min(counts, key=lambda content: (-counts[content], content))
        for line, content in contents.items():
            if content != standing:
                detail = "the animal's columns differ from the animal's other rows, which stand"
                problems.append(Problem(name, line, "animal_differs", detail, set_aside=False))
        line, animal = next((line, stay) for line, stay in rows if contents[line] == standing)
        first_intake = min(stay["intake_date"] for _, stay in rows)
        record, notes = _pet(animal_id, animal, first_intake, standing)
        drafts.append(Draft(name, line, record))
        problems += [Problem(name, line, reason, detail, set_aside=False) for reason, detail in notes]
    return drafts, problems


def _pet(
    animal_id: str, animal: Stay, first_intake: date, payload: str
) -> tuple[dict[str, object], list[tuple[str, str]]]:
    notes: list[tuple[str, str]] = []
    dob = animal["dob"]
    if dob and dob > first_intake:
        notes.append(
            ("impossible_dob", f"dob {dob} is after the first intake on {first_intake}; dob is null")
        )
        dob = None
    if animal["sex"] not in SEXES:
        notes.append(("unknown_code", "sex is unknown; sex and neutered are null"))
    sex, neutered = SEXES.get(animal["sex"], (None, None))
    pet_id = pet_id_of(animal_id)
    record: dict[str, object] = {
        "business_key": pet_id,
        "op": "upsert",
        "changed_at": local_midnight(first_intake),
        "payload": payload,
        "pet_id": pet_id,
        "name": animal["animal_name"] or None,
        "species": animal["animal_type"] or None,
        "dob": dob,
        "birth_year": dob.year if dob else None,
        "sex": sex,
        "neutered": neutered,
        "color": "/".join(filter(None, (animal["primary_color"], animal["secondary_color"]))) or None,
    }
    return record, notes


def _visits(name: str, stays: Sequence[tuple[int, Stay]]) -> tuple[list[Draft], list[Problem]]:
    by_day: dict[tuple[str, date], list[tuple[str, int, Stay]]] = defaultdict(list)
    for line, stay in stays:
        payload = canonical_json(_json_ready(stay))
        by_day[stay["animal_id"], stay["intake_date"]].append((payload, line, stay))
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for group in by_day.values():
        previous: str | None = None
        ordinal = 0
        for payload, line, stay in sorted(group, key=lambda one: one[0]):
            if payload == previous:
                problems.append(Problem(name, line, "duplicate_row", "repeats another row in every column"))
                continue
            previous = payload
            ordinal += 1
            if stay["outcome_type"] == MARKED_DUPLICATE:
                detail = "the source marks the stay as entered twice; kept as a cancelled visit"
                problems.append(Problem(name, line, "marked_duplicate", detail, set_aside=False))
            drafts.append(Draft(name, line, _visit(stay, ordinal, payload)))
    return drafts, problems


def _visit(stay: Stay, ordinal: int, payload: str) -> dict[str, object]:
    start = local_midnight(stay["intake_date"])
    end = local_midnight(stay["outcome_date"]) if stay["outcome_date"] else None
    status = "completed" if end else None
    if stay["outcome_type"] == MARKED_DUPLICATE:
        status = "cancelled"
    visit_id = f"{pet_id_of(stay['animal_id'])}:{stay['intake_date']}:{ordinal}"
    return {
        "business_key": visit_id,
        "op": "upsert",
        "changed_at": max(start, end) if end else start,
        "payload": payload,
        "visit_id": visit_id,
        "pet_id": pet_id_of(stay["animal_id"]),
        "clinic_id": CLINIC_ID,
        "visit_ts": start,
        "visit_end_ts": end,
        "status": status,
        "visit_type": stay["intake_type"] or None,
        "reason": stay["reason_for_intake"] or None,
        "outcome": stay["outcome_type"] or None,
    }
