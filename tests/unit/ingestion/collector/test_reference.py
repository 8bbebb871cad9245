"""The strict reference of the telemetry contract: what it takes, and the reason for what it does not."""

import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from contracts import telemetry
from contracts.columns import TELEMETRY_FIELDS
from contracts.telemetry import (
    REJECT_REASONS,
    ReceiptBounds,
    RejectError,
    believed_receipts,
    check_clock,
    parse_event,
)

EVENT: dict[str, Any] = {
    "device_id": "collar-1",
    "event_ts": "2026-06-01T08:00:00.123456Z",
    "event_id": "e-1",
    "accel_x_g": -0.1234,
    "step_count": 12,
    "gps_lat": 47.1234567,
    "gps_long": 8.5,
    "battery_pct": 99.5,
    "pulse_bpm": 80.10,
    "quality_score": 1,
    "schema_version": 1,
}


def message(**changes: Any) -> bytes:
    return json.dumps({**EVENT, **changes}).encode()


def reason_of(payload: bytes) -> str:
    with pytest.raises(RejectError) as caught:
        parse_event(payload)
    return caught.value.reason


def test_numbers_are_exact_decimals_and_times_naive_utc() -> None:
    event = parse_event(message(event_ts="2026-06-01T10:00:00+02:00"))
    assert event["accel_x_g"] == Decimal("-0.1234")
    assert event["pulse_bpm"] == Decimal("80.1")
    assert event["quality_score"] == Decimal(1)
    assert event["event_ts"] == datetime(2026, 6, 1, 8)
    assert event["weight_kg"] is None
    assert set(event) == {field.name for field in TELEMETRY_FIELDS}


def test_every_bound_belongs_to_a_number() -> None:
    numbers = {f.name for f in TELEMETRY_FIELDS if pa.types.is_decimal(f.type) or pa.types.is_integer(f.type)}
    assert set(telemetry.BOUNDS) <= numbers


def test_unknown_fields_are_allowed() -> None:
    assert parse_event(message(vendor={"x": [1, "a"]}))["device_id"] == "collar-1"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"{" + b" " * 70_000 + b"}", "oversized"),
        (message().replace(b"collar", b"\xff"), "encoding"),
        (message(device_id="a\x00"), "encoding"),
        (b'{"device_id":"\\ud800","event_id":"e","event_ts":"2026-06-01T08:00:00Z"}', "encoding"),
        (b"{}{}", "malformed"),
        (b"[]", "malformed"),
        (b"null", "malformed"),
        (message()[:-5], "malformed"),
        (message(battery_pct=float("nan")), "malformed"),
        (message(vendor=float("inf")), "malformed"),
        (b'{"x":' + b"[" * 60_000, "malformed"),
        (b'{"x":' + b"9" * 5_000 + b"}", "missing"),
        (message()[:-1] + b',"step_count":12}', "malformed"),
        (message(schema_version=2), "version"),
        (message(schema_version=2, device_id=None), "version"),
        (message(device_id=None), "missing"),
        (message(event_id=""), "missing"),
        (message(step_count="12"), "type"),
        (message(step_count=True), "type"),
        (message(step_count=12.0), "type"),
        (message(pulse_bpm="80"), "type"),
        (message(pulse_bpm=False), "type"),
        (message(pulse_bpm=[1]), "type"),
        (message(device_id=7), "type"),
        (message(schema_version="1"), "type"),
        (message(event_ts=1), "type"),
        (message(event_ts="2026-06-01T08:00:00"), "timestamp"),
        (message(event_ts="2026-06-01 08:00:00Z"), "timestamp"),
        (message(event_ts="2026-02-30T08:00:00Z"), "timestamp"),
        (message(event_ts="0001-01-01T00:00:00+10:00"), "timestamp"),
        (message(event_ts="2026-06-01T08:00:00.1234567Z"), "precision"),
        (message(pulse_bpm=80.12), "precision"),
        (message().replace(b"99.5", b"99.50000000000000000000000000000001"), "precision"),
        (message().replace(b"99.5", b"1e-400"), "precision"),
        (message(gps_lat=90.1), "range"),
        (message(gps_long=-180.1), "range"),
        (message(battery_pct=100.01), "range"),
        (message(quality_score=1.001), "range"),
        (message(step_count=-1), "range"),
        (message(step_count=2**31), "range"),
        (message(accel_x_g=1000), "range"),
        (message().replace(b"99.5", b"1e999999999999999999999"), "range"),
        (message(device_id="d" * 300), "range"),
    ],
)
def test_each_broken_rule_has_its_reason(payload: bytes, reason: str) -> None:
    assert reason_of(payload) == reason


def test_the_first_broken_rule_is_the_reason() -> None:
    assert reason_of(message(battery_pct=101, pulse_bpm="80", device_id=None)) == "missing"
    assert reason_of(message(battery_pct=101, pulse_bpm="80")) == "type"


@pytest.mark.parametrize("text", [b"80.100", b"801e-1", b"8.01e1", b"80.1000000000000000000000000000000"])
def test_a_number_is_what_it_is_worth_however_it_is_written(text: bytes) -> None:
    assert parse_event(message(pulse_bpm=12345678).replace(b"12345678", text))["pulse_bpm"] == Decimal("80.1")


def test_details_name_the_field_and_never_the_value() -> None:
    with pytest.raises(RejectError) as caught:
        parse_event(message(pulse_bpm="secret"))
    assert "pulse_bpm" in caught.value.detail
    assert "secret" not in str(caught.value)


def test_clock_bounds_are_inclusive() -> None:
    arrival = datetime(2026, 6, 1)
    any_time = ReceiptBounds(datetime.min, datetime.max)
    check_clock(arrival - timedelta(days=400), arrival, any_time)
    check_clock(arrival + timedelta(hours=24), arrival, any_time)
    for event_ts in (
        arrival - timedelta(days=400, microseconds=1),
        arrival + timedelta(hours=24, microseconds=1),
    ):
        with pytest.raises(RejectError, match="clock"):
            check_clock(event_ts, arrival, any_time)


def test_a_time_of_receipt_is_believed_from_the_claims_first_to_an_hour_after_it() -> None:
    claimed_at, not_before = datetime(2026, 6, 1, 12), datetime(2000, 1, 1)
    believed = believed_receipts(claimed_at, not_before)
    for arrival in (not_before, claimed_at, claimed_at + timedelta(hours=1)):
        check_clock(arrival, arrival, believed)
    for arrival, said in (
        (not_before - timedelta(microseconds=1), "before"),
        (datetime(1970, 1, 1), "before"),
        (claimed_at + timedelta(hours=1, microseconds=1), "after the claim"),
        (datetime(2036, 1, 1), "after the claim"),
    ):
        with pytest.raises(RejectError, match=f"clock: .*receipt.*{said}"):
            check_clock(arrival, arrival, believed)


def test_an_unknown_reason_is_a_mistake_in_the_code() -> None:
    with pytest.raises(ValueError, match="unknown reject reason"):
        RejectError("odd", "")
    assert len(set(REJECT_REASONS)) == len(REJECT_REASONS)
