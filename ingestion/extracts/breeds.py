"""Dog breeds of the American Kennel Club as reference: group, weight, height, life expectancy.

The file carries no date: a reference without one counts as known from the epoch,
so that every as-of join finds it. Its figures are converted from inches and pounds
with binary noise (4.535923700000001 kg) and are rounded here, half to even, to the
columns' decimals; the payload keeps them. A zero means "not known" (no breed weighs
nothing): null, and reported.
"""

import re
import unicodedata
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

from contracts.records import canonical_json
from ingestion.extracts.build import Draft, build_extract
from ingestion.extracts.files import CsvRow, read_csv, read_source
from ingestion.extracts.model import Problem, SourceRead

SOURCE = "akc-breeds"
ROW_FEED = "breeds"
FILE = "breeds/akc-data.csv"
UNDATED = datetime(1970, 1, 1)

# The breed's name stands in a first column without a name.
NAME_COLUMN = ""
FIGURES = {
    "min_weight_kg": ("min_weight", Decimal("0.001")),
    "max_weight_kg": ("max_weight", Decimal("0.001")),
    "min_height_cm": ("min_height", Decimal("0.1")),
    "max_height_cm": ("max_height", Decimal("0.1")),
    "min_life_expectancy_years": ("min_expectancy", Decimal("0.1")),
    "max_life_expectancy_years": ("max_expectancy", Decimal("0.1")),
}


def read_breeds(data_dir: Path) -> SourceRead:
    """The reference as one complete extract of breeds.

    Raises MissingSourceError, MissingColumnError or SourceFormatError.
    """
    file = read_source(data_dir, FILE)
    table = read_csv(file, [NAME_COLUMN, "group", *(column for column, _ in FIGURES.values())])
    problems = list(table.problems)
    drafts: list[Draft] = []
    first_line: dict[str, int] = {}
    for line, row in table.rows:
        breed_id = breed_key(row[NAME_COLUMN])
        if breed_id in first_line:
            problems.append(
                Problem(file.name, line, "duplicate_key", f"breed is listed on line {first_line[breed_id]}")
            )
            continue
        first_line[breed_id] = line
        figures, notes = _figures(row)
        problems += [Problem(file.name, line, reason, detail, set_aside=False) for reason, detail in notes]
        drafts.append(Draft(file.name, line, _record(breed_id, row, figures)))
    extract, faults = build_extract(
        SOURCE, ROW_FEED, drafts, files=[file], complete=True, extracted_at=UNDATED
    )
    return SourceRead(ROW_FEED, [extract], problems + faults, {file.name: table.rows_read})


def breed_key(name: str) -> str:
    """`akc:` and the name in lower-case ASCII words joined by '-' ("Löwchen" is `akc:lowchen`)."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return "akc:" + "-".join(re.findall(r"[a-z0-9]+", plain))


def _record(breed_id: str, row: CsvRow, figures: dict[str, Decimal | None]) -> dict[str, object]:
    return {
        "business_key": breed_id,
        "op": "snapshot",
        "changed_at": UNDATED,
        "payload": canonical_json({column or "breed": value for column, value in row.items()}),
        "breed_id": breed_id,
        "species": "dog",
        "breed": row[NAME_COLUMN].strip(),
        "breed_group": row["group"].strip() or None,
        **figures,
    }


def _figures(row: CsvRow) -> tuple[dict[str, Decimal | None], list[tuple[str, str]]]:
    figures: dict[str, Decimal | None] = {}
    notes: list[tuple[str, str]] = []
    for name, (column, unit) in FIGURES.items():
        text = row[column].strip()
        figures[name] = None
        if not text:
            continue
        if not re.fullmatch(r"-?[0-9]{1,6}(\.[0-9]{1,20})?", text):
            notes.append(("invalid_value", f"{column} is not a number; null"))
        elif Decimal(text) <= 0:
            notes.append(("not_positive", f"{column} is {text}, which means not known; null"))
        else:
            figures[name] = Decimal(text).quantize(unit, rounding=ROUND_HALF_EVEN)
    return figures, notes
