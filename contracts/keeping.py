"""What a practice must keep although a household is erased: which records, and how long by jurisdiction.

A feed of `KEPT_FEEDS` holds records of that type; other feeds hold nothing that has to stay. `TERMS` is the one table
of terms, each with the text that asks for it. How a kept record is put aside and when it goes is `governance.erasure`.

The table says what the platform does; that it is right for a practice, its counsel has to confirm. A jurisdiction that
is missing here is added here, with its source, before a clinic of it is named in the settings.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


class RecordType(StrEnum):
    """Kinds of records that a practice has to keep."""

    CLINICAL = "clinical"
    MEDICINES = "medicines"
    INVOICES = "invoices"


# Feeds that hold such records. There is no feed of medicines or invoices yet: one that comes is named here.
KEPT_FEEDS: dict[str, RecordType] = {
    "clinic_visits": RecordType.CLINICAL,
    "visit_documents": RecordType.CLINICAL,
}

# A visit that did not take place is a booking, and no clinical record. No status: the source lists what took place.
_COMPLETED = "completed"


class Begin(StrEnum):
    """What a term is counted from."""

    LAST_VISIT = "the pet's last visit"
    YEAR_END = "the end of the year of the pet's last visit"


class Term(NamedTuple):
    """How long records of a type are kept in a jurisdiction, from when, and the text that asks for it."""

    years: int
    begin: Begin
    source: str


TERMS: dict[str, dict[RecordType, Term]] = {
    # Canton of Zürich.
    "CH-ZH": {
        RecordType.CLINICAL: Term(10, Begin.LAST_VISIT, "Gesundheitsgesetz of Zürich (LS 810.1) § 13"),
        RecordType.MEDICINES: Term(3, Begin.LAST_VISIT, "Tierarzneimittelverordnung (SR 812.212.27) art. 29"),
        RecordType.INVOICES: Term(10, Begin.YEAR_END, "Obligationenrecht (SR 220) art. 958f"),
    },
    "US-CA": {
        RecordType.CLINICAL: Term(3, Begin.LAST_VISIT, "16 California Code of Regulations § 2032.3(b)"),
        RecordType.MEDICINES: Term(3, Begin.LAST_VISIT, "California Business and Professions Code § 4081"),
        RecordType.INVOICES: Term(4, Begin.YEAR_END, "California Revenue and Taxation Code § 19057"),
    },
    "US-TX": {
        RecordType.CLINICAL: Term(5, Begin.LAST_VISIT, "22 Texas Administrative Code § 573.52"),
        RecordType.MEDICINES: Term(5, Begin.LAST_VISIT, "22 Texas Administrative Code § 573.50"),
        RecordType.INVOICES: Term(4, Begin.YEAR_END, "34 Texas Administrative Code § 3.281"),
    },
}


class UnknownJurisdictionError(ValueError):
    """A jurisdiction without terms."""


@dataclass(frozen=True)
class Jurisdictions:
    """Whose terms hold: of the practice, and of the clinics that lie elsewhere. Without that of the practice the
    longest term of all holds, since in doubt nothing may be lost that had to stay.

    Raises UnknownJurisdictionError for one that `TERMS` does not have.
    """

    practice: str | None = None
    clinics: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in {self.practice, *self.clinics.values()} - {None}:
            if name not in TERMS:
                raise UnknownJurisdictionError(
                    f"nothing says how long records are kept in '{name}'; known: {', '.join(TERMS)}."
                    " Add its terms, with their source, to contracts/keeping.py"
                )

    def strictest(
        self, record_type: RecordType, clinic_ids: Iterable[str | None], last_visit: datetime
    ) -> tuple[str, Term, datetime]:
        """Of the clinics' jurisdictions that in which records are kept longest: its name, its term, and the first
        moment (naive UTC) at which nothing has to stay."""
        named = {self.clinics.get(clinic_id or "", self.practice) for clinic_id in clinic_ids} or {
            self.practice
        }
        choices = [*TERMS] if None in named else sorted(name for name in named if name)
        until, name = max(
            (kept_until(TERMS[name][record_type], last_visit), name)
            for name in choices
            if record_type in TERMS[name]
        )
        return name, TERMS[name][record_type], until


# What holds where nobody has said which jurisdiction does.
IN_DOUBT = Jurisdictions()


def kept_until(term: Term, last_visit: datetime) -> datetime:
    """The first moment (naive UTC) at which a record need not be kept: the day after the anniversary."""
    begin = date(last_visit.year, 12, 31) if term.begin is Begin.YEAR_END else last_visit.date()
    try:
        anniversary = begin.replace(year=begin.year + term.years)
    except ValueError:  # 29 February
        anniversary = date(begin.year + term.years, 3, 1)
    return datetime.combine(anniversary + timedelta(days=1), time())


def has_to_stay(feed: str, table: pa.Table) -> npt.NDArray[np.bool_]:
    """Which landed records of a feed are of a type that a practice must keep."""
    if feed not in KEPT_FEEDS:
        return np.zeros(table.num_rows, np.bool_)
    if "status" not in table.column_names:
        return np.ones(table.num_rows, np.bool_)
    took_place = pc.or_kleene(pc.is_null(table["status"]), pc.equal(table["status"], _COMPLETED))
    return pc.fill_null(took_place, True).to_numpy(zero_copy_only=False)
