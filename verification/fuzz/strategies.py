"""Hypothesis strategies of messages in the contract's JSON form, good and bad."""

from __future__ import annotations

import json

import pyarrow as pa
from hypothesis import strategies as st

from contracts.columns import TELEMETRY_FIELDS
from verification.fuzz import tokens
from verification.fuzz.mutation import Members


def _encoded(text: str) -> bytes:
    # Surrogates that are no text come out as bytes that are no UTF-8.
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass")


numbers = st.one_of(
    st.integers(-5, 200).map(str),
    st.integers(-(2**70), 2**70).map(str),
    *(st.decimals(-400, 400, places=places, allow_nan=False).map(str) for places in (0, 2, 7, 19)),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[-+]?[0-9.]{0,6}([eE][-+0-9.]{0,3})?", fullmatch=True),
    st.sampled_from(tokens.NUMBERS + tokens.NO_NUMBERS),
).map(str.encode)

texts = st.one_of(
    st.text(max_size=8).map(_encoded),
    st.text(max_size=8).map(lambda text: json.dumps(text).encode()),
    st.text(st.characters(codec=None), max_size=4).map(_encoded),
    st.binary(max_size=6).map(tokens.quoted),
    st.text("x\u00e9\u4e00\U0001f43e", min_size=254, max_size=258).map(_encoded),
    st.sampled_from(tokens.TEXTS).map(tokens.quoted),
)

times = st.one_of(
    st.datetimes().map(lambda moment: f'"{moment.isoformat()}Z"'.encode()),
    st.datetimes(timezones=st.timezones()).map(lambda moment: f'"{moment.isoformat()}"'.encode()),
    st.from_regex(
        r'"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,8})?(Z|[+-][0-9]{2}:[0-9]{2})?"',
        fullmatch=True,
    ).map(str.encode),
    st.sampled_from(tokens.TIMES).map(lambda time: tokens.quoted(time.encode())),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())

any_value = st.one_of(st.sampled_from(tokens.ANY_VALUE), json_values, numbers, texts, times)


def values_of(field: pa.Field) -> st.SearchStrategy[bytes]:
    """Mostly values of the kind a column takes, at its limits and anywhere; sometimes any other."""
    kind = (
        times if pa.types.is_timestamp(field.type) else texts if pa.types.is_string(field.type) else numbers
    )
    return st.one_of(st.sampled_from(tokens.VALUES[field.name]), kind, kind, any_value)


_known = st.sampled_from(TELEMETRY_FIELDS).flatmap(
    lambda field: st.tuples(st.just(field.name.encode()), values_of(field))
)
_unknown = st.tuples(
    st.one_of(st.sampled_from(tokens.ODD_NAMES), st.text(max_size=4).map(str.encode)), any_value
)

_good = st.fixed_dictionaries(
    {
        b"device_id": st.just(b'"collar-1"'),
        b"event_ts": st.just(b'"2026-06-01T08:00:00Z"'),
        b"event_id": st.sampled_from([b'"e-1"', b'"12345678901234567890"', b'"7c1e-400,"']),
    },
    optional={
        b"pulse_bpm": st.decimals(0, 300, places=1).map(lambda number: str(number).encode()),
        b"gps_lat": st.decimals(-90, 90, places=7).map(lambda number: f"{number:f}".encode()),
        b"step_count": st.integers(0, 2**31 - 1).map(lambda number: str(number).encode()),
        b"schema_version": st.sampled_from([b"1", b"null", b"2"]),
    },
).map(lambda members: [*members.items()])

members: st.SearchStrategy[Members] = st.tuples(
    _good, st.lists(st.one_of(_known, _known, _unknown), max_size=4), st.randoms(use_true_random=False)
).map(lambda drawn: _shuffled(drawn[0] + drawn[1], drawn[2]))


def _shuffled(drawn: Members, random: object) -> Members:
    random.shuffle(drawn)  # type: ignore[attr-defined]
    return drawn


spaces = st.sampled_from([b""] * 12 + [b" "] * 4 + tokens.SPACES)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message: an object of members, sometimes inside, beside or short of something else."""
    parts = [draw(spaces), b"{"]
    for place, (name, value) in enumerate(draw(members)):
        parts += [
            b"," if place else b"",
            draw(spaces),
            b'"',
            name,
            b'"',
            draw(spaces),
            b":",
            draw(spaces),
            value,
        ]
        parts.append(draw(spaces))
    message = b"".join([*parts, b"}", draw(spaces)])
    return draw(
        st.sampled_from(
            [message] * 14
            + [b"", b" ", b"\r\n", b"null", b"[]", message * 2, message + b"\n" + message, message + b","]
            + [message[:-1], message[1:], message[: len(message) // 2], message + b"\0", message + b"\xff"]
            + [b"\xef\xbb\xbf" + message, b"[" + message + b"]", message.replace(b"-", b"\x01"), b"\x0b"]
        )
    )
