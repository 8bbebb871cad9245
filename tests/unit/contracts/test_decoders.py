"""Vendor decoders: the contract's fields from a vendor's message, frame identity, and rejects with their reason."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.decoders import DECODERS
from contracts.telemetry import TYPES, RejectError, parse_event

CAMPUSIOT = DECODERS["campusiot-v1"].decode
MOVEBANK = DECODERS["movebank-v1"].decode

MEASURED = {
    "batteryVoltage": 4087,
    "latitude": 45.19500732421875,
    "longitude": 5.7183837890625,
    "quality": 1,
    "satellites": 6,
    "temperature": 34,
    "uplinkCounter": 28,
}


def frame(measured: dict[str, Any] | None = None, **changes: Any) -> bytes:
    document = {
        "name": "FTD_1",
        "dev_eui": "0018B20000000001",
        "devaddr": "D2010048",
        "fcnt": 5,
        "port": 1,
        "hotspots": [{"hold_time": 307, "reported_at": 1630589951278}],
        "reported_at": 1630589951278,
        "_timestamp": 1630589951755,
        "decoded": {"payload": MEASURED | (measured or {})},
    }
    return json.dumps(document | changes).encode()


def fix(**changes: Any) -> bytes:
    row = {
        "tag_id": "Tom-Tag",
        "event_id": "3395610551",
        "visible": "TRUE",
        "timestamp": "2017-06-24 01:03:57",
        "location_long": "-5.113851",
        "location_lat": "50.170315",
        "ground_speed": "684",
        "algorithm_marked_outlier": "FALSE",
        "manually_marked_outlier": "FALSE",
    }
    return json.dumps(row | changes).encode()


def test_decoders_cover_the_topics_and_the_contract() -> None:
    assert {decoder.topic: decoder.source_system for decoder in DECODERS.values()} == {
        "telemetry": "petwellness-collar",
        "telemetry.campusiot": "campusiot",
        "telemetry.movebank": "movebank",
    }
    assert all(name == decoder.name for name, decoder in DECODERS.items())
    assert DECODERS["collar-v1"].decode is parse_event
    assert list(CAMPUSIOT(frame())) == list(MOVEBANK(fix())) == list(TYPES)


def test_a_frame_has_the_reported_time_and_a_position_of_seven_decimals_and_no_more() -> None:
    event = {name: value for name, value in CAMPUSIOT(frame()).items() if value is not None}
    event_id = event.pop("event_id")
    assert len(event_id) == 32
    assert event == {
        "device_id": "0018B20000000001",
        "event_ts": datetime(2021, 9, 2, 13, 39, 11, 278_000),
        "gps_lat": Decimal("45.1950073"),
        "gps_long": Decimal("5.7183838"),
        "schema_version": 1,
    }


def test_a_repeated_frame_keeps_its_id_and_another_frame_has_another() -> None:
    first = CAMPUSIOT(frame())["event_id"]
    repeat = frame(reported_at=1630589955730, _timestamp=1630589956209, hotspots=[], name="FTP_1")
    assert CAMPUSIOT(repeat)["event_id"] == first
    others = [
        frame(dev_eui="0018B20000000002"),
        frame(devaddr="BA000048"),
        frame(fcnt=6),
        # The counter and even the session's address come again after a join.
        frame({"batteryVoltage": 3974}),
    ]
    assert len({first, *(CAMPUSIOT(other)["event_id"] for other in others)}) == 5


def test_a_frame_without_a_fix_is_an_event_without_a_position() -> None:
    event = CAMPUSIOT(frame({"latitude": None, "longitude": None}))
    assert (event["gps_lat"], event["gps_long"]) == (None, None)
    unread = frame(dict.fromkeys(MEASURED))
    assert CAMPUSIOT(unread)["gps_lat"] is None


@settings(max_examples=50)
@given(st.floats(-90, 90, width=32), st.floats(-180, 180, width=32))
def test_a_position_is_rounded_to_the_nearest_ten_millionth(lat: float, long: float) -> None:
    event = CAMPUSIOT(frame({"latitude": lat, "longitude": long}))
    for value, sent in ((event["gps_lat"], lat), (event["gps_long"], long)):
        assert abs(value - Decimal(repr(sent))) <= Decimal("5e-8")
        assert value.as_tuple().exponent == -7


@pytest.mark.parametrize(
    ("payload", "reason", "named"),
    [
        (b"", "empty", ""),
        (b" \r\n", "empty", ""),
        (b"\xff" + frame(), "encoding", ""),
        (frame()[:-1], "malformed", ""),
        (b"[]", "malformed", ""),
        (frame() + frame(), "malformed", ""),
        (frame().replace(b"34", b"NaN"), "malformed", ""),
        (frame().replace(b'"fcnt": 5', b'"fcnt": 5, "fcnt": 6'), "malformed", "repeats"),
        (b"[" * 100_000, "oversized", ""),
        (b"[" * 1_000, "malformed", ""),
        (frame(dev_eui=None), "missing", "dev_eui"),
        (frame(dev_eui=""), "missing", "dev_eui"),
        (frame(dev_eui=7), "type", "dev_eui"),
        (frame(fcnt="5"), "type", "fcnt"),
        (frame(fcnt=True), "type", "fcnt"),
        (frame(decoded=None), "missing", "decoded"),
        (frame(reported_at=None), "missing", "reported_at"),
        (frame(reported_at=1.5), "type", "reported_at"),
        (frame(reported_at=10**30), "timestamp", "reported_at"),
        (frame({"latitude": None}), "missing", "latitude and longitude"),
        (frame({"latitude": "45.1"}), "type", "latitude"),
        (frame({"latitude": 90.5}), "range", "latitude"),
        (frame({"longitude": -1e300}), "range", "longitude"),
    ],
)
def test_a_bad_frame_is_rejected_with_reason_and_field(payload: bytes, reason: str, named: str) -> None:
    with pytest.raises(RejectError) as raised:
        CAMPUSIOT(payload)
    assert raised.value.reason == reason
    assert named in raised.value.detail


def test_a_fix_keeps_its_position_exactly_and_leaves_the_speed_in_the_payload() -> None:
    event = {name: value for name, value in MOVEBANK(fix()).items() if value is not None}
    assert len(event.pop("event_id")) == 32
    assert event == {
        "device_id": "Tom-Tag",
        "event_ts": datetime(2017, 6, 24, 1, 3, 57),
        "gps_lat": Decimal("50.170315"),
        "gps_long": Decimal("-5.113851"),
        "quality_score": 1,
        "schema_version": 1,
    }


@pytest.mark.parametrize(
    ("by_algorithm", "by_hand", "score"),
    [("FALSE", "FALSE", 1), ("", "", 1), ("TRUE", "FALSE", 0), ("FALSE", "TRUE", 0), ("TRUE", "TRUE", 0)],
)
def test_either_outlier_flag_makes_the_quality_zero(by_algorithm: str, by_hand: str, score: int) -> None:
    payload = fix(algorithm_marked_outlier=by_algorithm, manually_marked_outlier=by_hand)
    assert MOVEBANK(payload)["quality_score"] == score


@pytest.mark.parametrize(
    ("payload", "reason", "named"),
    [
        (fix(tag_id=""), "missing", "tag_id"),
        (fix(event_id=3395610551), "type", "event_id"),
        (fix(timestamp="2017-06-24T01:03:57"), "timestamp", "timestamp"),
        (fix(timestamp="2017-06-31 01:03:57"), "timestamp", "timestamp"),
        (fix(location_lat=""), "missing", "location_lat"),
        (fix(location_lat="north"), "type", "location_lat"),
        (fix(location_lat="91"), "range", "gps_lat"),
        (fix(location_long="0.12345678"), "precision", "gps_long"),
        (fix(manually_marked_outlier="yes"), "type", "manually_marked_outlier"),
        (fix(algorithm_marked_outlier=None), "missing", "algorithm_marked_outlier"),
        (fix(algorithm_marked_outlier=[]), "type", "algorithm_marked_outlier"),
    ],
)
def test_a_bad_fix_is_rejected_with_reason_and_field(payload: bytes, reason: str, named: str) -> None:
    with pytest.raises(RejectError) as raised:
        MOVEBANK(payload)
    assert raised.value.reason == reason
    assert named in raised.value.detail


@settings(max_examples=50)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_no_message_breaks_a_decoder(payload: bytes) -> None:
    for decode in (CAMPUSIOT, MOVEBANK):
        with pytest.raises(RejectError):
            decode(payload)
