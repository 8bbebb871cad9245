"""Values worth trying, as JSON text in bytes: at every limit of every column, and one unit beyond.

Derived from the columns, so that a new column is tried as well.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa

from contracts import telemetry
from contracts.columns import TELEMETRY_FIELDS

ARRIVAL = datetime(2026, 6, 1, 9)
ARRIVAL_US = int((ARRIVAL - datetime(1970, 1, 1)) / timedelta(microseconds=1))
# What the claim of a message received at ARRIVAL might believe.
RECEIPTS = telemetry.ReceiptBounds(ARRIVAL - timedelta(hours=3), ARRIVAL + timedelta(hours=1))


def decimal_text(units: int, scale: int) -> str:
    """`units` of a decimal's last place as plain digits."""
    digits = f"{abs(units):0{scale + 1}d}"
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return ("-" if units < 0 else "") + whole + (f".{fraction}" if scale else "")


def _decimal_column(name: str, precision: int, scale: int) -> list[str]:
    limit = 10**precision
    low, high = telemetry.BOUNDS.get(name, (None, None))
    edges = {0, 1, limit - 1, limit, 1 - limit, -limit}
    for bound in (low, high):
        if bound is not None:
            edges |= {bound * 10**scale + step for step in (-1, 0, 1)}
    found = []
    for units in sorted(edges):
        text = decimal_text(units, scale)
        found += [text, f"{units}e-{scale}", f"{units}E-{scale:03}", f"{units}0e-{scale + 1}"]
        if scale:
            # Beyond the column's scale: nothing, a digit, and a digit too far to see for a double.
            found += [f"{text}0", f"{text}00000000000000000000", f"{text}1", f"{text}{'0' * 30}1"]
    return found


def _integer_column(name: str) -> list[str]:
    low = telemetry.BOUNDS.get(name, (None, None))[0]
    edges = {0, 1, telemetry.MAX_INT, telemetry.MAX_INT + 1, -telemetry.MAX_INT, -telemetry.MAX_INT - 1}
    if low is not None:
        edges |= {low - 1, low, low + 1}
    return [text for edge in sorted(edges) for text in (str(edge), f"{edge}.0", f"{edge}e0")]


NUMBERS = [
    *("0", "-0", "-0.0", "0.0", "0e0", "0E+9", "-0e-7", "0e-999999999", "0e99999999999999999999"),
    *("1", "12", "1.0", "12.0", "1e0", "1E0", "10e-1", "1e+2", "80.1", "801e-1", "8.01E1", "0.1", "4.35"),
    *("99.99", "1e-400", "-1e-400", "1e400", "-1e400", "1e-99999999999999999999", "2e99999999999999999999"),
    *("12.30000000000000000001", "0.99999999999999999999", "12300000000.00000000001e-9", "1.5e1", "15e-1"),
    *("1" + "0" * 18, "1" + "0" * 19, "9" * 38, "9" * 39, "9" * 40, "-" + "9" * 40, "9" * 400, "1" * 5000),
    *("0." + "1" * 400, "0." + "0" * 400 + "1", "1." + "0" * 400, "1" + "0" * 400 + "e-400"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616"),
    *("12345678", "123456789", "-12345678", "1234567.8", "0.12345678", "1.00000000", "0000000.1", "00000001"),
]
NO_NUMBERS = [
    *("00", "01", "-01", "1.", ".5", "-.5", "+1", "-", "--1", "1e", "1e+", "1.e1", "1.2.3", "1e1.0", "1e1e1"),
    *(
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "0x1",
        "1_0",
        "1,0",
        "1 0",
        "0b1",
        "1/2",
        "1L",
        "1d",
        "1f",
    ),
    *("\u0661", "\uff11", "1\u0660", "\u2212" + "1", "1\u00a0", "1'000"),
]
LITERALS = ["null", "true", "false", "True", "None", "nul", "nulll", "tru", "FALSE", "undefined", "Null"]

TIMES = [
    *("2026-06-01T08:00:00Z", "2026-06-01T08:00:00.5Z", "2026-06-01T08:00:00.123456Z"),
    *("2026-06-01T08:00:00.000000Z", "2026-06-01T08:00:00.1234567Z", "2026-06-01T08:00:00.1234560Z"),
    *("2026-06-01T08:00:00.Z", "2026-06-01T08:00:00,5Z", "2026-06-01T08:00:00", "2026-06-01T08:00:00.5"),
    *("2026-06-01T10:00:00+02:00", "2026-06-01T08:00:00+00:00", "2026-06-01T08:00:00-00:00"),
    *("2026-06-01T08:00:00+0000", "2026-06-01T08:00:00+00", "2026-06-01T08:00:00+00:00:00"),
    *("2026-06-01T08:00:00+23:59", "2026-06-01T08:00:00-23:59", "2026-06-01T08:00:00+24:00"),
    *("2026-06-01T08:00:00+14:60", "2026-06-01T08:00:00+99:99", "2026-06-01T08:00:00.5+02:00"),
    *("2026-06-01T08:00:00 Z", " 2026-06-01T08:00:00Z", "2026-06-01T08:00:00Z ", "2026-06-01T08:00:00ZZ"),
    *("2026-06-01t08:00:00z", "2026-06-01 08:00:00Z", "2026-06-01T08:00:00z", "2026-06-01_08:00:00Z"),
    *("2026-06-01T08:00Z", "2026-06-01T08Z", "2026-06-01", "20260601T080000Z", "2026-152T08:00:00Z"),
    *("2026-W23-1T08:00:00Z", "2026-6-1T08:00:00Z", "26-06-01T08:00:00Z", "+2026-06-01T08:00:00Z"),
    *("-2026-06-01T08:00:00Z", "12026-06-01T08:00:00Z", "2026-06-01T8:00:00Z", "2026-06-01T08:0:00Z"),
    *("2026-02-29T08:00:00Z", "2026-02-30T08:00:00Z", "2024-02-29T08:00:00Z", "2000-02-29T00:00:00Z"),
    *("1900-02-29T00:00:00Z", "2026-04-31T08:00:00Z", "2026-13-01T08:00:00Z", "2026-00-01T08:00:00Z"),
    *("2026-06-00T08:00:00Z", "2026-06-32T08:00:00Z", "2026-06-01T24:00:00Z", "2026-06-01T23:59:60Z"),
    *("2016-12-31T23:59:60Z", "2026-06-01T08:60:00Z", "2026-06-01T25:00:00Z", "2026-06-01T08:00:61Z"),
    *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59Z"),
    *("9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z"),
    *(
        "1969-12-31T23:59:59.999999Z",
        "\uff12\uff10\uff12\uff16-06-01T08:00:00Z",
        "2026\u201306\u201301T08:00:00Z",
    ),
    *("", "Z", "now", "1780300800", "2026-06-01T08:00:00\\u005a", "2026-06-01T08:00:00Z\\u0000"),
]


def _clock_edges() -> list[str]:
    edges = []
    for moment in (ARRIVAL - telemetry.MAX_AGE, ARRIVAL + telemetry.MAX_AHEAD):
        for step_us in (-1, 0, 1):
            edges.append(f"{(moment + timedelta(microseconds=step_us)).isoformat(timespec='microseconds')}Z")
    return edges


TIMES += _clock_edges()

_MOST = telemetry.MAX_TEXT_CHARS
# Between quotes; at the limit in characters, which is more in bytes and in escapes.
TEXTS = [
    *(b"", b"a", b"collar-1", b" ", b"  a  ", b"\x7f", b"a:b,c{d}e[f]", b"/", b"'", b"null", b"12345678"),
    *(char.encode() * count for char in "x\u00e9\u4e00\U0001f43e\u0301" for count in (1, _MOST, _MOST + 1)),
    *(escape * count for escape in (rb"\u0041", rb"\n", rb"\ud83d\ude00") for count in (1, _MOST, _MOST + 1)),
    *(rb"\"", rb"\\", rb"\/", rb"\b\f\r\t", rb"\u0000", rb"\u00e9", rb"\uFFFF", rb"\u2028", rb"\u005c\u0022"),
    *(rb"\ud800", rb"\udc00", rb"\udc00\ud800", rb"\ud83d\ude00", rb"\uD83D", rb"a\udfffb", rb"\ud800\u0041"),
    *(
        rb"\x41",
        rb"\u12",
        rb"\u12g4",
        rb"\u",
        "\\\u00e9".encode(),
        b"\\",
        rb"\U0001F43E",
        rb"\u+041",
        rb"\u 041",
    ),
    *(b"\0", b"\x01", b"\t", b"\n", b"\r\n", b"\x1f", b"\x0b"),
    *(b"\xff", b"\xfe", b"\x80", b"\xc3", b"\xc3(", b"\xc0\x80", b"\xc1\xbf", b"\xe2\x82", b"\xe0\x80\x80"),
    *(b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf0\x9f\x98", b"\xf0\x80\x80\x80"),
    *(b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xef\xbb\xbf", b"\xef\xbf\xbe"),
    *(
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xf4\x8f\xbf\xbf",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
    ),
]


def quoted(text: bytes) -> bytes:
    """A text's inside as a JSON text."""
    return b'"' + text + b'"'


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]", inside: bytes = b"") -> bytes:
    """A value inside many others."""
    return opening * depth + inside + closing * depth


# The message itself is one of the brackets it may have.
_DEEPEST = telemetry.MAX_BRACKETS - 1
NESTED = [
    *(
        b"[]",
        b"{}",
        b"[[]]",
        b'{"a":{}}',
        b"[{}]",
        b'{"device_id":1}',
        b'{"a":1,"a":2}',
        b"[1,2",
        b"[1,]",
        b"[,1]",
    ),
    *(
        b"{,}",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b"{a:1}",
        b"{'a':1}",
        b'{"a" 1}',
        b"[1 2]",
        b"[}",
        b"{]",
        b"]",
        b"}",
    ),
    *(b'[null,true,false,"x",-1.5e3,{}]', b'{"\\ud800":1}', b'["\\udc00"]', b'[{"a":["\\ud83d\\ude00"]}]'),
    *(b"[NaN]", b"[01]", b'{"a":Infinity}', b'["\xff"]', b'{"\xff":1}', b'["\t"]', b'[" \\u00zz"]', b"[tru]"),
    *(nested(depth) for depth in (_DEEPEST - 3, _DEEPEST - 1, _DEEPEST, _DEEPEST + 1, 200)),
    *(nested(depth, b'{"a":', b"}", b"1") for depth in (_DEEPEST - 1, _DEEPEST, _DEEPEST + 1)),
    *(quoted(b"[" * count) for count in (_DEEPEST - 1, _DEEPEST, _DEEPEST + 1)),
    nested(2000)[:3000],
]
SPACES = [
    b" ",
    b"\t",
    b"\n",
    b"\r\n",
    b"  \t \r\n ",
    b"\x0b",
    b"\x0c",
    b"\xc2\xa0",
    b"\xe2\x80\x83",
    b"\xef\xbb\xbf",
    b"\0",
]

_NAMES = [field.name.encode() for field in TELEMETRY_FIELDS]
ODD_NAMES = [
    *(
        b"",
        b"unknown",
        b"a",
        b"x" * 300,
        b"device_i",
        b"device_idd",
        b"device_id ",
        b" device_id",
        b"DEVICE_ID",
    ),
    *(
        rb"device\u005fid",
        rb"\u0064evice_id",
        rb"event\u005Fts",
        rb"device_id\u0000",
        b"device_id\0",
        b"device\xffid",
    ),
    *(
        "devi\u00e7e_id".encode(),
        "\uff44evice_id".encode(),
        rb"\ud800",
        rb"a\"b",
        rb"a\\",
        b"payload",
        b"kafka_offset",
    ),
    *(name[:-1] + b"X" for name in _NAMES),
    *(name.upper() for name in _NAMES),
]


def values_of(field: pa.Field) -> list[bytes]:
    """Values of the kind a column takes, good ones and near misses."""
    if pa.types.is_string(field.type):
        return [quoted(text) for text in TEXTS]
    if pa.types.is_timestamp(field.type):
        return [quoted(time.encode()) for time in TIMES]
    own = (
        _decimal_column(field.name, field.type.precision, field.type.scale)
        if pa.types.is_decimal(field.type)
        else _integer_column(field.name)
    )
    return [number.encode() for number in [*own, *own, *NUMBERS]]


VALUES: dict[str, list[bytes]] = {field.name: values_of(field) for field in TELEMETRY_FIELDS}
ANY_VALUE = [
    *(token.encode() for token in [*NUMBERS, *NO_NUMBERS, *LITERALS]),
    *(quoted(text) for text in TEXTS),
    *(quoted(time.encode()) for time in TIMES),
    *(quoted(number.encode()) for number in NUMBERS[:10]),
    *NESTED,
]
