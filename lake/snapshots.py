"""Snapshots of arrival days: which set of files holds a day's rows.

The arrival day of a range is the UTC date of its claim, the `date=` of its
landing file. `_snapshots/{day}/{n}.json` is created once and names a complete
set; the highest n wins. Ranges that landed after it was taken are read from
their landing files, so that a reader always sees each landed row once. Files are
written by `compaction`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from contracts.registry import TELEMETRY_FEED
from lake import layout
from lake.landing import Manifest, day_manifests
from lake.store import ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

COMPACTION_VERSION = 1


class CompactedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a snapshot; bounds are of its rows, `bytes` and `sha256` of the object."""

    key: str
    rows: int
    bytes: int
    sha256: str
    min_event_ts: datetime
    max_event_ts: datetime
    min_arrival_ts: datetime
    max_arrival_ts: datetime
    min_device_id: str
    max_device_id: str
    min_clinic_id: str | None
    max_clinic_id: str | None


class SourceRange(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """A landed range that a snapshot covers: `rows` landed, of which `redacted_rows` were left out.

    Stored as a list of values: a large day has ten thousand.
    """

    stream_id: str
    partition: int
    start: int
    end: int
    source_file: str
    rows: int
    redacted_rows: int

    @property
    def range_key(self) -> layout.RangeKey:
        return self.stream_id, self.partition, self.start


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The complete set of files of an arrival day for the ranges it names.

    `rows` are in the files, `redacted_rows` were left out for the redactions whose
    ids are listed: together they are what landed in `ranges`. `base` is the snapshot
    whose files were read again or kept (None: all rows came from landing files).
    """

    feed: str
    day: date
    n: int
    created_at: datetime
    version: int
    base: int | None
    rows: int
    redacted_rows: int
    redactions: list[str]
    files: list[CompactedFile]
    ranges: list[SourceRange]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files)


class StoredRows(Protocol):
    """An object that holds a range's rows: its key, its content's sha256, and how many they are."""

    @property
    def key(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def rows(self) -> int: ...


@dataclass(frozen=True)
class LandedObject:
    """A range's own main object."""

    key: str
    sha256: str
    rows: int


InForce = Callable[[Manifest], StoredRows]
"""Which object holds a range's rows now: its own, unless a redaction replaced it."""


def as_landed(manifest: Manifest) -> StoredRows:
    """A range's own main object, where nothing was ever replaced."""
    return LandedObject(manifest.source_file, manifest.sha256, manifest.rows)


@dataclass(frozen=True)
class DayFiles:
    """Everything that holds an arrival day's rows, each once: a snapshot's files and those of later ranges."""

    snapshot: Snapshot | None
    late: tuple[StoredRows, ...]

    @property
    def keys(self) -> list[str]:
        """Keys of all files that hold rows."""
        compacted = [file.key for file in self.snapshot.files] if self.snapshot else []
        return [*compacted, *(stored.key for stored in self.late if stored.rows)]

    @property
    def rows(self) -> int:
        return (self.snapshot.rows if self.snapshot else 0) + sum(stored.rows for stored in self.late)


def latest_snapshot(store: ObjectStore, day: date) -> Snapshot | None:
    """The snapshot in force of an arrival day; None before its first compaction."""
    newest = max((info.key for info in store.list(layout.snapshots_prefix(day))), default=None)
    return None if newest is None else read_snapshot(store, newest)


def read_snapshot(store: ObjectStore, key: str) -> Snapshot:
    """A stored snapshot. Raises ObjectMissingError."""
    return msgspec.json.decode(store.get(key), type=Snapshot)


def day_files(store: ObjectStore, feed: str, day: date, in_force: InForce = as_landed) -> DayFiles:
    """The one set of files that holds an arrival day's landed rows, each once.

    Feeds other than telemetry are not compacted: their landing files are the set.
    The set stays readable for the age after which `upkeep.clean` removes files.
    """
    # The snapshot before the manifests: a range that lands in between is read from its landing file.
    snapshot = latest_snapshot(store, day) if feed == TELEMETRY_FEED else None
    covered = {source.range_key for source in snapshot.ranges} if snapshot else set()
    return DayFiles(snapshot, tuple(map(in_force, day_manifests(store, feed, day, known=covered))))


def device_rows(store: ObjectStore, day: date, device_id: str, in_force: InForce = as_landed) -> pa.Table:
    """One device's rows that arrived on a day (UTC date of their claims), in order of event time.

    From compacted files it reads the row groups whose statistics and Bloom filters admit the device.
    """
    from contracts.columns import TELEMETRY_SCHEMA
    from lake.sql import connect, telemetry_sql

    found = day_files(store, TELEMETRY_FEED, day, in_force)
    keys = [*_keys_with_device(found, device_id)]
    if not keys:
        return TELEMETRY_SCHEMA.empty_table()
    with connect(store) as con:
        rows = con.sql(
            f"{telemetry_sql(con, [store.uri(key) for key in keys])} where device_id = $device"
            " order by event_ts, stream_id, kafka_partition, kafka_offset",
            params={"device": device_id},
        )
        return rows.to_arrow_table().cast(TELEMETRY_SCHEMA)


def _keys_with_device(found: DayFiles, device_id: str) -> Iterable[str]:
    if found.snapshot:
        for file in found.snapshot.files:
            if file.min_device_id <= device_id <= file.max_device_id:
                yield file.key
    for stored in found.late:
        if stored.rows:
            yield stored.key
