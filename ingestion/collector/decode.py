"""Bulk decoding of telemetry messages into Arrow columns, with the reject of every message that is no event.

Messages in the contract's own JSON form are read in one compiled pass (`scan`),
which accepts only what provably equals the strict reference
(`contracts.telemetry`). What it leaves, the reference decides one by one
at 30 us, accepted or rejected. Vendor formats are decoded message by message.
Nothing here knows Kafka or the lake. Why a scanner of our own and no columnar
reader: docs/decisions/019-one-scanner.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from contracts import telemetry
from contracts.columns import TELEMETRY_FIELDS
from contracts.telemetry import ReceiptBounds, RejectError
from ingestion.collector.messages import Ints, Texts, pack

Bools = npt.NDArray[np.bool_]

_EPOCH = datetime(1970, 1, 1)
_OUTPUT = pa.schema([*TELEMETRY_FIELDS, pa.field("payload", pa.string())])
_VERSIONS = np.array([*telemetry.SCHEMA_VERSIONS], np.int32)
_VERSION_PLACE = [field.name for field in TELEMETRY_FIELDS].index("schema_version")


@dataclass(frozen=True, slots=True)
class Rejected:
    """Message number `index` of the batch is no event."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """The events of a batch and its rejects.

    `table` has the telemetry columns and `payload`, one row per accepted message;
    `index` is the position of each row's message in the batch, ascending.
    """

    table: pa.Table
    index: Ints
    rejects: list[Rejected]


Decode = Callable[[bytes], dict[str, Any]]
"""One message of a vendor's format to contract fields in python values; raises RejectError."""


def decode_contract_json(
    payloads: Texts | Sequence[bytes],
    arrival_us: Ints,
    believed: ReceiptBounds,
    max_bytes: int = telemetry.MAX_MESSAGE_BYTES,
) -> DecodedBatch:
    """Decode messages in the contract's JSON form; `arrival_us` is their receipt in epoch microseconds.

    A message whose receipt is not `believed` is a reject.
    """
    messages = payloads if isinstance(payloads, Texts) else pack(payloads)
    table, good = _scanned(messages, arrival_us, believed, max_bytes)
    index = np.flatnonzero(good)
    scanned = DecodedBatch(table, index, [])
    if len(index) == len(messages):
        return scanned
    judged = _decode_each(
        messages,
        arrival_us,
        believed,
        np.flatnonzero(~good),
        lambda payload: telemetry.parse_event(payload, max_bytes),
    )
    return _merged(scanned, judged)


def compile_scanner() -> None:
    """Have the scanner compiled and kept beside its module, so that no later process waits some ten seconds for it."""
    decode_contract_json([b"{}"], np.zeros(1, np.int64), ReceiptBounds(_EPOCH, _EPOCH))


def decode_vendor(
    payloads: Texts | Sequence[bytes],
    arrival_us: Ints,
    believed: ReceiptBounds,
    decode: Decode,
    max_bytes: int = telemetry.MAX_MESSAGE_BYTES,
) -> DecodedBatch:
    """Decode messages of a vendor's format one by one; the payload column holds the message's text."""
    messages = payloads if isinstance(payloads, Texts) else pack(payloads)

    def parse(payload: bytes) -> dict[str, Any]:
        telemetry.check_text(payload, max_bytes)
        return telemetry.validate_event(decode(payload))

    return _decode_each(messages, arrival_us, believed, np.arange(len(messages)), parse)


def concatenate(parts: Sequence[DecodedBatch]) -> DecodedBatch:
    """Batches of consecutive messages as one; `index` and rejects count through."""
    if not parts:
        return DecodedBatch(_OUTPUT.empty_table(), np.empty(0, np.int64), [])
    first = np.cumsum([0, *(len(part.index) + len(part.rejects) for part in parts)]).tolist()
    return DecodedBatch(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.index + low for part, low in zip(parts, first, strict=False)]),
        [
            Rejected(reject.index + low, reject.reason, reject.detail)
            for part, low in zip(parts, first, strict=False)
            for reject in part.rejects
        ],
    )


def _merged(scanned: DecodedBatch, judged: DecodedBatch) -> DecodedBatch:
    """Both parts of a batch in the order of its messages."""
    if not len(judged.index):
        return DecodedBatch(scanned.table, scanned.index, judged.rejects)
    index = np.concatenate([scanned.index, judged.index])
    order = np.argsort(index, kind="stable")
    table = pa.concat_tables([scanned.table, judged.table]).take(pa.array(order))
    return DecodedBatch(table, index[order], judged.rejects)


def _decode_each(
    messages: Texts,
    arrival_us: Ints,
    believed: ReceiptBounds,
    positions: Ints,
    parse: Callable[[bytes], dict[str, Any]],
) -> DecodedBatch:
    events, index, rejects = [], [], []
    for position in positions.tolist():
        payload = messages[position]
        try:
            event = parse(payload)
            telemetry.check_clock(
                event["event_ts"], _EPOCH + timedelta(microseconds=int(arrival_us[position])), believed
            )
        except RejectError as error:
            rejects.append(Rejected(position, error.reason, error.detail))
            continue
        event["payload"] = payload.decode()
        events.append(event)
        index.append(position)
    return DecodedBatch(
        pa.Table.from_pylist(events, schema=_OUTPUT), np.array(index, dtype=np.int64), rejects
    )


@dataclass(frozen=True)
class _Plan:
    """The contract's fields as `scan` takes them: a row of numbers each, and a bit each for the required ones."""

    fields: Ints
    kinds: list[int]
    slots: list[int]
    required: int


@cache
def _plan() -> _Plan:
    from ingestion.collector import scan

    kinds = [_kind(field.type) for field in TELEMETRY_FIELDS]
    slots = [kinds[:place].count(kind) for place, kind in enumerate(kinds)]
    rows = []
    for field, kind, slot in zip(TELEMETRY_FIELDS, kinds, slots, strict=True):
        name = field.name.encode()
        scale = field.type.scale if kind == scan.DECIMAL else 0
        limit = 10**field.type.precision if kind == scan.DECIMAL else telemetry.MAX_INT + 1
        low, high = telemetry.BOUNDS.get(field.name, (None, None))
        least = 1 - limit if low is None else max(1 - limit, low * 10**scale)
        most = limit - 1 if high is None else min(limit - 1, high * 10**scale)
        masks = _words(b"\xff" * len(name))
        rows.append([*_words(name), *masks, len(name), kind, slot, scale, least, most])
    required = sum(1 << i for i, field in enumerate(TELEMETRY_FIELDS) if field.name in telemetry.REQUIRED)
    return _Plan(np.array(rows, np.int64), kinds, slots, required)


def _words(name: bytes) -> list[int]:
    """A field's name as 64-bit numbers, filled up with zeros."""
    from ingestion.collector.scan import NAME_WORDS

    return np.frombuffer(name.ljust(8 * NAME_WORDS, b"\0"), np.int64).tolist()


def _kind(kind: pa.DataType) -> int:
    from ingestion.collector import scan

    if pa.types.is_string(kind):
        return scan.TEXT
    if pa.types.is_timestamp(kind):
        return scan.TIME
    return scan.DECIMAL if pa.types.is_decimal(kind) else scan.INTEGER


def _scanned(
    messages: Texts, arrival_us: Ints, believed: ReceiptBounds, max_bytes: int
) -> tuple[pa.Table, Bools]:
    """Events of the messages that the scanner accepts, and which messages those are."""
    from ingestion.collector import scan

    plan, count = _plan(), len(messages)
    data = np.frombuffer(messages.data, np.uint8)
    kinds = plan.kinds
    texts = np.empty((kinds.count(scan.TEXT), 2, count), np.int64)
    decimals = np.empty((kinds.count(scan.DECIMAL), count, 2), np.int64)
    integers = np.empty((kinds.count(scan.INTEGER), count), np.int32)
    moments = np.empty(count, np.int64)
    present = np.zeros((len(kinds), count), np.bool_)
    good = scan.scan(
        data.ctypes.data,
        messages.bounds,
        plan.fields.ctypes.data,
        len(plan.fields),
        plan.required,
        max_bytes,
        telemetry.MAX_BRACKETS,
        telemetry.MAX_TEXT_CHARS,
        texts,
        decimals,
        integers,
        moments,
        present,
    )
    good &= _on_time(moments, arrival_us, believed)
    good &= _known_version(integers, present, plan)
    rows = None if good.all() else np.flatnonzero(good)
    columns = []
    for field, kind, slot, valid in zip(TELEMETRY_FIELDS, kinds, plan.slots, present, strict=True):
        if kind == scan.TEXT:
            columns.append(_texts(data, texts[slot], valid, rows))
            continue
        numbers: dict[int, npt.NDArray[Any]] = {
            scan.DECIMAL: decimals,
            scan.INTEGER: integers,
            scan.TIME: moments[None],
        }
        columns.append(_numbers(field.type, numbers[kind][slot], valid, rows))
    columns.append(_payload_column(messages, data, rows))
    return pa.Table.from_arrays(columns, schema=_OUTPUT), good


def _on_time(moments: Ints, arrival_us: Ints, believed: ReceiptBounds) -> Bools:
    """Receipts that are believed, of events not older then than is allowed, nor further ahead."""
    one = timedelta(microseconds=1)
    return (
        (arrival_us >= (believed.first - _EPOCH) // one)
        & (arrival_us <= (believed.last - _EPOCH) // one)
        & (moments >= arrival_us - telemetry.MAX_AGE // one)
        & (moments <= arrival_us + telemetry.MAX_AHEAD // one)
    )


def _known_version(integers: npt.NDArray[np.int32], present: npt.NDArray[np.bool_], plan: _Plan) -> Bools:
    versions = integers[plan.slots[_VERSION_PLACE]]
    return ~present[_VERSION_PLACE] | np.isin(versions, _VERSIONS)


def _numbers(kind: pa.DataType, values: npt.NDArray[Any], valid: Bools, rows: Ints | None) -> pa.Array:
    """Values of some rows (all: None) as a column; they have the type's own layout."""
    if rows is not None:
        values, valid = values[rows], valid[rows]
    if not valid.any():
        return pa.nulls(len(valid), kind)
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(valid), [bitmap, pa.py_buffer(np.ascontiguousarray(values))])


def _texts(data: npt.NDArray[np.uint8], spans: Ints, valid: Bools, rows: Ints | None) -> pa.Array:
    from ingestion.collector import scan

    if rows is None:
        rows = np.arange(len(valid))
    if not valid[rows].any():
        return pa.nulls(len(rows), pa.string())
    offsets, gathered = scan.gather(data.ctypes.data, spans[0], spans[1], valid, rows)
    valid = valid[rows]
    bitmap = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.StringArray.from_buffers(
        len(rows), pa.py_buffer(offsets), pa.py_buffer(gathered), null_bitmap=bitmap
    )


def _payload_column(messages: Texts, data: npt.NDArray[np.uint8], rows: Ints | None) -> pa.Array:
    """The messages of some rows as strings; without a copy when it is all of them."""
    if rows is None:
        return pa.StringArray.from_buffers(
            len(messages), pa.py_buffer(messages.bounds.astype(np.int32)), pa.py_buffer(messages.data)
        )
    from ingestion.collector import scan

    present = np.ones(len(messages), np.bool_)
    offsets, gathered = scan.gather(
        data.ctypes.data, messages.bounds[:-1], messages.bounds[1:], present, rows
    )
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(gathered))
