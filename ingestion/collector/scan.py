"""One pass over the bytes of many JSON messages: the compiled part of decoding.

`scan` reads each message as the contract's JSON form and fills typed columns. It
answers "good" only for a message that the strict reference
(`contracts.telemetry`) provably accepts with the same values, and leaves
every other one to the reference: what breaks a rule, and what is merely unusual (a
known field with an escape, an exponent or surplus decimals). Compiled by numba and
run without the interpreter's lock. Which columns there are is in `decode`; importing
this module costs half a second, so it is imported where it is used.
"""

# What numba compiles is typed by its arguments; an intrinsic's first parameter is not the caller's.
# mypy: disable-error-code="call-arg, var-annotated"

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

# Kinds of fields.
TEXT, DECIMAL, INTEGER, TIME = range(4)

# Nested values are skipped up to this depth; deeper ones are left to the reference.
_MAX_DEPTH = 60
_MAX_FRACTION = 6

_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _PLUS, _POINT, _ZERO = (ord(char) for char in '"\\,:-+.0')
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_LIST, _CLOSE_LIST = (ord(char) for char in "{}[]")
_T, _F, _N, _U, _E, _Z = (ord(char) for char in "tfnueZ")
_SPACE, _TAB, _LINE_FEED, _RETURN = (ord(char) for char in " \t\n\r")
_ESCAPES = tuple(ord(char) for char in '"\\/bfnrt')
_SECOND_US = 1_000_000

# The same byte eight times.
_ONES = np.uint64(0x0101_0101_0101_0101)
_HIGHS = np.uint64(0x8080_8080_8080_8080)
_LOWS = np.uint64(0x7F7F_7F7F_7F7F_7F7F)
_SPACES = np.uint64(_SPACE * 0x0101_0101_0101_0101)
_QUOTES = np.uint64(_QUOTE * 0x0101_0101_0101_0101)
_BACKSLASHES = np.uint64(_BACKSLASH * 0x0101_0101_0101_0101)
_OPENINGS = np.uint64(_OPEN_OBJECT * 0x0101_0101_0101_0101)
_ZEROS = np.uint64(_ZERO * 0x0101_0101_0101_0101)
_TO_NINE = np.uint64(0x7676_7676_7676_7676)
_PAIRS = np.uint64(0x0000_00FF_0000_00FF)
_HIGH_PAIRS, _LOW_PAIRS = np.uint64(0x000F_4240_0000_0064), np.uint64(0x0000_2710_0000_0001)

# Entries of a field's row: its name as words, what of them to compare, and numbers.
NAME_WORDS = 3
NAMES, MASKS, SIZE, KIND, SLOT, SCALE, LEAST, MOST, ENTRIES = 0, 3, 6, 7, 8, 9, 10, 11, 12
# Members beyond so many share places in the memory of their order.
_ORDER_MASK = 63

_compiled = numba.njit(cache=True, nogil=True)
_inlined = numba.njit(cache=True, nogil=True, inline="always")


@intrinsic
def _byte(typing_context, address, place):
    """The byte at `address + place`. Nothing checks that it is there: callers stay within their messages."""

    def load(context, builder, signature, arguments):
        pointer = builder.inttoptr(builder.add(*arguments), ir.IntType(8).as_pointer())
        return builder.load(pointer)

    return types.uint8(types.int64, types.int64), load


@intrinsic
def _word(typing_context, address, place):
    """The eight bytes from `address + place` on, the first one lowest; up to seven may lie behind a message."""

    def load(context, builder, signature, arguments):
        pointer = builder.inttoptr(builder.add(*arguments), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(types.int64, types.int64), load


@_inlined
def _skip_space(data, at, end):
    while (
        at < end
        and _byte(data, at) <= _SPACE
        and (
            _byte(data, at) == _SPACE
            or _byte(data, at) == _LINE_FEED
            or _byte(data, at) == _RETURN
            or _byte(data, at) == _TAB
        )
    ):
        at += 1
    return at


@_inlined
def _is_digit(byte):
    return np.uint8(byte - _ZERO) < 10


@_inlined
def _has_zero(word):
    """The high bit of each byte that is zero; those above the lowest such byte may be wrong."""
    return (word - _ONES) & ~word & _HIGHS


@_inlined
def _bytes_below(found):
    """How many bytes come before the lowest one that has its high bit set."""
    below = (found - np.uint64(1)) & ~found & _ONES
    return np.int64((below * _ONES) >> np.uint64(56)) - 1


@_inlined
def _plain_end(data, at, end):
    """The first quote, backslash or control character from `at` on, or `end`; eight bytes at a time."""
    while at < end:
        word = _word(data, at)
        found = (
            _has_zero(word ^ _QUOTES) | _has_zero(word ^ _BACKSLASHES) | ((word - _SPACES) & ~word & _HIGHS)
        )
        if found:
            return min(at + _bytes_below(found), end)
        at += 8
    return end


@_compiled
def _is_utf8(data, at, end):
    """Whether bytes are UTF-8: no overlong forms, no surrogates, nothing beyond U+10FFFF."""
    while at < end:
        lead = _byte(data, at)
        at += 1
        if lead < 0x80:
            continue
        if 0xC2 <= lead <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            low = 0xA0 if lead == 0xE0 else 0x80
            high = 0x9F if lead == 0xED else 0xBF
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            low = 0x90 if lead == 0xF0 else 0x80
            high = 0x8F if lead == 0xF4 else 0xBF
        else:
            return False
        if at + more > end or _byte(data, at) < low or _byte(data, at) > high:
            return False
        for offset in range(1, more):
            if _byte(data, at + offset) & 0xC0 != 0x80:
                return False
        at += more
    return True


@_compiled
def _skip_text(data, at, end):
    """From after an opening quote to the closing one; -1 if it is no JSON text. Escapes are allowed."""
    while True:
        at = _plain_end(data, at, end)
        if at >= end:
            return -1
        byte = _byte(data, at)
        if byte == _QUOTE:
            return at
        if byte < 0x20:
            return -1
        if byte == _BACKSLASH:
            at += 1
            if at >= end:
                return -1
            byte = _byte(data, at)
            if byte == _U:
                if at + 4 >= end:
                    return -1
                for offset in range(1, 5):
                    digit = _byte(data, at + offset)
                    if not (_is_digit(digit) or 0x61 <= (digit | 0x20) <= 0x66):
                        return -1
                # \ud800 to \udfff: the reference tells a pair from a half.
                if _byte(data, at + 1) | 0x20 == 0x64 and _byte(data, at + 2) >= 0x38:
                    return -1
                at += 4
            elif byte not in _ESCAPES:
                return -1
        at += 1
    return -1


@_compiled
def _skip_number(data, at, end):
    """To after a JSON number; -1 if it is none."""
    if _byte(data, at) == _MINUS:
        at += 1
    if at >= end or not _is_digit(_byte(data, at)):
        return -1
    if _byte(data, at) == _ZERO:
        at += 1
    else:
        while at < end and _is_digit(_byte(data, at)):
            at += 1
    if at < end and _byte(data, at) == _POINT:
        at += 1
        if at >= end or not _is_digit(_byte(data, at)):
            return -1
        while at < end and _is_digit(_byte(data, at)):
            at += 1
    if at < end and (_byte(data, at) | 0x20) == _E:
        at += 1
        if at < end and (_byte(data, at) == _MINUS or _byte(data, at) == _PLUS):
            at += 1
        if at >= end or not _is_digit(_byte(data, at)):
            return -1
        while at < end and _is_digit(_byte(data, at)):
            at += 1
    return at


@_compiled
def _skip_literal(data, at, end):
    """To after true, false or null; -1 if it is none of them."""
    if (
        _byte(data, at) == _F and at + 5 <= end
        and _byte(data, at + 1) == 0x61 and _byte(data, at + 2) == 0x6C and _byte(data, at + 3) == 0x73 and _byte(data, at + 4) == 0x65
    ):  # fmt: skip
        return at + 5
    if at + 4 > end:
        return -1
    if (
        _byte(data, at) == _T
        and _byte(data, at + 1) == 0x72
        and _byte(data, at + 2) == 0x75
        and _byte(data, at + 3) == 0x65
    ):
        return at + 4
    if (
        _byte(data, at) == _N
        and _byte(data, at + 1) == 0x75
        and _byte(data, at + 2) == 0x6C
        and _byte(data, at + 3) == 0x6C
    ):
        return at + 4
    return -1


@_compiled
def _skip_scalar(data, at, end):
    """To after a text, number or literal; -1 if there is none."""
    if _byte(data, at) == _QUOTE:
        at = _skip_text(data, at + 1, end)
        return at + 1 if at >= 0 else -1
    if _byte(data, at) == _MINUS or _is_digit(_byte(data, at)):
        return _skip_number(data, at, end)
    return _skip_literal(data, at, end)


@_compiled
def _skip_name(data, at, end):
    """To after a name, its colon and spaces; -1 if they are not there."""
    if at >= end or _byte(data, at) != _QUOTE:
        return -1
    at = _skip_text(data, at + 1, end)
    if at < 0:
        return -1
    at = _skip_space(data, at + 1, end)
    if at >= end or _byte(data, at) != _COLON:
        return -1
    return _skip_space(data, at + 1, end)


@_compiled
def _skip_value(data, at, end):
    """To after any JSON value that is not nested too deeply; -1 otherwise."""
    # Bit d of `objects` says whether the container at depth d is an object.
    objects, depth = 0, 0
    while at < end:
        # A value begins here.
        byte = _byte(data, at)
        if byte in (_OPEN_OBJECT, _OPEN_LIST):
            is_object = byte == _OPEN_OBJECT
            at = _skip_space(data, at + 1, end)
            if at >= end:
                return -1
            if _byte(data, at) != (_CLOSE_OBJECT if is_object else _CLOSE_LIST):
                depth += 1
                if depth > _MAX_DEPTH:
                    return -1
                if is_object:
                    objects |= 1 << depth
                    at = _skip_name(data, at, end)
                    if at < 0:
                        return -1
                else:
                    objects &= ~(1 << depth)
                continue
            at += 1
        else:
            at = _skip_scalar(data, at, end)
            if at < 0:
                return -1
        # A value has ended; close what ends with it.
        while depth:
            at = _skip_space(data, at, end)
            if at >= end:
                return -1
            is_object = (objects >> depth) & 1 == 1
            if _byte(data, at) == _COMMA:
                at = _skip_space(data, at + 1, end)
                if is_object:
                    at = _skip_name(data, at, end)
                    if at < 0:
                        return -1
                break
            if _byte(data, at) != (_CLOSE_OBJECT if is_object else _CLOSE_LIST):
                return -1
            at += 1
            depth -= 1
        if not depth:
            return at
    return -1


@_inlined
def _two_digits(data, at):
    """Two digits as a number; 255 or more if they are none."""
    tens, ones = np.uint8(_byte(data, at) - _ZERO), np.uint8(_byte(data, at + 1) - _ZERO)
    return np.int64(tens) * 10 + np.int64(ones) if tens < 10 and ones < 10 else np.int64(255)


@_compiled
def _days(year, month, day):
    """Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Hinnant, days_from_civil)."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


@_compiled
def _moment(data, at, end):
    """2026-06-01T00:00:00Z with up to 6 decimals as epoch microseconds, and whether it is one that exists."""
    size = end - at
    if (
        size < 20 or size > 27 or size == 21
        or _byte(data, at + 4) != _MINUS or _byte(data, at + 7) != _MINUS or _byte(data, at + 10) != 0x54
        or _byte(data, at + 13) != _COLON or _byte(data, at + 16) != _COLON or _byte(data, end - 1) != _Z
    ):  # fmt: skip
        return 0, False
    century, of_century = _two_digits(data, at), _two_digits(data, at + 2)
    month, day = _two_digits(data, at + 5), _two_digits(data, at + 8)
    hour, minute, second = (
        _two_digits(data, at + 11),
        _two_digits(data, at + 14),
        _two_digits(data, at + 17),
    )
    if century > 99 or of_century > 99 or hour > 23 or minute > 59 or second > 59:
        return 0, False
    year = 100 * century + of_century
    if year < 1 or month < 1 or month > 12 or day < 1:
        return 0, False
    if month == 2:
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        last = 29 if leap else 28
    else:
        last = 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31
    if day > last:
        return 0, False
    fraction = 0
    if size > 20:
        if _byte(data, at + 19) != _POINT:
            return 0, False
        for place in range(at + 20, end - 1):
            if not _is_digit(_byte(data, place)):
                return 0, False
            fraction = fraction * 10 + (_byte(data, place) - _ZERO)
        for _ in range(_MAX_FRACTION - (size - 21)):
            fraction *= 10
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    return seconds * _SECOND_US + fraction, True


@_inlined
def _entry(fields, field, place):
    return np.int64(_word(fields, 8 * (ENTRIES * field + place)))


@_inlined
def _is_name(data, start, size, fields, field):
    if _entry(fields, field, SIZE) != size:
        return False
    unlike = np.uint64(0)
    for word in range(NAME_WORDS):
        mask = _word(fields, 8 * (ENTRIES * field + MASKS + word))
        name = _word(fields, 8 * (ENTRIES * field + NAMES + word))
        unlike |= (_word(data, start + 8 * word) & mask) ^ name
    return unlike == np.uint64(0)


@_compiled
def _field_of(data, start, size, fields, count):
    """Which field a name is, -1 for an unknown one."""
    for field in range(count):
        if _is_name(data, start, size, fields, field):
            return field
    return -1


@_inlined
def _digits(data, at):
    """The number that up to 8 digits are, and how many there are."""
    other = _word(data, at) ^ _ZEROS
    # What is no digit gets its high bit; so may bytes above the lowest one of them.
    beyond = ((other + _TO_NINE) | other) & _HIGHS
    count = _bytes_below(beyond) if beyond else np.int64(8)
    if not count:
        return np.int64(0), count
    # The first character is the lowest byte: digits are added up in pairs, those in fours, those in eights.
    value = other << np.uint64(64 - 8 * count)
    value = value * np.uint64(10) + (value >> np.uint64(8))
    value = (value & _PAIRS) * _HIGH_PAIRS + ((value >> np.uint64(16)) & _PAIRS) * _LOW_PAIRS
    return np.int64(value >> np.uint64(32)), count


@_inlined
def _brackets_and_high_bits(data, at, end):
    """How many brackets open in some bytes, and whether any byte is not ASCII."""
    brackets, high = 0, np.uint64(0)
    while at + 8 <= end:
        word = _word(data, at)
        high |= word
        # "[" and "{" differ by that bit alone.
        other = (word | _SPACES) ^ _OPENINGS
        found = ~(((other & _LOWS) + _LOWS) | other | _LOWS)
        brackets += np.int64(((found >> np.uint64(7)) * _ONES) >> np.uint64(56))
        at += 8
    while at < end:
        byte = _byte(data, at)
        high |= np.uint64(byte)
        brackets += (byte | 0x20) == _OPEN_OBJECT
        at += 1
    return brackets, (high & _HIGHS) != np.uint64(0)


@_inlined
def _measure(data, at, end, is_integer, scale):
    """A plain number in units of its column's last place, and where it ends; -1 leaves it to the reference."""
    negative = _byte(data, at) == _MINUS
    at += negative
    units, digits = _digits(data, at)
    # More than 7 before the point no column holds; a 0 comes alone.
    if digits == 0 or digits == 8 or (digits > 1 and _byte(data, at) == _ZERO):
        return np.int64(0), np.int64(-1)
    at += digits
    if _byte(data, at) == _POINT:
        fraction, places = _digits(data, at + 1)
        # A fraction of an integer, one that is too long for its column, or none behind a point.
        if is_integer or places == 0 or places > scale:
            return np.int64(0), np.int64(-1)
        at += 1 + places
        for _ in range(places):
            units *= 10
        units += fraction
        scale -= places
    for _ in range(scale):
        units *= 10
    # The number has to end with its message at the latest; an exponent is no end.
    if at > end:
        return np.int64(0), np.int64(-1)
    return (-units if negative else units), at


@_inlined
def _scan_message(
    data, at, end, row, fields, count, required, order, max_brackets, max_text,
    texts, decimals, integers, moments, present,
):  # fmt: skip
    """Fill one row; False leaves the message to the reference."""
    begin = at
    at = _skip_space(data, at, end)
    if at >= end or _byte(data, at) != _OPEN_OBJECT:
        return False
    at = _skip_space(data, at + 1, end)
    seen, member = 0, 0
    while True:
        # A member: its name.
        if at >= end or _byte(data, at) != _QUOTE:
            return False
        start = at + 1
        at = _plain_end(data, start, end)
        # An escape may spell a contract field's name.
        if at >= end or _byte(data, at) != _QUOTE:
            return False
        field = order[member & _ORDER_MASK]
        if field < 0 or not _is_name(data, start, at - start, fields, field):
            field = _field_of(data, start, at - start, fields, count)
            order[member & _ORDER_MASK] = field
        member += 1
        at = _skip_space(data, at + 1, end)
        if at >= end or _byte(data, at) != _COLON:
            return False
        at = _skip_space(data, at + 1, end)
        if at >= end:
            return False
        # Its value.
        if field < 0:
            at = _skip_value(data, at, end)
            if at < 0:
                return False
        else:
            if (seen >> field) & 1:
                return False
            seen |= 1 << field
            kind, slot = _entry(fields, field, KIND), _entry(fields, field, SLOT)
            first = _byte(data, at)
            if first == _N:
                at = _skip_literal(data, at, end)
                if at < 0 or (required >> field) & 1:
                    return False
            elif kind in (DECIMAL, INTEGER):
                units, at = _measure(data, at, end, kind == INTEGER, _entry(fields, field, SCALE))
                if at < 0 or units < _entry(fields, field, LEAST) or units > _entry(fields, field, MOST):
                    return False
                if kind == INTEGER:
                    integers[slot, row] = units
                else:
                    decimals[slot, row, 0] = units
                    decimals[slot, row, 1] = units >> 63
                present[field, row] = 1
            else:
                if first != _QUOTE:
                    return False
                start = at + 1
                at = _plain_end(data, start, end)
                if at >= end or _byte(data, at) != _QUOTE:
                    return False
                if kind == TIME:
                    moments[row], exists = _moment(data, start, at)
                    if not exists:
                        return False
                else:
                    # Bytes, which are at least as many as characters.
                    if at - start > max_text or ((required >> field) & 1 and at == start):
                        return False
                    texts[slot, 0, row] = start
                    texts[slot, 1, row] = at
                present[field, row] = 1
                at += 1
        # What follows it.
        at = _skip_space(data, at, end)
        if at >= end:
            return False
        if _byte(data, at) == _COMMA:
            at = _skip_space(data, at + 1, end)
            continue
        if _byte(data, at) != _CLOSE_OBJECT:
            return False
        break
    if _skip_space(data, at + 1, end) != end or seen & required != required:
        return False
    brackets, is_high = _brackets_and_high_bits(data, begin, end)
    return brackets <= max_brackets and (not is_high or _is_utf8(data, begin, end))


@_compiled
def scan(
    data, bounds, fields, count, required, max_bytes, max_brackets, max_text,
    texts, decimals, integers, moments, present,
):  # fmt: skip
    """Read message i, `data[bounds[i]:bounds[i + 1]]`, into row i of the columns; which rows are good.

    `data` is the address of `messages.Texts`, `fields` that of `count`
    rows of ENTRIES 64-bit numbers: a field's name in words, the masks to compare them
    with, its size in bytes, its kind, its slot in the columns of that kind, how many
    decimals it has, the least and the most it holds in units of the last one. `required`
    has a bit for each field. Columns: `texts` (begin and end in `data`), `decimals`
    (128-bit units), `integers`, `moments` (epoch microseconds); `present[f]` is 1 where
    field f has a value. Rows that are not good hold anything.
    """
    good = np.zeros(len(bounds) - 1, np.bool_)
    # Devices repeat the order of their members: remembering it saves the search.
    order = np.full(_ORDER_MASK + 1, -1, np.int64)
    for row in range(len(good)):
        if bounds[row + 1] - bounds[row] <= max_bytes:
            good[row] = _scan_message(
                data, bounds[row], bounds[row + 1], row, fields, count, required, order, max_brackets,
                max_text, texts, decimals, integers, moments, present,
            )  # fmt: skip
    return good


@_compiled
def gather(data, starts, ends, present, rows):
    """Offsets and bytes of a text column: `data[starts[i]:ends[i]]` of some rows, nothing where absent."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    total = 0
    for place in range(len(rows)):
        row = rows[place]
        if present[row]:
            total += ends[row] - starts[row]
        offsets[place + 1] = total
    gathered = np.empty(total, np.uint8)
    for place in range(len(rows)):
        row = rows[place]
        low = offsets[place]
        for offset in range(offsets[place + 1] - low):
            gathered[low + offset] = _byte(data, starts[row] + offset)
    return offsets, gathered
