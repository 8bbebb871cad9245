"""From a request to spans of the quarantine ledger, and the landed rows that these cover.

Everything is read from the objects in force; nothing is entered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contracts.registry import TELEMETRY_FEED
from lake.landed import read_columns, scan
from lake.landing import Manifest
from lake.quarantine import KEY_COLUMNS, Quarantine, QuarantineEntry, Span, quarantine_entry
from lake.redactions import merged, without
from lake.replacements import Replacements
from lake.store import ObjectStore

_TELEMETRY_COLUMNS = ("device_id", "event_ts", "arrival_ts")
# Names that an error lists.
_SHOWN = 5


class QuarantineRequestError(ValueError):
    """What was asked for cannot be quarantined or released; the message names it and what is there."""


@dataclass(frozen=True)
class Covered:
    """Landed rows of some spans: how many, on which event dates (UTC), of how many devices. Records have neither."""

    rows: int
    event_dates: tuple[date, ...]
    devices: int


@dataclass(frozen=True)
class FoundRow:
    """One landed telemetry row, by its place, with its times (naive UTC) and device."""

    stream_id: str
    partition: int
    offset: int
    arrival_ts: datetime
    event_ts: datetime
    device_id: str


def requested_spans(
    manifests: Iterable[Manifest], stream_id: str, partition: int, asked: Iterable[tuple[int, int]]
) -> list[Span]:
    """Spans of the asked `[start, end)` offsets of a partition.

    Raises QuarantineRequestError for an unknown stream or partition, bounds that hold nothing, offsets that have
    not landed.
    """
    streams: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for m in manifests:
        streams.setdefault(m.stream_id, {}).setdefault(m.partition, []).append((m.start, m.end))
    if stream_id not in streams:
        near = [name for name in sorted(streams) if stream_id in name] or sorted(streams)
        raise QuarantineRequestError(
            f"nothing of stream '{stream_id}' has landed; there are {len(streams)} streams, such as"
            f" {', '.join(near[:_SHOWN])}"
        )
    landed = streams[stream_id].get(partition)
    if landed is None:
        known = ", ".join(map(str, sorted(streams[stream_id])[:_SHOWN]))
        raise QuarantineRequestError(
            f"nothing of {stream_id} partition {partition} has landed; there is {known}"
        )
    wanted = [*asked]
    if empty := [(start, end) for start, end in wanted if not 0 <= start < end]:
        raise QuarantineRequestError(
            f"[{empty[0][0]}, {empty[0][1]}) holds no offset; --start lies before --end"
        )
    if missing := without(wanted, landed):
        bounds = merged(landed)
        raise QuarantineRequestError(
            f"offsets [{missing[0][0]}, {missing[0][1]}) of {stream_id} partition {partition} have not landed;"
            f" landed are [{bounds[0][0]}, {bounds[-1][1]})"
        )
    return [Span(stream_id, partition, start, end) for start, end in merged(wanted)]


def beyond(spans: Iterable[Span], quarantine: Quarantine) -> list[Span]:
    """What of the spans is not quarantined yet."""
    return [
        Span(span.stream_id, span.partition, start, end)
        for span in spans
        for start, end in without(
            [(span.start, span.end)],
            [
                (known.start, known.end)
                for known in quarantine.spans
                if known.source_file is None
                and (known.stream_id, known.partition) == (span.stream_id, span.partition)
            ],
        )
    ]


def rows_in(
    store: ObjectStore, manifests: Iterable[Manifest], replacements: Replacements, spans: Sequence[Span]
) -> pa.Table:
    """Landed rows of the spans: their keys, and of telemetry device and times."""
    quarantine = Quarantine((quarantine_entry("", "", datetime.min, spans),))
    tables = []
    for m in manifests:
        if not m.rows or not quarantine.meets(m.stream_id, m.partition, m.start, m.end):
            continue
        more = _TELEMETRY_COLUMNS if m.feed == TELEMETRY_FEED else ()
        table = read_columns(store, replacements.main_object_of(m), [*KEY_COLUMNS, *more])
        tables.append(table.filter(pa.array(quarantine.rows(table))))
    if not tables:
        return pa.table({"kafka_offset": pa.array([], pa.int64())})
    return pa.concat_tables(tables, promote_options="default")


def covered(rows: pa.Table) -> Covered:
    """What rows of `rows_in` are."""
    if "event_ts" not in rows.column_names:
        return Covered(rows.num_rows, (), 0)
    days = pc.unique(pc.cast(rows["event_ts"].drop_null(), pa.date32(), safe=False)).to_pylist()
    return Covered(rows.num_rows, tuple(sorted(days)), pc.count_distinct(rows["device_id"]).as_py())


def checked_rows(rows: pa.Table, spans: Iterable[Span], named_one_by_one: bool) -> None:
    """Raise QuarantineRequestError where a request names no row: a whole range without any, or one offset."""
    held = np.unique(rows["kafka_offset"].to_numpy())
    for span in spans:
        here = held[(held >= span.start) & (held < span.end)]
        if named_one_by_one and len(here) < span.end - span.start:
            lacking = sorted({*range(span.start, span.end)} - {*here.tolist()})[0]
            raise QuarantineRequestError(
                f"offset {lacking} of {span.stream_id} partition {span.partition} is no row: it was rejected, dropped"
                " by consent, erased, or is a gap"
            )
        if not len(here):
            raise QuarantineRequestError(f"{span} holds no row")


def entry_to_release(quarantine: Quarantine, quarantine_id: str) -> QuarantineEntry:
    """The entry in force of that id. Raises QuarantineRequestError for any other, and for one that supersedes a
    claim: its rows would be there twice."""
    for entry in quarantine.in_force:
        if entry.quarantine_id == quarantine_id:
            if any(span.source_file is not None for span in entry.spans):
                raise QuarantineRequestError(
                    f"{quarantine_id} supersedes a claim that repeats another; released, its rows would be there twice"
                )
            return entry
    if quarantine_id in quarantine.released:
        raise QuarantineRequestError(f"{quarantine_id} was released before")
    raise QuarantineRequestError(
        f"the ledger has no entry '{quarantine_id}' that quarantines anything; `petwellness quarantine list` has all"
    )


def received_outside(
    store: ObjectStore,
    manifests: Iterable[Manifest],
    replacements: Replacements,
    after: datetime | None,
    before: datetime | None,
) -> list[FoundRow]:
    """Landed telemetry received after `after` or before `before` (naive UTC), by place. Only ranges whose bounds say
    that they hold some are read."""
    by_key = {
        replacements.main_object_of(m): m
        for m in manifests
        if m.feed == TELEMETRY_FEED
        and m.rows
        and (
            (after is not None and m.max_arrival_ts is not None and m.max_arrival_ts > after)
            or (before is not None and m.min_arrival_ts is not None and m.min_arrival_ts < before)
        )
    }
    arrival, only = pc.field("arrival_ts"), pc.scalar(False)
    if after is not None:
        only |= arrival > pa.scalar(after, pa.timestamp("us"))
    if before is not None:
        only |= arrival < pa.scalar(before, pa.timestamp("us"))
    columns = ["stream_id", "kafka_partition", "kafka_offset", "arrival_ts", "event_ts", "device_id"]
    found = [
        FoundRow(*row.values())
        for _, table in scan(store, by_key, columns, only)
        for row in table.select(columns).to_pylist()
    ]
    return sorted(found, key=lambda row: (row.stream_id, row.partition, row.offset))
