"""Bulk decoding held against the strict reference: same rows, same rejects, same reasons, one message one row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts.columns import TELEMETRY_FIELDS
from contracts.telemetry import (
    MAX_MESSAGE_BYTES,
    ReceiptBounds,
    RejectError,
    check_clock,
    check_text,
    parse_event,
)
from ingestion.collector.decode import DecodedBatch

SCHEMA = pa.schema([*TELEMETRY_FIELDS, pa.field("payload", pa.string())])
EPOCH = datetime(1970, 1, 1)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What the reference says of a batch: events with their payload, and rejects, by position."""

    index: list[int]
    events: list[dict[str, Any]]
    rejects: list[tuple[int, str, str]]


def judge(
    payloads: Sequence[bytes],
    arrival_us: Ints,
    believed: ReceiptBounds,
    parse: Callable[[bytes], dict[str, Any]] | None = None,
    max_bytes: int = MAX_MESSAGE_BYTES,
) -> Judged:
    """The reference's word on each message; `parse` is a vendor's decoder."""
    judged = Judged([], [], [])
    for position, payload in enumerate(payloads):
        try:
            if parse is None:
                event = parse_event(payload, max_bytes)
            else:
                check_text(payload, max_bytes)
                event = parse(payload)
            received = EPOCH + timedelta(microseconds=int(arrival_us[position]))
            check_clock(event["event_ts"], received, believed)
        except RejectError as error:
            judged.rejects.append((position, error.reason, error.detail))
        else:
            judged.index.append(position)
            judged.events.append(event | {"payload": payload.decode()})
    return judged


def disagreements(payloads: Sequence[bytes], decoded: DecodedBatch, judged: Judged) -> list[str]:
    """Where a decoded batch and the reference differ, message by message; empty when they agree."""
    found = []
    rows = dict(zip(decoded.index.tolist(), range(len(decoded.index)), strict=True))
    events = dict(zip(judged.index, judged.events, strict=True))
    rejected = {reject.index: (reject.reason, reject.detail) for reject in decoded.rejects}
    expected = {position: (reason, detail) for position, reason, detail in judged.rejects}
    if decoded.table.schema != SCHEMA:
        found.append(f"schema {decoded.table.schema}")
    if len(rows) + len(rejected) != len(payloads) or len(decoded.rejects) != len(rejected):
        found.append(f"{len(rows)} rows + {len(decoded.rejects)} rejects of {len(payloads)} messages")
    if decoded.index.tolist() != sorted(rows):
        found.append("rows are out of order")
    for position in range(len(payloads)):
        if rejected.get(position) != expected.get(position) or (position in rows) != (position in events):
            ours = rejected.get(position, "a row" if position in rows else "nothing")
            found.append(f"{payloads[position]!r}: {ours}, reference {expected.get(position, 'a row')}")
    same = [position for position in judged.index if position in rows]
    table = decoded.table.take(pa.array([rows[position] for position in same], pa.int64()))
    reference = pa.Table.from_pylist([events[position] for position in same], schema=SCHEMA)
    if table.schema == SCHEMA and not table.equals(reference):
        for position, ours, theirs in zip(same, table.to_pylist(), reference.to_pylist(), strict=True):
            if ours != theirs:
                columns = [name for name in theirs if ours[name] != theirs[name]]
                values = {name: (ours[name], theirs[name]) for name in columns}
                found.append(f"{payloads[position]!r}: differs in (decoded, reference) {values}")
    return found


def unloadable(table: pa.Table) -> list[str]:
    """Payloads of accepted messages that the warehouse could not hold as JSON."""
    import duckdb

    payloads = table.select(["payload"])  # Read by the query below, by this name.
    with duckdb.connect() as con:
        rows = con.execute("select payload from payloads where try_cast(payload as json) is null").fetchall()
    del payloads
    return [row[0] for row in rows]


@dataclass
class Tally:
    """Counts of a run."""

    messages: int = 0
    rows: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, count: int, decoded: DecodedBatch) -> None:
        """Count a batch."""
        self.messages += count
        self.rows += len(decoded.index)
        self.by_reason.update(reject.reason for reject in decoded.rejects)

    @property
    def adds_up(self) -> bool:
        """Each message is one row or one reject."""
        return self.rows + self.by_reason.total() == self.messages
