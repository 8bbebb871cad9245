"""Messages from a seed: made of members, changed as members, then as bytes. The same seed, the same messages."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from contracts import telemetry
from contracts.columns import TELEMETRY_FIELDS
from verification.fuzz import tokens

Members = list[tuple[bytes, bytes]]
"""Names between their quotes, and values as JSON text."""

# Large, so that the limit of size is met; rare, because they cost as much as hundreds of others.
HUGE = 0.0005

# Drawing a good message costs as much as judging it: this many are kept, and now and then one is renewed.
GOOD = 1000
RENEWED = 0.05

# Between tokens: mostly nothing, then JSON's own, seldom what is none.
_SPACES = [*[b""] * 60, *[b" ", b"\n", b"\t "] * 20, *tokens.SPACES]

_NAMES = [field.name for field in TELEMETRY_FIELDS]
_OPTIONAL = [field for field in TELEMETRY_FIELDS if field.nullable]


class Mutator:
    """Draws messages of the contract's JSON form, from good ones to bytes that are hardly JSON."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._last = b"{}"
        self._good = [self._good_members() for _ in range(GOOD)]

    def messages(self, count: int) -> list[bytes]:
        """The next messages: a third good, a third bad in one place, the rest worse."""
        return [self._message() for _ in range(count)]

    def _message(self) -> bytes:
        rng = self._random
        at = rng.randrange(GOOD)
        if rng.random() < RENEWED:
            self._good[at] = self._good_members()
        members = [*self._good[at]]
        changes = rng.choice((0, 0, 0, 0, 1, 1, 2, 4))
        for _ in range(changes):
            self._change_members(members)
        message = self._joined(members)
        for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 3))):
            message = self._change_bytes(message)
        if rng.random() < HUGE:
            message = self._huge(message)
        self._last = message
        return message

    def _good_members(self) -> Members:
        rng = self._random
        members: Members = [
            (b"device_id", b'"collar-%d"' % rng.randrange(1000)),
            (b"event_ts", b'"2026-0%d-%02dT%02d:%02d:%02d%sZ"' % self._time()),
            (b"event_id", b'"%032x"' % rng.getrandbits(128)),
        ]
        for field in rng.sample(_OPTIONAL, rng.randrange(len(_OPTIONAL) + 1)):
            members.append((field.name.encode(), self._good_value(field)))
        if rng.random() < 0.3:
            members.append(
                (b"vendor_%d" % rng.randrange(9), rng.choice((b"1", b"null", b'"x"', b"[1.5,{}]")))
            )
        if rng.random() < 0.3:
            rng.shuffle(members)
        return members

    def _time(self) -> tuple[int, int, int, int, int, bytes]:
        rng = self._random
        places = rng.choice((0, 0, 1, 3, 6))
        fraction = b".%0*d" % (places, rng.randrange(10**places)) if places else b""
        return rng.randrange(1, 6), rng.randrange(1, 29), rng.randrange(24), *self._sixties(), fraction

    def _sixties(self) -> tuple[int, int]:
        return self._random.randrange(60), self._random.randrange(60)

    def _good_value(self, field: pa.Field) -> bytes:
        rng = self._random
        if rng.random() < 0.05:
            return b"null"
        if field.name == "schema_version":
            return b"1"
        if pa.types.is_string(field.type):
            return rng.choice((b'"2.4.1"', b'"s-7"', '"Zürich"'.encode(), b'"clinic-12"', b'""'))
        low, high = telemetry.BOUNDS.get(field.name, (None, None))
        if not pa.types.is_decimal(field.type):
            return str(rng.randrange(low or 0, rng.choice((100, 10**6, telemetry.MAX_INT)))).encode()
        scale, limit = field.type.scale, 10**field.type.precision
        least = max(1 - limit, -limit if low is None else low * 10**scale)
        most = min(limit - 1, limit if high is None else high * 10**scale)
        text = tokens.decimal_text(rng.randint(least, most), scale)
        return (text.rstrip("0") + "0" if scale and rng.random() < 0.2 else text).encode()

    def _joined(self, members: Members) -> bytes:
        rng = self._random
        if rng.random() < 0.7:
            colon, comma = rng.choice(((b":", b","), (b": ", b", ")))
            return b"{" + comma.join(b'"%s"%s%s' % (n, colon, v) for n, v in members) + b"}"

        spaces = iter(rng.choices(_SPACES, k=4 * len(members) + 2))
        parts = [next(spaces), b"{"]
        for place, (name, value) in enumerate(members):
            comma, colon = b"," if place else b"", next(spaces) + b":" + next(spaces)
            parts += [comma, next(spaces), b'"', name, b'"', colon, value, next(spaces)]
        return b"".join([*parts, b"}", next(spaces)])

    # Changes of members

    def _change_members(self, members: Members) -> None:
        changes: Sequence[Callable[[Members], None]] = (
            self._own_value,
            self._own_value,
            self._own_value,
            self._any_value,
            self._repeat,
            self._add_unknown,
            self._add_unknown,
            self._drop,
            self._rename,
            self._swap_values,
            self._spell_name,
        )
        if members:
            self._random.choice(changes)(members)

    def _own_value(self, members: Members) -> None:
        name = self._random.choice(_NAMES)
        value = self._random.choice(tokens.VALUES[name])
        at = next((i for i, (known, _) in enumerate(members) if known == name.encode()), None)
        if at is None:
            members.append((name.encode(), value))
        else:
            members[at] = (members[at][0], value)

    def _any_value(self, members: Members) -> None:
        at = self._random.randrange(len(members))
        members[at] = (members[at][0], self._random.choice(tokens.ANY_VALUE))

    def _repeat(self, members: Members) -> None:
        name, value = self._random.choice(members)
        if self._random.random() < 0.5:
            value = self._random.choice(tokens.VALUES.get(name.decode("utf-8", "replace"), tokens.ANY_VALUE))
        members.insert(self._random.randrange(len(members) + 1), (name, value))

    def _add_unknown(self, members: Members) -> None:
        name = self._random.choice(tokens.ODD_NAMES)
        members.insert(
            self._random.randrange(len(members) + 1), (name, self._random.choice(tokens.ANY_VALUE))
        )

    def _drop(self, members: Members) -> None:
        members.pop(self._random.randrange(len(members)))

    def _rename(self, members: Members) -> None:
        at = self._random.randrange(len(members))
        name = self._random.choice([*tokens.ODD_NAMES, *(known.encode() for known in _NAMES)])
        members[at] = (name, members[at][1])

    def _swap_values(self, members: Members) -> None:
        a, b = self._random.randrange(len(members)), self._random.randrange(len(members))
        members[a], members[b] = (members[a][0], members[b][1]), (members[b][0], members[a][1])

    def _spell_name(self, members: Members) -> None:
        """Spell one character of a name by its escape: another text for the same name."""
        at = self._random.randrange(len(members))
        name, value = members[at]
        if name.isascii() and name.isalpha() | (b"_" in name):
            place = self._random.randrange(len(name))
            members[at] = (name[:place] + b"\\u%04x" % name[place] + name[place + 1 :], value)

    # Changes of bytes

    def _change_bytes(self, message: bytes) -> bytes:
        rng = self._random
        at = rng.randrange(len(message) + 1)
        kind = rng.randrange(14)
        if kind == 0 and at < len(message):
            return message[:at] + bytes([message[at] ^ (1 << rng.randrange(8))]) + message[at + 1 :]
        if kind == 1:
            return message[:at] + bytes([rng.randrange(256)]) + message[at + 1 :]
        if kind == 2:
            return (
                message[:at] + bytes([rng.choice(b'{}[]",:\\ -+.0123456789eEtfnTZ\n\r\t\0')]) + message[at:]
            )
        if kind == 3:
            return message[:at] + message[at + rng.randrange(1, 8) :]
        if kind == 4:
            return message[:at]
        if kind == 5:
            return message[at:]
        if kind == 6:
            length = rng.randrange(1, 30)
            return message[:at] + message[at : at + length] + message[at:]
        if kind == 7:
            return message[:at] + self._last[rng.randrange(len(self._last) + 1) :]
        if kind == 8:
            return message + rng.choice((b"", b" ", b"\n", b"\r\n", b",")) + self._last
        if kind == 9:
            return (
                rng.choice((b"", b"[", b" ", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\0"))
                + message
                + rng.choice((b"", b"]", b" ", b"\n", b"\r\n", b"\0", b"}", b",", b"\x1a"))
            )
        if kind == 10:
            return rng.choice(
                (b"", b" ", b"\r\n\t ", b"null", b"[]", b'"a"', b"1", b"{}", b"{ }", b"{", b"\xff", b"\0")
            )
        if kind == 11:
            return self._change_digit(message)
        if kind == 12:
            value = rng.choice(tokens.ANY_VALUE)
            return message[:at] + value + message[at:]
        space = rng.choice(tokens.SPACES)
        return message[:at] + space + message[at:]

    def _change_digit(self, message: bytes) -> bytes:
        digits = [at for at, byte in enumerate(message) if 0x30 <= byte <= 0x39]
        if not digits:
            return message
        at = self._random.choice(digits)
        return (
            message[:at]
            + self._random.choice((b"0", b"9", b"", b".", b"-", b"00", b"e1", b"5"))
            + message[at + 1 :]
        )

    def _huge(self, message: bytes) -> bytes:
        """About as large as allowed: one byte below the limit, at it, or beyond."""
        size = telemetry.MAX_MESSAGE_BYTES + self._random.choice((-1, 0, 1, 1000))
        missing = size - len(message) - len(b',"debug":""')
        if self._random.random() < 0.3:
            return message + b" " * max(0, size - len(message))
        return message[:-1] + b',"debug":"' + b"x" * max(0, missing) + b'"}'


class DocumentMutator:
    """Changes good messages of a vendor's format: their values, their names, then their bytes."""

    def __init__(self, seed: int, examples: Sequence[dict[str, Any]]) -> None:
        self._random = random.Random(seed)
        self._examples = examples
        self._bytes = Mutator(seed)

    def messages(self, count: int) -> list[bytes]:
        """The next messages."""
        return [self._message() for _ in range(count)]

    def _message(self) -> bytes:
        rng = self._random
        document = json.loads(json.dumps(rng.choice(self._examples)))
        message = json.dumps(document, separators=rng.choice(((",", ":"), (", ", ": ")))).encode()
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            message = self._change_value(message)
        for _ in range(rng.choice((0, 0, 0, 1, 2))):
            message = self._bytes._change_bytes(message)
        self._bytes._last = message
        return message

    def _change_value(self, message: bytes) -> bytes:
        """Put any value in the place of one that follows a colon."""
        rng = self._random
        colons = [at for at, byte in enumerate(message) if byte == ord(":")]
        if not colons:
            return message
        at = rng.choice(colons) + 1
        end = at
        quoted = message[at : at + 1] == b'"'
        end = message.find(b'"', at + 1) + 1 if quoted else at
        while not quoted and end < len(message) and message[end] not in b",}]":
            end += 1
        return message[:at] + rng.choice(tokens.ANY_VALUE) + message[max(end, at) :]
