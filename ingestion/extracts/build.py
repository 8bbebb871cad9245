"""From drafted records to an extract: validation, and problems that name file and line.

What a draft holds is the business of each source; the contracts are in
`contracts.records`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from contracts.records import Row, records_table, validate_records
from ingestion.extracts.files import SourceFile, extract_id
from ingestion.extracts.model import Problem, RecordExtract


@dataclass(frozen=True, slots=True)
class Draft:
    """A record not yet validated, and the file and line it comes from."""

    file: str
    line: int
    record: Row


def build_extract(
    source: str,
    feed: str,
    drafts: Sequence[Draft],
    *,
    files: Sequence[SourceFile],
    complete: bool,
    extracted_at: datetime,
    states_rows: bool = True,
) -> tuple[RecordExtract, list[Problem]]:
    """The extract of the drafts that keep the feed's contract, and a problem for each other one.

    `states_rows` is true for the one feed of a source whose records stand for the
    file's rows: there a fault sets the row aside. In the other feeds (the owner of a
    dog's row) the row's own record stands, and the fault is reported without.
    """
    good, faults = validate_records(feed, (draft.record for draft in drafts))
    problems = [
        Problem(draft.file, draft.line, fault.reason, f"{feed}: {fault.detail}", set_aside=states_rows)
        for fault in faults
        for draft in (drafts[fault.row],)
    ]
    extract = RecordExtract(
        source=source,
        feed=feed,
        extract_id=extract_id(feed, extracted_at, files),
        table=records_table(feed, good),
        complete=complete,
        extracted_at=extracted_at,
    )
    return extract, problems
