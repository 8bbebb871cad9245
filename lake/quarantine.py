"""The quarantine ledger: what has landed and must not be used, although its originals are kept.

Entries are create-only objects that loads, compaction and rebuilds read, as they read
redactions; one is ended by a further entry that releases it. A row is named by its
place in the log, a range by its bounds; where claims of one partition overlap, what one
of them repeats is set aside in its own file only. Which rows that is, and which part of
the claims stands, is decided here. Erasure does not look at it: originals of quarantined
rows are purged as all others are.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lake import layout
from lake.landing import Claim
from lake.redactions import redaction_id_for, without
from lake.store import ObjectExistsError, ObjectStore

# The columns of a landed table that say whether one of its rows is quarantined.
KEY_COLUMNS = ("stream_id", "kafka_partition", "kafka_offset", "source_file")


class Span(msgspec.Struct, frozen=True):
    """Offsets `[start, end)` of a partition; with `source_file` only the rows that landed in that object."""

    stream_id: str
    partition: int
    start: int
    end: int
    source_file: str | None = None

    def meets(self, stream_id: str, partition: int, start: int, end: int) -> bool:
        """Whether any offset of a range is in the span."""
        return (
            (self.stream_id, self.partition) == (stream_id, partition)
            and self.start < end
            and start < self.end
        )

    def __str__(self) -> str:
        of_file = f" of {self.source_file}" if self.source_file else ""
        return f"{self.stream_id} partition {self.partition} [{self.start}, {self.end}){of_file}"


class QuarantineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the ledger, `entered_at` in naive UTC: spans that must not be used, or the id of the
    entry that it `releases`."""

    quarantine_id: str
    reason: str
    entered_by: str
    entered_at: datetime
    spans: list[Span] = []
    releases: str | None = None


class QuarantinedOffsets(NamedTuple):
    """One span as one entry names it, for who has to remember which entries were honoured.

    `is_released`: the entry was ended, its rows are to be used again.
    """

    redaction_id: str
    span: Span
    is_released: bool


def quarantine_entry(
    reason: str,
    entered_by: str,
    entered_at: datetime,
    spans: Sequence[Span] = (),
    releases: str | None = None,
) -> QuarantineEntry:
    """An entry with an id that sorts by time and stands for its content."""
    return QuarantineEntry(
        quarantine_id=f"q-{redaction_id_for(entered_at, spans, releases, reason, entered_by)}",
        reason=reason,
        entered_by=entered_by,
        entered_at=entered_at,
        spans=[*spans],
        releases=releases,
    )


def put_entry(store: ObjectStore, entry: QuarantineEntry) -> None:
    """Enter an entry into the ledger; one of the same id is the same entry."""
    with contextlib.suppress(ObjectExistsError):
        store.put_new(layout.quarantine_key(entry.quarantine_id), msgspec.json.encode(entry))


def load_quarantine(store: ObjectStore) -> "Quarantine":
    """The whole ledger."""
    decoder = msgspec.json.Decoder(QuarantineEntry)
    keys = [info.key for info in store.list(layout.QUARANTINE)]
    return Quarantine(tuple(decoder.decode(data) for data in store.get_many(keys)))


def count_quarantine(store: ObjectStore) -> int:
    """Number of entries in the ledger, releases included; it only ever grows."""
    return sum(1 for _ in store.list(layout.QUARANTINE))


@dataclass(frozen=True)
class Quarantine:
    """Entries of the ledger in order of their ids, and what they cover together."""

    entries: tuple[QuarantineEntry, ...] = ()

    def __iter__(self) -> Iterator[QuarantineEntry]:
        return iter(self.entries)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(entry.quarantine_id for entry in self.entries)

    @cached_property
    def released(self) -> dict[str, QuarantineEntry]:
        """The first release of each entry that was released, by the id of that entry."""
        found: dict[str, QuarantineEntry] = {}
        for entry in self.entries:
            if entry.releases is not None:
                found.setdefault(entry.releases, entry)
        return found

    @cached_property
    def in_force(self) -> tuple[QuarantineEntry, ...]:
        """Entries that quarantine something and were not released."""
        return tuple(
            entry for entry in self.entries if entry.spans and entry.quarantine_id not in self.released
        )

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """What must not be used."""
        return tuple(dict.fromkeys(span for entry in self.in_force for span in entry.spans))

    @cached_property
    def by_entry(self) -> list[QuarantinedOffsets]:
        """Every span that was ever quarantined, with the entry that said so."""
        return [
            QuarantinedOffsets(entry.quarantine_id, span, entry.quarantine_id in self.released)
            for entry in self.entries
            for span in entry.spans
        ]

    def changed_by(self, quarantine_ids: Iterable[str]) -> tuple[Span, ...]:
        """Spans of which these entries decide: their own, and those of the entries that they release."""
        chosen = {*quarantine_ids}
        chosen |= {
            entry.releases for entry in self.entries if entry.quarantine_id in chosen and entry.releases
        }
        return tuple(span for entry in self.entries if entry.quarantine_id in chosen for span in entry.spans)

    def meets(self, stream_id: str, partition: int, start: int, end: int) -> bool:
        """Whether anything of a range may be quarantined."""
        return any(span.meets(stream_id, partition, start, end) for span in self.spans)

    def rows(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """Which rows of a landed table, of which `KEY_COLUMNS` are needed, are quarantined."""
        covered = np.zeros(table.num_rows, np.bool_)
        for span in self.spans:
            of_span = pc.and_(
                pc.and_(
                    pc.equal(table["stream_id"], span.stream_id),
                    pc.equal(table["kafka_partition"], span.partition),
                ),
                pc.and_(
                    pc.greater_equal(table["kafka_offset"], span.start),
                    pc.less(table["kafka_offset"], span.end),
                ),
            )
            if span.source_file is not None:
                of_span = pc.and_(of_span, pc.equal(table["source_file"], span.source_file))
            covered |= of_span.to_numpy(zero_copy_only=False)
        return covered

    def standing(self, claims: Iterable[Claim]) -> list[Claim]:
        """Claims without what was superseded of them, for who judges whether they follow one another: one of which
        nothing stands is left out, one of which only a part stands has the bounds of that part."""
        superseded: dict[str, list[tuple[int, int]]] = {}
        for span in self.spans:
            if span.source_file is not None:
                superseded.setdefault(span.source_file, []).append((span.start, span.end))
        if not superseded:
            return [*claims]
        return [
            claim
            if (start, end) == (claim.start, claim.end)
            else msgspec.structs.replace(claim, start=start, end=end)
            for claim in claims
            for start, end in without([(claim.start, claim.end)], superseded.get(claim.landing_key, ()))
        ]


NOTHING_QUARANTINED = Quarantine()
