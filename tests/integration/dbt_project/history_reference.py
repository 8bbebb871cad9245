"""The reference of SCD type 2 histories: written from the contract alone, by somebody who has not read the SQL.

One pure function over plain values, slow and obvious. It is about one feed of one source; what has to be known of the
warehouse (column names, loads, increments) is not here.

The rules, as the contract states them:

- The order of changes is `(changed_at, arrival_ts, stream_id, partition, offset)`.
- Absence: a key in the earlier and not in the later of two neighbouring complete extracts is deleted at the later's
  `extracted_at`. Presence: a key in the later and not in the earlier is, in addition to the change at its own
  `changed_at`, a change at the later's `extracted_at` with the row's content.
- A deletion is a version; a return is a new version; neighbouring versions that are equal are one.
- Versions are `[valid_from, valid_to)`, contiguous from the first on; the last has no end.
- What was known at t is the same function over what had arrived by t.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise


@dataclass(frozen=True)
class Change:
    """One landed record. `content` is everything that makes versions differ; None says deletion.

    `extract_id` names the extract whose row it is; None for a record of a stream of changes.
    """

    key: str
    changed_at: datetime
    arrival_ts: datetime
    stream_id: str
    partition: int
    offset: int
    ingested_at: datetime
    content: Hashable | None
    extract_id: str | None = None

    @property
    def order(self) -> tuple[datetime, datetime, str, int, int]:
        return self.changed_at, self.arrival_ts, self.stream_id, self.partition, self.offset


@dataclass(frozen=True)
class Extract:
    """One landed extract, also one without rows. Only a complete one says what is absent."""

    extract_id: str
    extracted_at: datetime
    arrival_ts: datetime
    stream_id: str
    ingested_at: datetime
    complete: bool


@dataclass(frozen=True)
class Version:
    """`content` held from `valid_from` up to `valid_to` (None: still). `created_at`: the opening record's ingestion.

    A deleted version has no content.
    """

    key: str
    valid_from: datetime
    valid_to: datetime | None
    content: Hashable | None
    created_at: datetime

    @property
    def is_deleted(self) -> bool:
        return self.content is None


def history(
    changes: Iterable[Change], extracts: Iterable[Extract], known_at: datetime | None = None
) -> list[Version]:
    """Versions of all keys, by key and time, as known at `known_at` (None: everything that is here)."""
    landed = [one for one in changes if known_at is None or one.arrival_ts <= known_at]
    stated = [one for one in extracts if known_at is None or one.arrival_ts <= known_at]
    log = [*landed, *_derived(landed, stated)]
    return [
        version
        for key in sorted({one.key for one in log})
        for version in _versions([one for one in log if one.key == key])
    ]


def _derived(landed: Sequence[Change], stated: Sequence[Extract]) -> list[Change]:
    """What neighbouring complete extracts say of keys that only one of them holds."""
    complete = sorted(
        (one for one in stated if one.complete),
        key=lambda one: (one.extracted_at, one.arrival_ts, one.stream_id),
    )
    found = []
    for earlier, later in pairwise(complete):
        before, after = _rows(landed, earlier), _rows(landed, later)
        for key in before.keys() - after.keys():
            found.append(_at(later, key, None, offset=-1))
        for key in after.keys() - before.keys():
            found.append(_at(later, key, after[key].content, offset=after[key].offset))
    return found


def _rows(landed: Sequence[Change], extract: Extract) -> dict[str, Change]:
    """What an extract holds by key: its last row of the key; a row that says deletion holds nothing."""
    rows = sorted((one for one in landed if one.extract_id == extract.extract_id), key=lambda one: one.order)
    last = {one.key: one for one in rows}
    return {key: one for key, one in last.items() if one.content is not None}


def _at(extract: Extract, key: str, content: Hashable | None, offset: int) -> Change:
    return Change(
        key=key,
        changed_at=extract.extracted_at,
        arrival_ts=extract.arrival_ts,
        stream_id=extract.stream_id,
        partition=0,
        offset=offset,
        ingested_at=extract.ingested_at,
        content=content,
        extract_id=extract.extract_id,
    )


def _versions(log: Sequence[Change]) -> list[Version]:
    """One key's changes as versions."""
    opening: list[Change] = []
    for one in sorted(log, key=lambda one: one.order):
        # Said again, nothing new begins: the record that said it first has opened the version.
        if opening and opening[-1].content == one.content:
            continue
        # Of several changes at one moment the last one holds; the others held for no time.
        if opening and opening[-1].changed_at == one.changed_at:
            opening.pop()
            if opening and opening[-1].content == one.content:
                continue
        opening.append(one)
    ends = [*(one.changed_at for one in opening[1:]), None]
    return [
        Version(one.key, one.changed_at, end, one.content, one.ingested_at)
        for one, end in zip(opening, ends, strict=True)
    ]
