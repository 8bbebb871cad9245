"""Waves: original times of receipt, order, ids from content, and rows that make no message."""

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.decoders import DECODERS
from ingestion.extracts.files import SourceFile
from ingestion.extracts.model import MissingColumnError
from ingestion.extracts.replay import BATCH_MESSAGES, FIXES_FILE, cat_wave, tracker_wave
from ingestion.extracts.tracker import FILE as TRACKER_FILE

HEADER = (
    '"tag_id","event_id","visible","timestamp","location_long","location_lat","ground_speed",'
    '"algorithm_marked_outlier","manually_marked_outlier"\r\n'
)


def tracker_file(*lines: bytes) -> SourceFile:
    return SourceFile(TRACKER_FILE, gzip.compress(b"\n".join(lines) + b"\n", mtime=0))


def line(**fields: Any) -> bytes:
    return json.dumps({"dev_eui": "E1", "_timestamp": 1_630_589_956_209, **fields}).encode()


def test_frames_are_sent_as_they_are_in_order_of_receipt() -> None:
    late, early = line(_timestamp=1_630_589_956_210), line(dev_eui="E2")
    wave = tracker_wave(tracker_file(late, early))
    [batch] = list(wave)
    assert [(message.value, message.key, message.arrival_ts_ms) for message in batch] == [
        (early, b"E2", 1_630_589_956_209),
        (late, b"E1", 1_630_589_956_210),
    ]
    assert {message.topic for message in batch} == {"telemetry.campusiot"} == {wave.topic}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"", "empty"),
        (b"{", "malformed"),
        (b"[]", "malformed"),
        (b"\xff{}", "encoding"),
        (b"{}", "no_arrival_time"),
        (line(_timestamp="1630589956209"), "no_arrival_time"),
        (line(_timestamp=True), "no_arrival_time"),
        (line(_timestamp=1_630_589_956), "no_arrival_time"),
        (line(_timestamp=10**20), "no_arrival_time"),
    ],
)
def test_a_line_that_cannot_be_sent_is_a_problem_with_its_line(bad: bytes, reason: str) -> None:
    wave = tracker_wave(tracker_file(line(), bad, line(dev_eui=None)))
    assert [(problem.file, problem.row, problem.reason) for problem in wave.problems] == [
        (TRACKER_FILE, 2, reason)
    ]
    # What a frame lacks besides is the decoder's to reject.
    assert len(wave.messages) == 2
    assert wave.rows_read == 3


@settings(max_examples=50)
@given(st.lists(st.sampled_from([b"", b"{", line(), line(dev_eui="E2"), line(_timestamp=None)]), max_size=12))
def test_every_line_is_a_message_or_a_problem(lines: list[bytes]) -> None:
    wave = tracker_wave(tracker_file(*lines, line()))
    assert len(wave.messages) + len(wave.problems) == wave.rows_read == len(lines) + 1


def fixes(*rows: str) -> SourceFile:
    return SourceFile(FIXES_FILE, (HEADER + "\r\n".join(rows) + "\r\n").encode())


def test_fixes_arrive_when_they_happen_and_decode() -> None:
    wave = cat_wave(
        fixes(
            '"Tom",2,TRUE,2017-06-24 01:11:20,-5.113851,50.170315,936,FALSE,FALSE',
            '"Ada",1,FALSE,2017-06-24 01:03:57,-5.113851,50.170315,684,TRUE,FALSE',
            '"Ada",3,TRUE,yesterday,-5.113851,50.170315,684,FALSE,FALSE',
            '"Ada",4',
        )
    )
    [batch] = list(wave)
    events = [DECODERS["movebank-v1"].decode(message.value) for message in batch]
    assert [(event["device_id"], event["quality_score"]) for event in events] == [("Ada", 0), ("Tom", 1)]
    assert [message.arrival_ts_ms for message in batch] == [1_498_266_237_000, 1_498_266_680_000]
    assert [message.key for message in batch] == [b"Ada", b"Tom"]
    assert [(problem.row, problem.reason) for problem in sorted(wave.problems, key=lambda p: p.row)] == [
        (4, "no_arrival_time"),
        (5, "malformed_row"),
    ]
    assert wave.rows_read == 4


def test_a_missing_column_of_the_fixes_names_the_file() -> None:
    file = SourceFile(FIXES_FILE, HEADER.replace("location_lat", "lat").encode())
    with pytest.raises(MissingColumnError, match=f"{FIXES_FILE} lacks the column 'location_lat'"):
        cat_wave(file)


def test_the_wave_id_follows_from_the_content() -> None:
    first = tracker_wave(tracker_file(line()))
    assert first.wave_id == tracker_wave(tracker_file(line())).wave_id
    assert first.wave_id != tracker_wave(tracker_file(line(), line())).wave_id
    assert first.wave_id.startswith("telemetry.campusiot-")


def test_batches_hold_all_messages_in_order() -> None:
    count = 2 * BATCH_MESSAGES + 1
    wave = tracker_wave(tracker_file(*(line(fcnt=number) for number in range(count))))
    batches = list(wave)
    assert [len(batch) for batch in batches] == [BATCH_MESSAGES, BATCH_MESSAGES, 1]
    assert [message for batch in batches for message in batch] == wave.messages
    assert list(wave) == batches
