"""Bulk decoding equals the strict reference, message by message, on good and bad messages alike.

What is tried, and the comparison, are `fuzz`: here the small forms of it and what bulk
decoding promises besides. A million messages: `make fuzz`.
"""

from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts import telemetry
from contracts.columns import TELEMETRY_FIELDS
from contracts.telemetry import parse_event
from ingestion.collector import decode
from ingestion.collector.decode import DecodedBatch, decode_contract_json, decode_vendor
from verification.fuzz import tokens
from verification.fuzz.comparison import SCHEMA, disagreements, judge, unloadable
from verification.fuzz.run import EXAMPLES, run
from verification.fuzz.strategies import messages

ARRIVAL, ARRIVAL_US = tokens.ARRIVAL, tokens.ARRIVAL_US
EPOCH, MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
GOOD = (
    b'{"device_id":"collar-1","event_ts":"2026-06-01T08:00:00.5Z","event_id":"e-1","accel_x_g":-0.1234,'
    b'"step_count":12,"gps_lat":47.1234567,"pulse_bpm":80.1,"weight_kg":0,"schema_version":1}'
)


def assert_equal_to_reference(
    payloads: list[bytes], max_bytes: int = telemetry.MAX_MESSAGE_BYTES
) -> DecodedBatch:
    arrival_us = np.full(len(payloads), ARRIVAL_US)
    decoded = decode_contract_json(payloads, arrival_us, tokens.RECEIPTS, max_bytes)
    judged = judge(payloads, arrival_us, tokens.RECEIPTS, max_bytes=max_bytes)
    assert disagreements(payloads, decoded, judged) == []
    decoded.table.validate(full=True)
    return decoded


def with_member(name: bytes, value: bytes) -> bytes:
    """GOOD with a member in the place of its own of that name, else added."""
    pairs = [pair.split(b":", 1) for pair in GOOD[1:-1].split(b",")]
    kept = [b":".join(pair) for pair in pairs if pair[0] != tokens.quoted(name)]
    return b"{" + b",".join([*kept, tokens.quoted(name) + b":" + value]) + b"}"


def test_every_value_of_interest_in_every_field_equals_the_reference() -> None:
    """At each limit of each column, one unit beyond, and everything that only looks like a value."""
    payloads = [GOOD]
    for field in TELEMETRY_FIELDS:
        name = field.name.encode()
        payloads += [with_member(name, value) for value in tokens.VALUES[field.name] + tokens.ANY_VALUE]
    payloads += [with_member(b"unknown", value) for value in tokens.ANY_VALUE]
    payloads += [with_member(name, value) for name in tokens.ODD_NAMES for value in (b"1", b'"x"', b"null")]
    decoded = assert_equal_to_reference(payloads)
    # Enough of both, or the values are no longer those of the columns.
    assert len(decoded.index) > 500
    assert {reject.reason for reject in decoded.rejects} == {*telemetry.REJECT_REASONS} - {
        "empty",
        "oversized",
    }
    assert unloadable(decoded.table) == []


@pytest.mark.parametrize("space", tokens.SPACES)
def test_space_between_any_two_tokens_equals_the_reference(space: bytes) -> None:
    small = b'{"device_id":"d","event_ts":"2026-06-01T08:00:00Z","event_id":"e","step_count":12,"x":[1,{}]}'
    assert_equal_to_reference([small[:at] + space + small[at:] for at in range(len(small) + 1)])


def test_every_shorter_message_equals_the_reference() -> None:
    """What is cut off must not be read from the message behind."""
    assert_equal_to_reference([GOOD[:at] for at in range(len(GOOD) + 1)])
    assert_equal_to_reference([GOOD[at:] for at in range(len(GOOD) + 1)])
    assert_equal_to_reference([part for at in range(len(GOOD) + 1) for part in (GOOD[:at], GOOD[at:])])


def test_sizes_around_the_limit_equal_the_reference() -> None:
    for limit in (len(GOOD) - 1, len(GOOD), len(GOOD) + 1):
        assert_equal_to_reference([GOOD, b" " * limit, b" " * (limit + 1), GOOD + b" "], limit)


@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(messages(), min_size=1, max_size=12))
@example([GOOD, GOOD])
@example(
    [GOOD[:-1] + b',"x":"\\ud800"}', GOOD[:-1] + b',"\\udc00":1}', GOOD[:-1] + b',"x":"\\ud83d\\udc3e"}']
)
@example([GOOD.replace(b'"pulse_bpm":80.1', b'"pulse_bpm":80.1,"pulse_bpm":80.2')])
@example([GOOD.replace(b'"pulse_bpm":80.1', b'"pulse_bpm" :80.1,"pulse_bpm":80.2')])
@example([GOOD.replace(b"80.1", b"12.30000000000000000001"), GOOD])
@example([GOOD.replace(b'"weight_kg":0', b'"weight_kg":1e-400')])
@example([GOOD.replace(b"e-1", b"[" * 64), b""])
@example([GOOD.replace(b"e-1", b"[" * 64), b" ", GOOD[1:], GOOD])
@example([GOOD.replace(b"e-1", b"[" * 64).replace(b":1}", b" : 1}"), b" ", GOOD[1:]])
def test_bulk_decoding_equals_the_reference(payloads: list[bytes]) -> None:
    assert_equal_to_reference(payloads)


@settings(max_examples=settings.default.max_examples // 2)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([GOOD, GOOD.replace(b"2026-06-01T08:00:00.5Z", b"2036-01-01T00:00:00Z"), b"{}"]),
            st.sampled_from(
                [tokens.RECEIPTS.first, ARRIVAL, tokens.RECEIPTS.last, datetime(2036, 1, 1), EPOCH]
            ),
            st.integers(-1, 1),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_bulk_decoding_believes_the_receipts_that_the_reference_believes(
    received: list[tuple[bytes, datetime, int]],
) -> None:
    payloads = [payload for payload, _, _ in received]
    arrival_us = np.array([(moment - EPOCH) // MICROSECOND + off for _, moment, off in received], np.int64)
    judged = judge(payloads, arrival_us, tokens.RECEIPTS)
    assert disagreements(payloads, decode_contract_json(payloads, arrival_us, tokens.RECEIPTS), judged) == []
    by_vendor = decode_vendor(payloads, arrival_us, tokens.RECEIPTS, parse_event)
    assert disagreements(payloads, by_vendor, judged) == []


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


@settings(max_examples=settings.default.max_examples // 2)
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
def test_messages_that_are_nearly_good_equal_the_reference(payloads: list[bytes]) -> None:
    assert_equal_to_reference([*payloads, *[GOOD] * len(payloads)][: 2 * len(payloads)])
    assert_equal_to_reference([GOOD, *[m for payload in payloads for m in (payload, GOOD, GOOD)]])


def test_every_near_miss_equals_the_reference() -> None:
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
    decoded = decode_contract_json(payloads, np.full(len(payloads), ARRIVAL_US), tokens.RECEIPTS)
    assert decoded.index.tolist() == [0, 2, 5, 8]
    assert looked_at == bad


def test_batches_in_a_row_count_through() -> None:
    payloads = [GOOD, b"", GOOD, GOOD, GOOD, b"{}", GOOD, b"x" * 5000, GOOD]
    parts = [payloads[:2], [], payloads[2:6], payloads[6:]]
    whole = decode.concatenate(
        [decode_contract_json(part, np.full(len(part), ARRIVAL_US), tokens.RECEIPTS) for part in parts]
    )
    at_once = decode_contract_json(payloads, np.full(len(payloads), ARRIVAL_US), tokens.RECEIPTS)
    assert whole.table.equals(at_once.table)
    assert whole.index.tolist() == at_once.index.tolist()
    assert whole.rejects == at_once.rejects


def test_nothing_decodes_to_an_empty_table() -> None:
    decoded = decode_contract_json([], np.empty(0, np.int64), tokens.RECEIPTS)
    assert decoded.table.schema == SCHEMA
    assert len(decoded.index) == 0


def test_vendor_messages_are_validated_and_keep_their_text() -> None:
    def vendor(payload: bytes) -> dict[str, Any]:
        device, pulse = payload.decode().split(";")
        return {"device_id": device, "event_id": "e", "event_ts": ARRIVAL, "pulse_bpm": int(pulse)}

    payloads = [b"a;80", b"b;-1", b"", b"c;81"]
    decoded = decode_vendor(payloads, np.full(4, ARRIVAL_US), tokens.RECEIPTS, vendor)
    assert decoded.table["device_id"].to_pylist() == ["a", "c"]
    assert decoded.table["payload"].to_pylist() == ["a;80", "c;81"]
    assert [(r.index, r.reason) for r in decoded.rejects] == [(1, "range"), (2, "empty")]


@pytest.mark.parametrize("count", [10_000, pytest.param(50_000, marks=pytest.mark.full)])
def test_thousands_of_fuzzed_messages(count: int) -> None:
    """Rows + rejects = input, nothing raised, everything as the reference says; `make fuzz` takes a million."""
    report = run("collar-v1", count, seed=7, compare_every=4)
    assert report.disagreements == []
    assert report.tally.adds_up
    assert min(report.tally.rows, report.tally.by_reason.total()) > 0.3 * count
    assert {*report.tally.by_reason} == {*telemetry.REJECT_REASONS}
    assert report.grown_mib < 64


@pytest.mark.parametrize("count", [2_000, pytest.param(5_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("decoder", EXAMPLES)
def test_fuzzed_messages_of_a_vendor(decoder: str, count: int) -> None:
    report = run(decoder, count, seed=7)
    assert report.disagreements == []
    assert report.tally.adds_up
    assert report.tally.rows > 0.1 * count


def test_a_seed_gives_the_same_messages() -> None:
    from verification.fuzz.mutation import Mutator

    assert Mutator(3).messages(200) == Mutator(3).messages(200) != Mutator(4).messages(200)
