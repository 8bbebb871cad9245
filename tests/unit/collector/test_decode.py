"""Bulk decoding equals the strict reference, message by message, on good and bad messages alike."""

import json
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestion.collector import decode
from ingestion.collector.decode import DecodedBatch, decode_contract_json, decode_vendor
from ingestion.contracts.columns import TELEMETRY_FIELDS
from ingestion.contracts.telemetry import RejectError, check_clock, parse_event

ARRIVAL = datetime(2026, 6, 1, 9)
ARRIVAL_US = int((ARRIVAL - datetime(1970, 1, 1)) / timedelta(microseconds=1))
SCHEMA = pa.schema([*TELEMETRY_FIELDS, pa.field("payload", pa.string())])
GOOD = (
    b'{"device_id":"collar-1","event_ts":"2026-06-01T08:00:00.5Z","event_id":"e-1","accel_x_g":-0.1234,'
    b'"step_count":12,"gps_lat":47.1234567,"pulse_bpm":80.1,"weight_kg":0,"schema_version":1}'
)


def by_reference(payloads: list[bytes], max_bytes: int = 65536) -> tuple[list[Any], list[Any]]:
    rows, rejects = [], []
    for index, payload in enumerate(payloads):
        try:
            event = parse_event(payload, max_bytes)
            check_clock(event["event_ts"], ARRIVAL)
        except RejectError as error:
            rejects.append((index, error.reason, error.detail))
        else:
            rows.append((index, event | {"payload": payload.decode()}))
    return rows, rejects


def assert_equal_to_reference(payloads: list[bytes]) -> DecodedBatch:
    decoded = decode_contract_json(payloads, np.full(len(payloads), ARRIVAL_US))
    rows, rejects = by_reference(payloads)
    assert sorted((r.index, r.reason, r.detail) for r in decoded.rejects) == rejects
    assert decoded.index.tolist() == [index for index, _ in rows]
    assert decoded.table.schema == SCHEMA
    assert decoded.table.to_pylist() == [row for _, row in rows]
    decoded.table.validate(full=True)
    return decoded


numbers = st.one_of(
    st.integers(-5, 200).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.decimals(-400, 400, places=7, allow_nan=False).map(str),
    st.decimals(-400, 400, places=2, allow_nan=False).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(
        [
            "80.1",
            "80.10",
            "801e-1",
            "8.01E+1",
            "-0",
            "-0.0",
            "1e-400",
            "1e400",
            "12.30000000000000000001",
            "0.99999999999999999999",
            "1e2",
            "1.0",
            "12300000000.00000000001e-9",
            "00",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "NaN",
            "Infinity",
            "-Infinity",
            "4.35",
            "0.1",
            "99.99",
            "90",
            "90.0000001",
        ]
    ),
)
texts = st.one_of(
    st.sampled_from(["", "a", "collar-1", "é", "1:,[ 12345678", "x" * 256, "x" * 257, 'a":b', "a :b", "\0"]),
    st.text(max_size=8),
).map(lambda text: json.dumps(text, ensure_ascii=False))
times = st.sampled_from(
    [
        '"2026-06-01T08:00:00Z"',
        '"2026-06-01T08:00:00.123456Z"',
        '"2026-06-01T08:00:00.1234567Z"',
        '"2026-06-01T08:00:00"',
        '"2026-02-30T08:00:00Z"',
        '"2026-06-01T10:00:00+02:00"',
        '"2025-04-27T08:59:59Z"',
        '"2026-06-02T09:00:00Z"',
        '"2026-06-02T09:00:00.000001Z"',
        '"2026-06-01T24:00:00Z"',
        '"2026-06-01T08:00:60Z"',
        '"2026-6-1T08:00:00Z"',
        '"2026-06-01t08:00:00z"',
        '"0000-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59Z"',
        "5",
        "null",
    ]
)
others = st.sampled_from(["null", "true", "false", "[]", "{}", '"12"', '{"device_id":1}', "[1,2", "tru"])
values = {
    pa.types.is_string: texts,
    pa.types.is_timestamp: times,
    pa.types.is_decimal: numbers,
    pa.types.is_integer: numbers,
}


def member(field: pa.Field) -> st.SearchStrategy[tuple[str, str]]:
    [fitting] = [strategy for is_type, strategy in values.items() if is_type(field.type)]
    mostly = st.one_of(*[fitting] * 6, others)
    return st.tuples(st.just(json.dumps(field.name)), mostly)


good_members = st.fixed_dictionaries(
    {
        '"device_id"': st.just('"collar-1"'),
        '"event_ts"': st.just('"2026-06-01T08:00:00Z"'),
        '"event_id"': st.sampled_from(['"e-1"', '"12345678901234567890"', '"7c1e-400,"']),
    },
    optional={
        '"pulse_bpm"': st.decimals(0, 300, places=1).map(str),
        '"gps_lat"': st.decimals(-90, 90, places=7).map(str),
        '"step_count"': st.integers(0, 2**31 - 1).map(str),
        '"schema_version"': st.sampled_from(["1", "null", "2"]),
        '"unknown"': st.sampled_from(["1", '"Info"', "NaN", "12345678901", '"\\u0041"', "[[1]]", "1e-400"]),
    },
).map(lambda members: [*members.items()])
odd_members = st.lists(
    st.one_of(*map(member, TELEMETRY_FIELDS), st.just(('"device\\u005fid"', '"b"'))), max_size=4
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    members = draw(good_members) + draw(odd_members)
    colon = draw(st.sampled_from([":", ":", ":", ": ", " :", "\t:", " : "]))
    comma = draw(st.sampled_from([",", ",", ", ", ",\n", " , "]))
    text = "{" + comma.join(f"{name}{colon}{value}" for name, value in members) + "}"
    payload = text.encode("utf-8", "surrogatepass")
    return draw(
        st.sampled_from(
            [payload] * 12
            + [b"", b" ", b"null", b"[]", payload * 2, b" " + payload + b"\n", payload[:-1], payload[1:]]
            + [payload.replace(b"collar", b"\xff"), b"\xef\xbb\xbf" + payload, b"[" + payload + b"]"]
            + [payload.replace(b"{", b'{"x":"\xff",', 1), payload + b"\0", payload.replace(b"-", b"\x01")]
            + [payload[:-1] + b',"deep":' + b"[" * 70 + b"]" * 70 + b"}"]
        )
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=12))
@example([GOOD, GOOD])
@example([GOOD.replace(b'"pulse_bpm":80.1', b'"pulse_bpm":80.1,"pulse_bpm":80.2')])
@example([GOOD.replace(b'"pulse_bpm":80.1', b'"pulse_bpm" :80.1,"pulse_bpm":80.2')])
@example([GOOD.replace(b"80.1", b"12.30000000000000000001"), GOOD])
@example([GOOD.replace(b'"weight_kg":0', b'"weight_kg":1e-400')])
@example([GOOD.replace(b"e-1", b"[" * 64), b""])
@example([GOOD.replace(b"e-1", b"[" * 64), b" ", GOOD[1:], GOOD])
@example([GOOD.replace(b"e-1", b"[" * 64).replace(b":1}", b" : 1}"), b" ", GOOD[1:]])
def test_bulk_decoding_equals_the_reference(payloads: list[bytes]) -> None:
    assert_equal_to_reference(payloads)


NEAR = {
    b"-0.1234": [
        b"-0",
        b"-0.0",
        b"0.12345",
        b"-.1",
        b"1.",
        b"01",
        b"-01",
        b"+1",
        b"1e5",
        b"1E-3",
        b"--1",
        b"1.2.3",
        b"999.9999",
        b"-999.9999",
        b"1000",
        b"12345678",
        b"123456789",
        b"9" * 40,
        b"-",
        b".",
        b"",
        b"1 ",
        b"0x1",
        b"NaN",
        b"Infinity",
        b"true",
        b"null",
        b'"1"',
        b"[1]",
        b'{"a":1}',
        b"1:1",
        b"1,",
        b"1/2",
        b"1_0",
        b"1.0000",
    ],
    b"12,": [
        b"12.0,",
        b"012,",
        b"-1,",
        b"2147483647,",
        b"2147483648,",
        b"12345678,",
        b"true,",
        b'"12",',
        b",",
        b"12,,",
    ],
    b"47.1234567": [
        b"90",
        b"90.0000000",
        b"90.0000001",
        b"-90",
        b"47.12345678",
        b"047.1",
        b"47.1234567890123456789",
    ],
    b"80.1": [
        b"80.10",
        b"80.12",
        b"9999.9",
        b"10000.0",
        b"-0.0",
        b"-0.1",
        b"1e400",
        b"80.1}",
        b"80.1,",
        b"80.1 ",
    ],
    b"schema_version": [
        b"schema_versio",
        b"schema_version ",
        b"pulse_bpm",
        b"schema\\u005fversion",
        b"\xc3\xa9",
        b"",
    ],
    b":1}": [
        b":2}",
        b":1.0}",
        b":null}",
        b":1} ",
        b":1}\n",
        b":1}{}",
        b":1",
        b":1]",
        b":01}",
        b":1,}",
        b': 1,"a":true}',
    ],
    b"e-1": [
        b"",
        b"\xff",
        b"\xc3\xa9",
        b'\\"',
        b'"',
        b"a\nb",
        b"\0",
        b"x" * 256,
        b"x" * 257,
        b"{" * 64,
        b"[" * 63,
        b"a,b:c",
    ],
    b"2026-06-01T08:00:00.5Z": [
        b"2026-06-01T08:00:00Z",
        b"2026-06-01T08:00:00.Z",
        b"2026-06-01T08:00:00.1234567Z",
        b"2026-06-01T08:00:00.123456Z",
        b"2026-06-01T08:00:00",
        b"2026-06-01T08:00:60Z",
        b"2026-02-30T08:00:00Z",
        b"2026-06-01T24:00:00Z",
        b"2026-06-01 08:00:00Z",
        b"2026-06-01T08:00:00+00:00",
        b"2026-06-01T08:00:00.5z",
        b"Z",
    ],
    b'"device_id":"collar-1"': [
        b'"device_id":1',
        b'"device_id":null',
        b'"a":"b"',
        b'"device_id":"a","device_id":"b"',
    ],
}
near = st.sampled_from([(old, new) for old, news in NEAR.items() for new in news])
edits = st.tuples(
    st.integers(0, len(GOOD)), st.integers(0, 2), st.sampled_from([*b' ",:{}[]\\-+.0159eEnaZT\n\t\0\xff', -1])
)


def edited(changes: list[tuple[int, int, int]]) -> bytes:
    message = GOOD
    for at, removed, byte in changes:
        message = message[:at] + (bytes([byte]) if byte >= 0 else b"") + message[at + removed :]
    return message


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.lists(near, max_size=2).map(lambda changes: reduce(lambda m, c: m.replace(*c), changes, GOOD)),
            st.lists(edits, max_size=3).map(edited),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_messages_that_nearly_have_a_common_shape_equal_the_reference(payloads: list[bytes]) -> None:
    """The shape in the middle of the chunk is GOOD's, so each of the others is compared with it."""
    assert_equal_to_reference([*payloads, *[GOOD] * len(payloads)][: 2 * len(payloads)])
    assert_equal_to_reference([GOOD, *[m for payload in payloads for m in (payload, GOOD, GOOD)]])


def test_every_near_miss_equals_the_reference_as_shape_and_beside_it() -> None:
    for old, news in NEAR.items():
        for new in news:
            changed = GOOD.replace(old, new)
            assert_equal_to_reference([changed] * 3)
            assert_equal_to_reference([GOOD, changed, GOOD, GOOD, changed, GOOD])


def test_usual_messages_need_no_reference(monkeypatch: Any) -> None:
    """With nulls, unknown fields (nested ones too) and the spaces of json.dumps."""
    spaced = GOOD.replace(b":", b": ").replace(b",", b", ").replace(b"T08: 00: 00", b"T08:00:00")
    extra = GOOD.replace(b"12,", b'null,"charging":true,"mode":"n\\u00e4ht","x":{"volts":[3.7,[],{}]},')
    payloads = [GOOD, spaced, extra] * 5
    expected = assert_equal_to_reference(payloads)
    monkeypatch.setattr(decode.telemetry, "parse_event", None)
    assert len(assert_equal_to_reference(payloads).index) == len(expected.index) == len(payloads)


def test_good_messages_take_the_fast_path_even_beside_bad_ones(monkeypatch: Any) -> None:
    """Were this to break, results would stay right and the collector would be many times slower."""
    looked_at: list[bytes] = []

    def counting(payload: bytes, max_bytes: int) -> dict[str, Any]:
        looked_at.append(payload)
        return parse_event(payload, max_bytes)

    monkeypatch.setattr(decode.telemetry, "parse_event", counting)
    bad = [b"", GOOD[:-1], GOOD.replace(b"12,", b'"12",'), GOOD.replace(b"80.1", b"NaN"), b"\xff"]
    payloads = [GOOD, bad[0], GOOD, bad[1], bad[2], GOOD, bad[3], bad[4], GOOD]
    decoded = decode_contract_json(payloads, np.full(len(payloads), ARRIVAL_US))
    assert decoded.index.tolist() == [0, 2, 5, 8]
    assert looked_at == bad


def test_batches_in_a_row_count_through() -> None:
    payloads = [GOOD, b"", GOOD, GOOD, GOOD, b"{}", GOOD, b"x" * 5000, GOOD]
    parts = [payloads[:2], [], payloads[2:6], payloads[6:]]
    whole = decode.concatenate([decode_contract_json(part, np.full(len(part), ARRIVAL_US)) for part in parts])
    at_once = decode_contract_json(payloads, np.full(len(payloads), ARRIVAL_US))
    assert whole.table.equals(at_once.table)
    assert whole.index.tolist() == at_once.index.tolist()
    assert whole.rejects == at_once.rejects


def test_nothing_decodes_to_an_empty_table() -> None:
    decoded = decode_contract_json([], np.empty(0, np.int64))
    assert decoded.table.schema == SCHEMA
    assert len(decoded.index) == 0


def test_vendor_messages_are_validated_and_keep_their_text() -> None:
    def vendor(payload: bytes) -> dict[str, Any]:
        device, pulse = payload.decode().split(";")
        return {"device_id": device, "event_id": "e", "event_ts": ARRIVAL, "pulse_bpm": int(pulse)}

    payloads = [b"a;80", b"b;-1", b"", b"c;81"]
    decoded = decode_vendor(payloads, np.full(4, ARRIVAL_US), vendor)
    assert decoded.table["device_id"].to_pylist() == ["a", "c"]
    assert decoded.table["payload"].to_pylist() == ["a;80", "c;81"]
    assert [(r.index, r.reason) for r in decoded.rejects] == [(1, "range"), (2, "empty")]
