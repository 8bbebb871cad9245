"""The animals of Movebank's "Pet Cats United Kingdom": cats, their collars, and when each was on.

Fixes are telemetry and come through `replay`; here is `telemetry/cats_uk_reference.csv`,
one row per deployment.

Decisions:

- `device_id` is `tag_id` as in the fixes; `pet_id` is `movebank:` and the animal.
- The deployment's end is inclusive to the second (each cat's last fix lies on it), and
  assignments are half open: `assigned_to` is the end plus one second.
- `age_years` gives no year of birth and stays in the payload. Condition `Neutered` and
  `Spayed` are neutered, `Not fixed` is not, `NA` is null.
- A log, not a statement of what is absent: `complete` is false. Records changed when
  the collar came on, the assignment when it came off; `extracted_at` is the last end.
"""

from datetime import datetime, timedelta
from pathlib import Path

from contracts.decoders.movebank import SOURCE_SYSTEM, parse_timestamp
from contracts.records import canonical_json
from contracts.telemetry import RejectError
from ingestion.extracts.build import Draft, build_extract
from ingestion.extracts.files import CsvRow, SourceFile, read_csv, read_source
from ingestion.extracts.model import Problem, RecordExtract, SourceFormatError, SourceRead

ROW_FEED = "device_assignments"
FILE = "telemetry/cats_uk_reference.csv"
COLUMNS = (
    "tag_id",
    "animal_id",
    "animal_taxon",
    "deploy_on_date",
    "deploy_off_date",
    "animal_reproductive_condition",
    "animal_sex",
)
SPECIES = {"Felis catus": "cat"}
SEXES = {"f": "female", "m": "male", "NA": None, "": None}
NEUTERED = {"Neutered": True, "Spayed": True, "Not fixed": False, "NA": None, "": None}
INCLUSIVE_END = timedelta(seconds=1)


def read_cats(data_dir: Path) -> SourceRead:
    """Extracts of pets, devices and device assignments.

    Raises MissingSourceError, MissingColumnError or SourceFormatError.
    """
    file = read_source(data_dir, FILE)
    table = read_csv(file, COLUMNS)
    problems = list(table.problems)
    deployments: list[tuple[int, CsvRow, datetime, datetime]] = []
    seen: dict[str, int] = {}
    for line, row in table.rows:
        fault = _fault(row, seen)
        if fault:
            problems.append(Problem(file.name, line, *fault))
            continue
        seen[row["tag_id"]] = line
        deployments.append(
            (line, row, parse_timestamp(row["deploy_on_date"]), parse_timestamp(row["deploy_off_date"]))
        )
    if not deployments:
        raise SourceFormatError(f"{file.name} holds no deployment")
    notes = [
        Problem(file.name, line, "unknown_code", f"{column} is unknown; null", set_aside=False)
        for line, row, _, _ in deployments
        for column, known in (
            ("animal_taxon", SPECIES),
            ("animal_sex", SEXES),
            ("animal_reproductive_condition", NEUTERED),
        )
        if row[column] not in known
    ]
    extracts, faults = _extracts(file, deployments)
    return SourceRead(ROW_FEED, extracts, problems + notes + faults, {file.name: table.rows_read})


def _fault(row: CsvRow, seen: dict[str, int]) -> tuple[str, str] | None:
    if not row["tag_id"].strip() or not row["animal_id"].strip():
        return "missing_value", "tag_id or animal_id is empty"
    if row["tag_id"] in seen:
        return "duplicate_key", f"the tag is deployed on line {seen[row['tag_id']]} too"
    try:
        start, end = parse_timestamp(row["deploy_on_date"]), parse_timestamp(row["deploy_off_date"])
    except RejectError:
        return "invalid_value", "deploy_on_date or deploy_off_date is no UTC time"
    return ("invalid_value", "deploy_off_date is before deploy_on_date") if end < start else None


def _extracts(
    file: SourceFile, deployments: list[tuple[int, CsvRow, datetime, datetime]]
) -> tuple[list[RecordExtract], list[Problem]]:
    extracted_at = max(end for _, _, _, end in deployments)
    drafts: dict[str, list[Draft]] = {"pets": [], "devices": [], "device_assignments": []}
    for line, row, start, end in deployments:
        payload = canonical_json(row)
        device_id, pet_id = row["tag_id"], f"movebank:{row['animal_id']}"
        assignment_id = f"{device_id}:{start:%Y-%m-%dT%H:%M:%S}"
        pet = {
            "business_key": pet_id,
            "op": "upsert",
            "changed_at": start,
            "payload": payload,
            "pet_id": pet_id,
            "name": row["animal_id"],
            "species": SPECIES.get(row["animal_taxon"]),
            "sex": SEXES.get(row["animal_sex"]),
            "neutered": NEUTERED.get(row["animal_reproductive_condition"]),
        }
        device = {
            "business_key": device_id,
            "op": "upsert",
            "changed_at": start,
            "payload": canonical_json({"tag_id": device_id}),
            "device_id": device_id,
            "vendor": SOURCE_SYSTEM,
        }
        assignment = {
            "business_key": assignment_id,
            "op": "upsert",
            "changed_at": end,
            "payload": payload,
            "assignment_id": assignment_id,
            "device_id": device_id,
            "pet_id": pet_id,
            "assigned_from": start,
            "assigned_to": end + INCLUSIVE_END,
        }
        for feed, record in (("pets", pet), ("devices", device), ("device_assignments", assignment)):
            drafts[feed].append(Draft(file.name, line, record))
    extracts: list[RecordExtract] = []
    problems: list[Problem] = []
    for feed, drafted in drafts.items():
        extract, faults = build_extract(
            SOURCE_SYSTEM,
            feed,
            drafted,
            files=[file],
            complete=False,
            extracted_at=extracted_at,
            states_rows=feed == ROW_FEED,
        )
        extracts.append(extract)
        problems += faults
    return extracts, problems
