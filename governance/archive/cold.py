"""What cold storage holds: statements by table and day, create-only and numbered, and the files they name.

The highest number counts. A statement without files withdraws the day: the
warehouse has newer rows of it. Files that no statement in force names are not part
of cold storage any more, or not yet, and are removed by the next run.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

import msgspec

from lake import layout
from lake.replacements import StoredObject
from lake.store import ObjectInfo, ObjectStore

DayKey = tuple[str, date]
"""`(table, day)`: what statements and files in cold storage are keyed by."""


class ColdDay(msgspec.Struct, frozen=True, kw_only=True):
    """The n-th statement on one day of a table; times are naive UTC.

    `columns` are names and types as in the warehouse, in order; `fingerprint` stands
    for the content in the engine that wrote it; `as_of` is the data's present that made
    the day due. Nothing here names a pet, a device or a person.
    """

    table: str
    day: date
    n: int
    files: list[StoredObject]
    columns: list[tuple[str, str]]
    fingerprint: str
    model: str
    as_of: datetime
    written_at: datetime

    @property
    def day_key(self) -> DayKey:
        return self.table, self.day

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def is_withdrawn(self) -> bool:
        return not self.files


def put_cold_day(store: ObjectStore, cold_day: ColdDay) -> None:
    """Put a statement in force. Raises ObjectExistsError when its number is taken."""
    store.put_new(
        layout.cold_day_key(cold_day.table, cold_day.day, cold_day.n), msgspec.json.encode(cold_day)
    )


def load_cold_days(store: ObjectStore) -> dict[DayKey, ColdDay]:
    """The statement in force for every table and day that ever was in cold storage, withdrawn ones too."""
    newest: dict[DayKey, str] = {}
    for info in store.list(layout.COLD_DAYS):
        table, day, _ = layout.cold_day_of(info.key)
        newest[table, day] = info.key
    decoder = msgspec.json.Decoder(ColdDay)
    found = (decoder.decode(data) for data in store.get_many([*newest.values()]))
    return {cold_day.day_key: cold_day for cold_day in found}


def unnamed_files(store: ObjectStore, in_force: Iterable[ColdDay]) -> list[ObjectInfo]:
    """Files under the prefix of cold storage that no statement in force names."""
    named = {file.key for cold_day in in_force for file in cold_day.files}
    return [info for info in store.list(layout.COLD) if info.key not in named]
