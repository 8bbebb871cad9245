"""Values of many JSON messages of one shape at once, from their bytes, with numpy and no parser.

Messages of a device model differ in their values only. `shape_of` takes a message
apart into what stays the same (names, colons, commas, spaces) and its values;
`Buffer.match` finds the messages that consist of exactly these bytes and, between
them, texts without quotes and other unquoted values. A message found so, whose
unquoted values are numbers by `Buffer.numbers`, is one JSON object that cannot be
read in two ways. Nothing here knows the contract.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# Before the first and after the last message: what is looked for around a position may not go further.
PADDING = b" " * 32
# Bytes are searched in blocks that stay in the processor's cache: a third of the time.
BLOCK_BYTES = 128 * 1024

_MEMBER = re.compile(
    rb'(?P<fixed>[{,] ?"(?P<name>[^"\\\x00-\x1f]*)": ?)'
    rb'(?:"(?P<text>[^"\\\x00-\x1f]*)"|(?P<literal>null|true|false)|-?[0-9.]+)(?=[,}])'
)
_QUOTE, _MINUS, _ZERO = b'"-0'
_ALL_BITS = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW_BITS = np.uint64(0x7F7F_7F7F_7F7F_7F7F)
_HIGH_BITS = np.uint64(0x8080_8080_8080_8080)
_ZEROS = np.uint64(0x3030_3030_3030_3030)
_POINTS = np.uint64(0x2E2E_2E2E_2E2E_2E2E)
_TO_NINE = np.uint64(0x7676_7676_7676_7676)
_PAIRS = np.uint64(0x0000_00FF_0000_00FF)
_PAIR_WEIGHTS = np.uint64(0x000F_4240_0000_0064), np.uint64(0x0000_2710_0000_0001)


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a shape: `fixed` is all between the values before and here, quotes included.

    `kind` is "text", "number" or "literal": null, true or false, which is part of `fixed`.
    """

    name: str
    fixed: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What messages have in common: parts and the `tail` after the last value."""

    parts: list[Part]
    tail: bytes
    literals: dict[str, bytes]

    @property
    def quotes(self) -> int:
        """How many quotes each message has."""
        return sum(part.fixed.count(b'"') for part in self.parts) + self.tail.count(b'"')


@dataclass(frozen=True, slots=True)
class Spans:
    """Where a member's values begin and end in the buffer, one per message."""

    start: Ints
    end: Ints


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers as (whole + fraction / 10**decimals), negated where `negative`.

    `decimals` is 0 to 7, and -1 without a point; what is not `valid` is no JSON number,
    or one of more than 8 digits before or 7 after the point, or with an exponent.
    """

    whole: Ints
    fraction: Ints
    decimals: Ints
    negative: Bools
    valid: Bools


def shape_of(message: bytes) -> Shape | None:
    """A message's shape; None for nested objects, escapes, uncommon spaces and what is no object at all."""
    parts: list[Part] = []
    literals: dict[str, bytes] = {}
    at, carried = 0, b""
    while (match := _MEMBER.match(message, at)) is not None and (match["fixed"][:1] == b"{") == (at == 0):
        name, fixed = match["name"].decode(errors="replace"), carried + match["fixed"]
        carried = b""
        if match["text"] is not None:
            parts.append(Part(name, fixed + b'"', "text"))
            carried = b'"'
        elif match["literal"] is not None:
            parts.append(Part(name, fixed + match["literal"], "literal"))
            literals[name] = match["literal"]
        else:
            parts.append(Part(name, fixed, "number"))
        if len(parts[-1].fixed) > len(PADDING):
            return None
        at = match.end()
    return Shape(parts, carried + b"}", literals) if parts and message[at:] == b"}" else None


class Buffer:
    """Messages in a row: message i is `data[bounds[i]:bounds[i + 1]]`.

    `plain` are those of UTF-8 without backslashes and control characters.
    """

    def __init__(self, messages: Sequence[bytes], lengths: Ints) -> None:
        self.data = b"".join([PADDING, *messages, PADDING])
        self.bounds = np.full(len(messages) + 1, len(PADDING), np.int64)
        self.bounds[1:] += np.cumsum(lengths)
        self.array = np.frombuffer(self.data, np.uint8)
        # The 8 bytes that begin at each position.
        self._words = np.ndarray((len(self.data) - 7,), "<u8", self.data, 0, (1,))
        self._quotes = self._positions(_QUOTE)
        self._first_quotes = np.searchsorted(self._quotes, self.bounds)
        self._quote_counts = np.diff(self._first_quotes)
        self.plain = self._plain()

    def typical(self, rows: Ints) -> int:
        """One of some messages, with the most common number of quotes; it likely has the most common shape."""
        counts = self._quote_counts[rows]
        common = rows[counts == np.bincount(counts).argmax()]
        return int(common[len(common) // 2])

    def match(self, shape: Shape, rows: Ints) -> tuple[Ints, list[Spans]]:
        """Which of some plain messages have a shape, and where the values of each of its parts are."""
        rows = rows[self._quote_counts[rows] == shape.quotes]
        places = np.arange(shape.quotes)[:, None] + self._first_quotes[rows]
        quotes = self._quotes[places]
        starts, at = [], 0
        for part in shape.parts:
            starts.append(quotes[at] - part.fixed.index(b'"'))
            at += part.fixed.count(b'"')
        starts.append(self.bounds[1:][rows] - len(shape.tail))
        good = (starts[0] == self.bounds[:-1][rows]) & self._are(starts[-1], shape.tail)
        spans = []
        for part, start, end in zip(shape.parts, starts, starts[1:], strict=False):
            good &= self._are(start, part.fixed)
            span = Spans(start + len(part.fixed), end)
            good &= span.end == span.start if part.kind == "literal" else span.end >= span.start
            spans.append(span)
            if not good.any():
                return rows[:0], []
        if good.all():
            return rows, spans
        return rows[good], [Spans(span.start[good], span.end[good]) for span in spans]

    def texts(self, spans: Spans) -> pa.Array:
        """Values as strings."""
        count = len(spans.start)
        offsets = np.zeros(2 * count + 1, np.int32)
        offsets[:-1:2], offsets[1::2], offsets[-1:] = spans.start, spans.end, spans.end[-1:]
        # Every other piece lies between two values.
        pieces = pa.StringArray.from_buffers(2 * count, pa.py_buffer(offsets), pa.py_buffer(self.data))
        return pieces.take(pa.array(np.arange(0, 2 * count, 2)))

    def messages(self) -> pa.Array:
        """All messages as strings, without a copy; those that are not `plain` may be no text."""
        return pa.StringArray.from_buffers(
            len(self.plain), pa.py_buffer(self.bounds.astype(np.int32)), pa.py_buffer(self.data)
        )

    def numbers(self, spans: Spans) -> Numbers:
        """Values as numbers."""
        negative = self.array[spans.start] == _MINUS
        start = spans.start + negative
        length = spans.end - start
        tail = self._words[spans.end - 8]
        decimals = _decimals(tail, length)
        digits = length - 1 - decimals
        fraction, proper = _digits(tail, decimals)
        whole, proper_whole = _digits(self._words[spans.end - decimals - 9], digits)
        valid = proper & proper_whole & (decimals != 0) & (digits >= 1) & (digits <= 8)
        valid &= (digits == 1) | (self.array[start] != _ZERO)
        return Numbers(whole, fraction, decimals, negative, valid)

    def are_times(self, spans: Spans) -> Bools:
        """Which values look like 2026-06-01T00:00:00Z, with at most 6 decimals; whether they exist is not looked at."""
        length = spans.end - spans.start
        size = np.clip(length - 20, 0, 7)
        proper = (length >= 20) & (length <= 27) & (size != 1)
        for at, pattern in ((0, b"0000-00-"), (8, b"00T00:00"), (11, b"00:00:00")):
            proper &= _looks_like(self._words[spans.start + at], _word(pattern), _slack(pattern))
        tail = self._words[spans.end - 8] & _keep_last(size + 1)
        proper &= _looks_like(tail, _FRACTIONS[size], _FRACTION_SLACKS[size])
        return proper

    def messages_at(self, positions: Ints) -> Ints:
        """The numbers of the messages that hold some positions."""
        return np.searchsorted(self.bounds, positions, side="right") - 1

    def count(self, byte: int) -> int:
        """How often a byte, or the one that differs from it by bit 0x20 alone, occurs."""
        return sum(int(np.count_nonzero(block | 0x20 == byte | 0x20)) for _, block in self._blocks())

    def _are(self, positions: Ints, expected: bytes) -> Bools | np.bool_:
        """Where bytes are the expected ones; np.True_ for everywhere."""
        if len(expected) < 8:
            unlike = self._words[positions] ^ _word(expected)
            unlike <<= np.uint64(64 - 8 * len(expected))
        else:
            unlike = self._words[positions + (len(expected) - 8)] ^ _word(expected[-8:])
            for at in range(0, len(expected) - 8, 8):
                unlike |= self._words[positions + at] ^ _word(expected[at : at + 8])
        # The maximum is found five times as fast as whether there is any.
        return unlike == 0 if unlike.max(initial=0) else np.True_

    def _blocks(self) -> list[tuple[int, npt.NDArray[np.uint8]]]:
        places = range(0, len(self.array), BLOCK_BYTES)
        return [(low, self.array[low : low + BLOCK_BYTES]) for low in places]

    def _positions(self, byte: int) -> Ints:
        return np.concatenate([low + np.flatnonzero(block == byte) for low, block in self._blocks()])

    def _plain(self) -> Bools:
        plain = np.ones(len(self.bounds) - 1, np.bool_)
        if any((block < 0x20).any() for _, block in self._blocks()):
            plain[self.messages_at(np.flatnonzero(self.array < 0x20))] = False
        if b"\\" in self.data:
            plain[self.messages_at(np.flatnonzero(self.array == ord("\\")))] = False
        if not self.data.isascii() and not _is_text(self.data):
            pairs = zip(self.bounds[:-1].tolist(), self.bounds[1:].tolist(), strict=True)
            plain &= np.array([_is_text(self.data[low:high]) for low, high in pairs])
        return plain


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _word(text: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(text, "little"))


def _slack(pattern: bytes) -> np.uint64:
    """What has to be added to the difference from a pattern to reach 0x80 where it is too large.

    A 0 in the pattern stands for any digit, other characters for themselves.
    """
    return _word(bytes(0x76 if char == _ZERO else 0x7F for char in pattern))


def _looks_like(word: Words, pattern: Words | np.uint64, slack: Words | np.uint64) -> Bools:
    different = word ^ pattern
    return ((different + slack) | different) & _HIGH_BITS == 0


def _keep_last(count: Ints) -> Words:
    """Masks for the last `count` bytes of 8-byte words; none for what is no count from 1 to 8."""
    return _ALL_BITS << ((8 - count) * 8).astype(np.uint64)


def _decimals(tail: Words, length: Ints) -> Ints:
    """Digits after the first point in the last 8 bytes of numbers `length` bytes long; -1 without a point."""
    other = tail ^ _POINTS
    points = ~(((other & _LOW_BITS) + _LOW_BITS) | other | _LOW_BITS)
    points &= _keep_last(np.minimum(length, 8))
    before = np.bitwise_count((points - np.uint64(1)) & ~points)
    return 7 - (before >> 3).astype(np.int64)


def _digits(word: Words, count: Ints) -> tuple[Ints, Bools]:
    """The last `count` bytes of each word (0 to 8) as a number, and whether all of them are digits.

    The first character is the lowest byte. Digits are added up in pairs, those in fours, those in eights.
    """
    value = (word ^ _ZEROS) & _keep_last(count)
    proper = ((value + _TO_NINE) | value) & _HIGH_BITS == 0
    value = value * np.uint64(10) + (value >> np.uint64(8))
    value = (value & _PAIRS) * _PAIR_WEIGHTS[0] + ((value >> np.uint64(16)) & _PAIRS) * _PAIR_WEIGHTS[1]
    return (value >> np.uint64(32)).astype(np.int64), proper


# Ends of times, by how many bytes come between the seconds and the Z.
_ENDS = [(b"." + b"0" * (size - 1) if size else b"") + b"Z" for size in range(8)]
_FRACTIONS = np.array([_word(end.rjust(8, b"\0")) for end in _ENDS])
_FRACTION_SLACKS = np.array([_slack(end.rjust(8, b"\0")) for end in _ENDS])
