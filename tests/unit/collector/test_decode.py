"""Bulk decoding equals the strict reference, message by message, on good and bad messages alike."""

import json
from datetime import datetime, timedelta
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
def test_bulk_decoding_equals_the_reference(payloads: list[bytes]) -> None:
    assert_equal_to_reference(payloads)


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


def test_chunks_keep_positions(monkeypatch: Any) -> None:
    monkeypatch.setattr(decode, "CHUNK_MESSAGES", 3)
    monkeypatch.setattr(decode, "CHUNK_BYTES", 2 * len(GOOD) + 1)
    payloads = [GOOD, b"", GOOD, GOOD, GOOD, b"{}", GOOD, b"x" * 5000, GOOD]
    assert len(decode._chunks(payloads)) >= 4
    assert_equal_to_reference(payloads)


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
