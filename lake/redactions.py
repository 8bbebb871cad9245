"""The redaction ledger: what has landed and must not be used any more, nor be kept past a deadline.

Entries are create-only objects that loads, compaction, rebuilds and the purge of
originals all read; nothing that is written in one is ever taken back. Which rows
an entry covers is decided here. How entries come about (a late opt-out, a request
for erasure) and how originals are deleted lives in `governance.erasure`.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from contracts.columns import HOUSEHOLD_COLUMNS, RECORD_REFERENCES, record_schema
from contracts.keeping import has_to_stay
from contracts.registry import TELEMETRY_FEED
from lake import layout
from lake.store import ObjectExistsError, ObjectStore

LATE_OPT_OUT = "late_opt_out"
ERASURE = "erasure"

_EPOCH = datetime(1970, 1, 1)


class Worn(NamedTuple):
    """An erased pet was given the device in `[from_ts, to_ts)`; no end means the assignment was open. It is a
    claim like that of any assignment: what it covers depends on the others (`ingestion.collector.attribution`).
    `pet_id` is empty in entries that did not say it."""

    device_id: str
    from_ts: datetime
    to_ts: datetime | None
    pet_id: str = ""


class Arrivals(NamedTuple):
    """Telemetry of one device received in `[from_ts, to_ts)` is redacted."""

    device_id: str
    from_ts: datetime
    to_ts: datetime


class Kept(NamedTuple):
    """Records of a pet in a feed that stay, put aside, until `until` (naive UTC), and why: the jurisdiction, the type
    of record and the text that asks for it."""

    feed: str
    pet_id: str
    until: datetime
    jurisdiction: str
    record_type: str
    why: str


class DeviceArrivals(NamedTuple):
    """Telemetry of a device received in `[from_us, to_us)` (epoch microseconds), as one entry names it."""

    redaction_id: str
    device_id: str
    from_us: int
    to_us: int


class Redaction(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the ledger; times are naive UTC.

    `deadline` is when nothing of it may be left; what lands later than the entry
    has as long from its own landing. `arrivals` name the telemetry that had landed
    by then. The rest is of erasures: owners whose households are erased, their
    pets, the business keys of every record about them by feed, and what their
    pets wore, from which consent snapshots drop what is still to come. Records
    that `kept` names are covered like all others, so that no reader sees them;
    what deletes their originals puts them aside first.
    """

    redaction_id: str
    kind: str
    reason: str
    requested_at: datetime
    deadline: datetime
    arrivals: list[Arrivals] = []
    owner_ids: list[str] = []
    pet_ids: list[str] = []
    business_keys: dict[str, list[str]] = {}
    worn: list[Worn] = []
    kept: list[Kept] = []
    consent_snapshot_id: str | None = None

    @property
    def allowed(self) -> timedelta:
        """How long what it covers may be kept."""
        return self.deadline - self.requested_at


def redaction_id_for(requested_at: datetime, *content: object) -> str:
    """An id that sorts by time and stands for the content."""
    digest = hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:12]
    return f"{requested_at:%Y%m%dT%H%M%S%f}-{digest}"


def put_redaction(store: ObjectStore, redaction: Redaction) -> None:
    """Enter a redaction into the ledger; an entry of the same id is the same entry."""
    with contextlib.suppress(ObjectExistsError):
        store.put_new(layout.redaction_key(redaction.redaction_id), msgspec.json.encode(redaction))


def load_redactions(store: ObjectStore) -> "Redactions":
    """The whole ledger."""
    decoder = msgspec.json.Decoder(Redaction)
    return Redactions(tuple(decoder.decode(data) for data in store.get_many(_keys(store))))


def count_redactions(store: ObjectStore) -> int:
    """Number of entries in the ledger; it only ever grows."""
    return len(_keys(store))


def _keys(store: ObjectStore) -> list[str]:
    return [
        info.key for info in store.list(layout.REDACTIONS) if not info.key.startswith(layout.REDACTION_AUDIT)
    ]


@dataclass(frozen=True)
class Redactions:
    """Entries of the ledger in order of their ids, and which rows they cover together."""

    entries: tuple[Redaction, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[Redaction]:
        return iter(self.entries)

    def only(self, redaction_ids: Iterable[str]) -> "Redactions":
        """The entries of those ids."""
        wanted = set(redaction_ids)
        return Redactions(tuple(entry for entry in self.entries if entry.redaction_id in wanted))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.redaction_id for entry in self.entries)

    @cached_property
    def arrivals(self) -> list[tuple[str, int, int]]:
        """(device_id, from_us, to_us): telemetry received in `[from_us, to_us)` is redacted; disjoint."""
        stretches: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for entry in self.entries:
            for device_id, from_ts, to_ts in entry.arrivals:
                stretches[device_id].append((epoch_us(from_ts), epoch_us(to_ts)))
        return [
            (device_id, low, high)
            for device_id, found in sorted(stretches.items())
            for low, high in merged(found)
        ]

    @cached_property
    def by_entry(self) -> list[DeviceArrivals]:
        """The same with the entry that says so, for who has to remember which entries were honoured."""
        return [
            DeviceArrivals(entry.redaction_id, device_id, epoch_us(from_ts), epoch_us(to_ts))
            for entry in self.entries
            for device_id, from_ts, to_ts in entry.arrivals
        ]

    @cached_property
    def owner_ids(self) -> frozenset[str]:
        return frozenset(owner_id for entry in self.entries for owner_id in entry.owner_ids)

    @cached_property
    def pet_ids(self) -> frozenset[str]:
        return frozenset(pet_id for entry in self.entries for pet_id in entry.pet_ids)

    def business_keys(self, feed: str) -> frozenset[str]:
        """Keys of a record feed of which every record is redacted."""
        return frozenset(key for entry in self.entries for key in entry.business_keys.get(feed, ()))

    def covers_feed(self, feed: str) -> bool:
        """Whether any row of the feed can be redacted."""
        if feed == TELEMETRY_FEED:
            return bool(self.arrivals)
        return bool(self.record_values(feed, record_schema(feed).names))

    def rows(self, feed: str, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a landed table are redacted. Telemetry: by device and time of receipt.
        Records: by business key, or by the owner, pet, visit or appointment they name."""
        if feed == TELEMETRY_FEED:
            return rows_received_in(self.arrivals, table["device_id"], arrival_us(table))
        covered = np.zeros(table.num_rows, np.bool_)
        for column, values in self.record_values(feed, table.column_names):
            covered |= _is_in(table[column], values)
        return covered

    def kept(
        self, feed: str, table: pa.Table, now: datetime
    ) -> dict[tuple[str, date], npt.NDArray[np.bool_]]:
        """Which covered rows of a landed table have to stay at `now`: by the entry that says so and the first day
        on which they need not. Where several do, the longest term holds."""
        of_pet: dict[str, tuple[datetime, str]] = {}
        for entry in self.entries:
            for one in entry.kept:
                if one.feed == feed and one.until > now:
                    of_pet[one.pet_id] = max(
                        of_pet.get(one.pet_id, (_EPOCH, "")), (one.until, entry.redaction_id)
                    )
        if not of_pet or not table.num_rows:
            return {}
        stays = self.rows(feed, table) & has_to_stay(feed, table)
        pets = table["pet_id"].to_pylist()
        groups: dict[tuple[str, date], npt.NDArray[np.bool_]] = {}
        for position in np.flatnonzero(stays):
            if pets[position] in of_pet:
                until, redaction_id = of_pet[pets[position]]
                group = groups.setdefault((redaction_id, until.date()), np.zeros(table.num_rows, np.bool_))
                group[position] = True
        return groups

    def record_values(self, feed: str, columns: Sequence[str]) -> list[tuple[str, frozenset[str]]]:
        """(column, values): a record of the feed with one of the values in the column is redacted."""
        by_column = {
            "business_key": self.business_keys(feed),
            "owner_id": self.owner_ids,
            "pet_id": self.pet_ids,
            # A document of an erased visit or a message about an erased appointment says as much as those.
            **{column: self.business_keys(about) for column, about in RECORD_REFERENCES.items()},
        }
        return [(column, values) for column, values in by_column.items() if values and column in columns]

    def filter(self, feed: str) -> pc.Expression | None:
        """What a reader of Parquet may skip by: true for every row that `rows` covers, and for some more."""
        if feed != TELEMETRY_FEED or not self.arrivals:
            return None
        first = from_epoch_us(min(low for _, low, _ in self.arrivals))
        last = from_epoch_us(max(high for _, _, high in self.arrivals))
        devices = sorted({device_id for device_id, _, _ in self.arrivals})
        return (
            pc.field("device_id").isin(devices)
            & (pc.field("arrival_ts") >= pa.scalar(first, pa.timestamp("us")))
            & (pc.field("arrival_ts") < pa.scalar(last, pa.timestamp("us")))
        )

    def columns(self, feed: str, columns: Sequence[str]) -> list[str]:
        """The columns that `rows` needs of a landed table with `columns`."""
        if feed == TELEMETRY_FEED:
            return ["device_id", "arrival_ts"]
        named = ("business_key", *HOUSEHOLD_COLUMNS)
        return [name for name in named if name in columns]


def rows_received_in(
    stretches: Iterable[tuple[str, int, int]], device_ids: pa.ChunkedArray, moments_us: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which rows are of a device and moment (epoch microseconds) in one of `(device_id, from_us, to_us)`."""
    by_device: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for device_id, low, high in stretches:
        by_device[device_id].append((low, high))
    covered = np.zeros(len(device_ids), np.bool_)
    if not by_device or not len(device_ids):
        return covered
    devices = pa.array([*by_device], pa.string())
    found = pc.index_in(device_ids, devices)
    positions = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    if not len(positions):
        return covered
    which = found.take(pa.array(positions)).to_numpy()
    moments = moments_us[positions]
    for number, limits in enumerate(by_device.values()):
        of_device = which == number
        for low, high in limits:
            covered[positions[of_device & (moments >= low) & (moments < high)]] = True
    return covered


def arrival_us(table: pa.Table) -> npt.NDArray[np.int64]:
    """A table's times of receipt in epoch microseconds."""
    return table["arrival_ts"].cast(pa.int64()).to_numpy()


def epoch_us(moment: datetime) -> int:
    """A naive UTC time in epoch microseconds."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_epoch_us(moment_us: int) -> datetime:
    """The naive UTC time of epoch microseconds."""
    return _EPOCH + timedelta(microseconds=moment_us)


def merged(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same moments as disjoint stretches in order."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(stretches):
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], high))
        elif low < high:
            result.append((low, high))
    return result


def without(
    stretches: Iterable[tuple[int, int]], removed: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The moments of `stretches` that are not in `removed`, as disjoint stretches in order."""
    result = []
    gaps = merged(removed)
    for low, high in merged(stretches):
        for gap_low, gap_high in gaps:
            if gap_high <= low or gap_low >= high:
                continue
            if low < gap_low:
                result.append((low, gap_low))
            low = max(low, gap_high)
        if low < high:
            result.append((low, high))
    return result


def _is_in(column: pa.ChunkedArray, values: Iterable[str]) -> npt.NDArray[np.bool_]:
    return pc.is_in(column, pa.array([*values], pa.string())).to_numpy(zero_copy_only=False)
