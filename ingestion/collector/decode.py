"""Bulk decoding of telemetry messages into Arrow columns, with the reject of every message that is no event.

Messages in the contract's own JSON form take one of two fast paths. Most of a
chunk's messages have the same few shapes (`shapes`) and are read by their bytes,
column by column, at 2 us a message. The others get a typed parse each (msgspec)
and exact checks on whole columns, at 4 us. Both accept only what provably equals
the strict reference (`ingestion.contracts.telemetry`); what neither does is
decided by the reference itself, accepted or rejected, one by one at 30 us.
Vendor formats are decoded message by message. Nothing here knows Kafka or the lake.

Why no columnar reader: duckdb takes 12.7 and `true` for integers, pyarrow's reader
takes NaN in fields it skips and fails whole batches for one bad message; the regular
expression that would prove their input harmless takes 0.7 us alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingestion.collector.shapes import Bools, Buffer, Ints, Numbers, Shape, Spans, shape_of
from ingestion.contracts import telemetry
from ingestion.contracts.columns import TELEMETRY_FIELDS, TIMESTAMP
from ingestion.contracts.telemetry import RejectError

Payloads = Sequence[bytes]

# 5,000 to 10,000 messages decode fastest; bytes are bounded so that memory is.
CHUNK_MESSAGES = 6_000
CHUNK_BYTES = 16 * 1024 * 1024
# Bytes are scanned in blocks that stay in the processor's cache: a third of the time.
BLOCK_BYTES = 128 * 1024
OVERLAP_BYTES = 16

# Shapes looked for in a chunk, of which so many may be rare: below this share of the chunk the half
# millisecond that a shape takes at least is not worth it.
MAX_SHAPES = 6
MAX_RARE_SHAPES = 2
RARE = 0.05

_EPOCH = datetime(1970, 1, 1)
_OUTPUT = pa.schema([*TELEMETRY_FIELDS, pa.field("payload", pa.string())])


def _is_number(field: pa.Field) -> bool:
    return pa.types.is_decimal(field.type) or pa.types.is_integer(field.type)


_TEXTS = [field.name for field in TELEMETRY_FIELDS if pa.types.is_string(field.type)]
_MEASURES = [field for field in TELEMETRY_FIELDS if pa.types.is_decimal(field.type)]
_COUNTS = [field.name for field in TELEMETRY_FIELDS if pa.types.is_integer(field.type)]
_QUOTED = {field.name for field in TELEMETRY_FIELDS if not _is_number(field)}
_VERSIONS = pa.array([*telemetry.SCHEMA_VERSIONS], pa.int32())
_POWERS = 10 ** np.arange(8)
_CANONICAL_TIME = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$"
# Bytes after which a number may start.
_STARTS_NUMBER = np.isin(np.arange(256), np.frombuffer(b":,[ ", np.uint8))
_TINY = re.compile(rb"-[0-9]{3,}[,}\] ]")
_MEMBER = re.compile(rb'"([^"]*)"\s*:')

# Integers may parse as floats here (msgspec takes 1.0 for an int), so that the column tells.
_Parsed = msgspec.defstruct(
    "_Parsed",
    [
        (
            field.name,
            (float | None)
            if pa.types.is_decimal(field.type)
            else (int | float | None)
            if pa.types.is_integer(field.type)
            else (str | None),
            None,
        )
        for field in TELEMETRY_FIELDS
    ],
    gc=False,
)
_parse = msgspec.json.Decoder(_Parsed).decode
_NAMES = [field.name for field in TELEMETRY_FIELDS]


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
    payloads: Payloads, arrival_us: Ints, max_bytes: int = telemetry.MAX_MESSAGE_BYTES
) -> DecodedBatch:
    """Decode messages in the contract's JSON form; `arrival_us` is their receipt in epoch microseconds."""
    parts = [
        _decode_chunk(payloads[low:high], arrival_us[low:high], low, max_bytes)
        for low, high in _chunks(payloads)
    ]
    return _concatenate(parts)


def decode_vendor(
    payloads: Payloads, arrival_us: Ints, decode: Decode, max_bytes: int = telemetry.MAX_MESSAGE_BYTES
) -> DecodedBatch:
    """Decode messages of a vendor's format one by one; the payload column holds the message's text."""

    def parse(payload: bytes) -> dict[str, Any]:
        telemetry.check_text(payload, max_bytes)
        return telemetry.validate_event(decode(payload))

    return _decode_each(payloads, arrival_us, range(len(payloads)), parse)


def _chunks(payloads: Payloads) -> list[tuple[int, int]]:
    sizes = np.fromiter(map(len, payloads), np.int64, len(payloads))
    ends = np.cumsum(sizes)
    # Equal parts: a small rest would cost as much as thousands of messages.
    even = -(-len(payloads) // max(1, -(-len(payloads) // CHUNK_MESSAGES)))
    bounds, low = [], 0
    while low < len(payloads):
        before = ends[low - 1] if low else 0
        fitting = int(np.searchsorted(ends, before + CHUNK_BYTES, side="right"))
        high = min(max(fitting, low + 1), low + even)
        bounds.append((low, high))
        low = high
    return bounds


def _concatenate(parts: list[DecodedBatch]) -> DecodedBatch:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return DecodedBatch(_OUTPUT.empty_table(), np.empty(0, np.int64), [])
    return DecodedBatch(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.index for part in parts]),
        [reject for part in parts for reject in part.rejects],
    )


def _shift(batch: DecodedBatch, by: int) -> DecodedBatch:
    if not by:
        return batch
    rejects = [Rejected(r.index + by, r.reason, r.detail) for r in batch.rejects]
    return DecodedBatch(batch.table, batch.index + by, rejects)


def _decode_chunk(payloads: Payloads, arrival_us: Ints, low: int, max_bytes: int) -> DecodedBatch:
    parts = _rows_by_shape(payloads, arrival_us, max_bytes)
    left = _left(len(payloads), parts)
    if len(left):
        table, accepted = _fast_rows([payloads[i] for i in left.tolist()], arrival_us[left], max_bytes)
        parts.append(DecodedBatch(table, left[accepted], []))
        left = left[~accepted]
    if len(left):
        parts.append(
            _decode_each(
                payloads, arrival_us, left.tolist(), lambda payload: telemetry.parse_event(payload, max_bytes)
            )
        )
    return _shift(_merge(parts), low)


def _left(count: int, parts: list[DecodedBatch]) -> Ints:
    """Positions of a chunk that no part has."""
    left = np.ones(count, np.bool_)
    for part in parts:
        left[part.index] = False
    return np.flatnonzero(left)


def _merge(parts: list[DecodedBatch]) -> DecodedBatch:
    """Parts of a chunk as one batch in the order of its messages."""
    whole = _concatenate([part for part in parts if len(part.index) or part.rejects])
    if (np.diff(whole.index) > 0).all():
        return whole
    order = np.argsort(whole.index, kind="stable")
    return DecodedBatch(whole.table.take(pa.array(order)), whole.index[order], whole.rejects)


def _decode_each(
    payloads: Payloads,
    arrival_us: Ints,
    positions: Sequence[int],
    parse: Callable[[bytes], dict[str, Any]],
) -> DecodedBatch:
    events, index, rejects = [], [], []
    for position in positions:
        payload = payloads[position]
        try:
            event = parse(payload)
            telemetry.check_clock(
                event["event_ts"], _EPOCH + timedelta(microseconds=int(arrival_us[position]))
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


def _rows_by_shape(payloads: Payloads, arrival_us: Ints, max_bytes: int) -> list[DecodedBatch]:
    """Events of the messages that have one of the chunk's most common shapes and pass every check."""
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    buffer = Buffer(payloads, lengths)
    texts = buffer.messages()
    rows = np.flatnonzero(buffer.plain & (lengths <= max_bytes) & _few_brackets(buffer))
    parts: list[DecodedBatch] = []
    rare = 0
    while len(rows) > RARE * len(payloads) and rare < MAX_RARE_SHAPES and len(parts) < MAX_SHAPES:
        example = buffer.typical(rows)
        shape = shape_of(payloads[example])
        found, spans = (
            buffer.match(shape, rows) if shape is not None and _is_allowed(shape) else (rows[:0], [])
        )
        if shape is None or len(found) <= RARE * len(payloads):
            rows = rows[rows != example]
            rare += 1
            continue
        rows = rows[:0] if len(found) == len(rows) else np.setdiff1d(rows, found, assume_unique=True)
        good = np.ones(len(found), np.bool_)
        columns = _shape_columns(buffer, shape, spans, good)
        good &= _on_time(columns["event_ts"], arrival_us[found])
        whole = len(found) == len(payloads)
        columns["payload"] = texts if whole else texts.take(pa.array(found))
        table = pa.Table.from_arrays([columns[name] for name in _OUTPUT.names], schema=_OUTPUT)
        parts.append(DecodedBatch(table if good.all() else table.filter(pa.array(good)), found[good], []))
    return parts


def _few_brackets(buffer: Buffer) -> Bools | np.bool_:
    """Messages that the reference does not refuse for their number of brackets."""
    begin = buffer.bounds[:-1][np.diff(buffer.bounds) > 0]
    others = int(np.count_nonzero(buffer.array[begin] == ord("{"))) - 1
    # "[" too: it differs by that bit alone.
    if buffer.count(ord("{")) <= others + telemetry.MAX_BRACKETS:
        return np.True_
    rows = buffer.messages_at(np.flatnonzero((buffer.array | 0x20) == ord("{")))
    return np.bincount(rows, minlength=len(buffer.plain)) <= telemetry.MAX_BRACKETS


def _is_allowed(shape: Shape) -> bool:
    """Whether the contract allows such messages, as far as the shape tells."""
    known = [part for part in shape.parts if part.name in telemetry.TYPES]
    names = {part.name: part.kind for part in known}
    return (
        len(names) == len(known)
        and all(names.get(name) == "text" for name in telemetry.REQUIRED)
        and all(
            shape.literals[name] == b"null" if kind == "literal" else (kind == "text") == (name in _QUOTED)
            for name, kind in names.items()
        )
    )


def _shape_columns(buffer: Buffer, shape: Shape, spans: list[Spans], good: Bools) -> dict[str, pa.Array]:
    """Typed columns of the messages of a shape; clears `good` where a value is not what the column holds."""
    columns = {field.name: pa.nulls(len(good), field.type) for field in TELEMETRY_FIELDS}
    for part, span in zip(shape.parts, spans, strict=True):
        field_type = telemetry.TYPES.get(part.name)
        if part.kind == "text" and field_type is not None:
            columns[part.name] = _checked_texts(part.name, buffer, span, good)
        elif part.kind == "number":
            numbers = buffer.numbers(span)
            good &= numbers.valid
            if field_type is not None:
                columns[part.name] = _checked_numbers(part.name, field_type, numbers, good)
        if part.name == "event_ts":
            columns["event_ts"] = _existing_moments(columns["event_ts"], buffer.are_times(span), good)
    versions = columns["schema_version"]
    if versions.null_count < len(versions):
        good &= pc.is_in(versions, _VERSIONS).to_numpy(zero_copy_only=False)
    return columns


def _checked_texts(name: str, buffer: Buffer, span: Spans, good: Bools) -> pa.Array:
    size = span.end - span.start
    good &= size <= telemetry.MAX_TEXT_CHARS
    if name in telemetry.REQUIRED:
        good &= size > 0
    return buffer.texts(span)


def _checked_numbers(name: str, kind: pa.DataType, numbers: Numbers, good: Bools) -> pa.Array:
    """Numbers as the column's type; clears `good` for those it does not hold exactly."""
    is_decimal = pa.types.is_decimal(kind)
    scale = kind.scale if is_decimal else 0
    limit = 10**kind.precision if is_decimal else telemetry.MAX_INT + 1
    surplus = scale - np.maximum(numbers.decimals, 0)
    units = numbers.whole * 10**scale + numbers.fraction * _POWERS[surplus]
    units = np.where(numbers.negative, -units, units)
    low, high = telemetry.BOUNDS.get(name, (None, None))
    least = 1 - limit if low is None else max(1 - limit, low * 10**scale)
    most = limit - 1 if high is None else min(limit - 1, high * 10**scale)
    fits = (units >= least) & (units <= most)
    fits &= surplus >= 0 if is_decimal else numbers.decimals < 0
    good &= fits
    if not is_decimal:
        return pa.array(np.where(fits, units, 0).astype(np.int32))
    return _decimal_array(np.where(fits, units, 0), kind)


def _decimal_array(units: Ints, kind: pa.DataType, validity: pa.Buffer | None = None) -> pa.Array:
    """Whole numbers of a decimal's last place as decimals."""
    words = np.empty((len(units), 2), np.int64)
    words[:, 0] = units
    words[:, 1] = words[:, 0] >> 63
    return pa.Array.from_buffers(kind, len(units), [validity, pa.py_buffer(words)])


def _on_time(moments: pa.Array, arrival_us: Ints) -> Bools:
    """Events not older than is allowed at their receipt, nor further ahead."""
    event_us = moments.cast(pa.int64()).to_numpy()
    return (event_us >= arrival_us - telemetry.MAX_AGE // timedelta(microseconds=1)) & (
        event_us <= arrival_us + telemetry.MAX_AHEAD // timedelta(microseconds=1)
    )


def _plain_rows(payloads: Payloads, max_bytes: int) -> Bools:
    """Messages whose bytes alone allow the fast path.

    Left to the reference are those on which the typed parser is laxer or blind:
    escapes and line breaks (repeated names could hide), broken text in fields it
    skips, many brackets, and numbers that a double cannot tell from a shorter one.
    """
    data = b"\n".join(payloads)
    lengths = np.fromiter(map(len, payloads), np.int64, len(payloads))
    plain = (lengths >= 2) & (lengths <= max_bytes)
    starts = np.zeros(len(payloads), np.int64)
    np.cumsum(lengths[:-1] + 1, out=starts[1:])
    array = np.frombuffer(data, np.uint8)

    def exclude(positions: Any) -> None:
        plain[np.searchsorted(starts, positions, side="right") - 1] = False

    controls = openings = 0
    for low in range(0, len(array), BLOCK_BYTES):
        block = array[low : low + BLOCK_BYTES]
        controls += int(np.count_nonzero(block < 0x20))
        # "[" too: it differs by that bit alone.
        openings += int(np.count_nonzero((block | 0x20) == ord("{")))
        # Patterns span less than the overlap, so each is whole in one block.
        first = max(0, low - OVERLAP_BYTES)
        block = array[first : low + BLOCK_BYTES + OVERLAP_BYTES]
        exclude(first + _long_numbers(block))
        exclude([p for p in (first + _negative_exponents(block)).tolist() if _TINY.match(data, p)])
    if controls != len(payloads) - 1:
        control = array < 0x20
        control[starts[1:] - 1] = False
        exclude(np.flatnonzero(control))
    others = sum(payload[:1] == b"{" for payload in payloads) - 1
    if openings > others + telemetry.MAX_BRACKETS:
        rows = np.searchsorted(starts, np.flatnonzero((array | 0x20) == ord("{")), side="right") - 1
        plain &= np.bincount(rows, minlength=len(payloads)) <= telemetry.MAX_BRACKETS
    if b"\\" in data:
        exclude(np.flatnonzero(array == ord("\\")))
    if b" " in data and b" :" in data:
        exclude([match.start() for match in re.finditer(b" :", data)])
    if not data.isascii():
        exclude(_broken_text(payloads, data, starts))
    return plain


def _sparse_positions(mask: Bools) -> npt.NDArray[np.intp]:
    """np.flatnonzero for masks that are nearly all false, eight positions at a time."""
    whole = len(mask) // 8 * 8
    words = np.flatnonzero(mask[:whole].view(np.uint64))
    near = (words[:, None] * 8 + np.arange(8)).ravel()
    return np.concatenate([near[mask[near]], whole + np.flatnonzero(mask[whole:])])


def _long_numbers(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Where a number has 8 or more digits in a row, before or after its point.

    A number whose double equals that of another number within a column's scale has
    more than 15 significant digits, hence at least 8 in a row on one side of the
    point; no column's own numbers have more than 7.
    """
    digit = (array - ord("0")) < 10
    run = digit[:-1] & digit[1:]
    run = run[:-2] & run[2:]
    run = run[:-4] & run[4:]
    position = _sparse_positions(run)
    if not len(position):
        return position
    before = array[np.maximum(position - 1, 0)]
    further = array[np.maximum(position - 2, 0)]
    return position[
        _STARTS_NUMBER[before] | (before == ord(".")) | ((before == ord("-")) & _STARTS_NUMBER[further])
    ]


def _negative_exponents(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Where the sign of a number's negative exponent of 3 digits or more may be.

    Such a number can vanish into a double's zero.
    """
    sign = _sparse_positions(array == ord("-"))
    sign = sign[(sign > 1) & (sign < len(array) - 3)]
    sign = sign[(array[sign - 1] | 0x20) == ord("e")]
    for distance in (-2, 1, 2, 3):
        sign = sign[array[sign + distance] - ord("0") < 10]
    return sign


def _broken_text(payloads: Payloads, data: bytes, starts: Ints) -> list[int]:
    """Starts of the messages that are not UTF-8."""

    def broken(text: bytes) -> bool:
        try:
            text.decode()
        except UnicodeDecodeError:
            return True
        return False

    if not broken(data):
        return []
    return [start for start, payload in zip(starts.tolist(), payloads, strict=True) if broken(payload)]


def _fast_rows(payloads: Payloads, arrival_us: Ints, max_bytes: int) -> tuple[pa.Table, Bools]:
    """Events of the messages that parse and pass every check, and which messages those are."""
    accepted = _plain_rows(payloads, max_bytes)
    lines: Payloads = payloads
    if not accepted.all():
        lines = [payloads[position] for position in np.flatnonzero(accepted).tolist()]
    parsed = _parse_all(lines)
    if None in parsed:
        kept = np.fromiter((event is not None for event in parsed), np.bool_, len(parsed))
        accepted[accepted] = kept
        lines = [line for line, event in zip(lines, parsed, strict=True) if event is not None]
        parsed = [event for event in parsed if event is not None]
    columns, good = _checked_columns(parsed, arrival_us[accepted])
    good &= _without_repeats(lines, columns)
    columns["payload"] = pa.array(lines, pa.string())
    table = pa.Table.from_arrays([columns[name] for name in _OUTPUT.names], schema=_OUTPUT)
    accepted[accepted] = good
    return (table if good.all() else table.filter(pa.array(good))), accepted


def _parse_all(lines: Payloads) -> list[Any]:
    """Each message as a _Parsed, or None where the typed parser refuses it."""
    parsed: list[Any] = []
    remaining: Iterator[Any] = map(_parse, lines)
    while len(parsed) < len(lines):
        try:
            # What was parsed before a message that fails stays in the list.
            parsed.extend(remaining)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            parsed.append(None)
    return parsed


def _without_repeats(lines: Payloads, columns: dict[str, pa.Array]) -> Bools:
    """Messages that name no field twice: where the typed parser keeps the last one, the reference rejects.

    A message with exactly as many names as there are values has no repeat, no null
    and no unknown field; the names of the others are looked at.
    """
    present = [column for column in columns.values() if column.null_count < len(column)]
    data = np.frombuffer(b"\n".join(lines), np.uint8)
    members = np.count_nonzero((data[:-1] == ord('"')) & (data[1:] == ord(":")))
    # No message has fewer names than values, so equal sums mean equality in each.
    if members == sum(len(column) - column.null_count for column in present):
        return np.ones(len(lines), np.bool_)
    names = np.fromiter((line.count(b'":') for line in lines), np.int64, len(lines))
    values = np.zeros(len(lines), np.int64)
    for column in present:
        values += column.is_valid().to_numpy(zero_copy_only=False)
    unique = names == values
    for position in np.flatnonzero(~unique).tolist():
        found = _MEMBER.findall(lines[position])
        unique[position] = len(found) == len(set(found))
    return unique


def _checked_columns(parsed: list[Any], arrival_us: Ints) -> tuple[dict[str, pa.Array], Bools]:
    """Typed columns, and which rows are exact, complete and within all bounds."""
    good = np.ones(len(parsed), np.bool_)
    columns: dict[str, pa.Array] = {}
    transposed = zip(*map(msgspec.structs.astuple, parsed), strict=True) if parsed else [()] * len(_NAMES)
    raw = dict(zip(_NAMES, transposed, strict=True))
    for name in _TEXTS:
        columns[name] = texts = pa.array(raw[name], pa.string())
        if texts.null_count == len(texts):
            good &= name not in telemetry.REQUIRED
            continue
        size = pc.fill_null(pc.binary_length(texts), 0).to_numpy()
        good &= size <= telemetry.MAX_TEXT_CHARS
        if name in telemetry.REQUIRED:
            good &= size > 0
    for field in _MEASURES:
        columns[field.name] = _measure(pa.array(raw[field.name], pa.float64()), field, good)
    for name in _COUNTS:
        columns[name] = _count(raw[name], name, good)
    versions = columns["schema_version"]
    if versions.null_count < len(versions):
        known = pc.is_in(versions, _VERSIONS)
        good &= known.to_numpy(zero_copy_only=False) | _nulls(versions)
    columns["event_ts"] = moments = _moments(pa.array(raw["event_ts"], pa.string()), good)
    good &= _on_time(moments, arrival_us)
    return columns, good


def _nulls(array: pa.Array) -> Bools:
    return array.is_null().to_numpy(zero_copy_only=False)


def _measure(parsed: pa.Array, field: pa.Field, good: Bools) -> pa.Array:
    """Doubles as exact decimals; clears `good` where one does not fit the column without rounding."""
    if parsed.null_count == len(parsed):
        return pa.nulls(len(parsed), field.type)
    precision, scale = field.type.precision, field.type.scale
    value = pc.fill_null(parsed, 0.0).to_numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        units = np.rint(value * 10**scale)
        # The quotient of two exact doubles is the double nearest to the decimal, as parsing is.
        fits = (units / 10**scale == value) & (np.abs(units) < 10**precision)
        low, high = telemetry.BOUNDS.get(field.name, (None, None))
        if low is not None:
            fits &= value >= low
        if high is not None:
            fits &= value <= high
    good &= fits
    validity = parsed.is_valid().buffers()[1] if parsed.null_count else None
    return _decimal_array(np.where(fits, units, 0), field.type, validity)


def _count(values: Sequence[int | float | None], name: str, good: Bools) -> pa.Array:
    """Whole numbers as 32 bits; clears `good` for fractions, exponents and what is out of bounds."""
    low = telemetry.BOUNDS.get(name, (-telemetry.MAX_INT, None))[0]

    def fits(value: int | float | None) -> bool:
        return value is None or (type(value) is int and low <= value <= telemetry.MAX_INT)

    if not {int, type(None)}.issuperset(map(type, values)):
        good &= np.fromiter(map(fits, values), np.bool_, len(values))
        values = [value if fits(value) else None for value in values]
    try:
        counts = pa.array(values, pa.int32())
        least = pc.min(counts).as_py()
        if least is None or least >= low:
            return counts
    except (pa.ArrowInvalid, OverflowError):
        pass  # Beyond 32 bits: find out which.
    good &= np.fromiter(map(fits, values), np.bool_, len(values))
    return pa.array([value if fits(value) else None for value in values], pa.int32())


def _moments(texts: pa.Array, good: Bools) -> pa.Array:
    """Texts like 2026-06-01T00:00:00.123Z as naive UTC; clears `good` for any other form."""
    canonical = pc.fill_null(pc.match_substring_regex(texts, _CANONICAL_TIME), False)
    return _existing_moments(texts, canonical.to_numpy(zero_copy_only=False), good)


def _existing_moments(texts: pa.Array, canonical: Bools, good: Bools) -> pa.Array:
    """The same, knowing already which texts have that form."""
    if not canonical.all():
        texts = pc.if_else(pa.array(canonical), texts, "1970-01-01T00:00:00Z")
    try:
        moments = texts.cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:  # A 30th of February: find out which.
        exists = np.fromiter(map(_exists, texts.to_pylist()), np.bool_, len(texts))
        canonical = canonical & exists
        moments = pc.if_else(pa.array(exists), texts, "1970-01-01T00:00:00Z").cast(pa.timestamp("us", "UTC"))
    good &= canonical
    return moments.cast(TIMESTAMP)


def _exists(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
