"""The service's log: one JSON object per line."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ingestion.collector.logline import LOGGER, fields_of, log_json


@pytest.fixture
def printed() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = log_json(stream)
    yield stream
    for name in (LOGGER, "ingestion"):
        logger = logging.getLogger(name)
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_with_fields_is_an_event(printed: io.StringIO) -> None:
    logging.getLogger(LOGGER).info("stopped", extra=fields_of({"left": {"telemetry[0]": 3}}))
    [line] = lines(printed)
    assert str(line.pop("time")).endswith("Z")
    assert line == {"level": "info", "event": "stopped", "left": {"telemetry[0]": 3}}


def test_what_the_library_says_is_a_line_as_well(printed: io.StringIO) -> None:
    logging.getLogger("ingestion.collector.engine").warning("the lake is slow:\n%d bytes", 7)
    [line] = lines(printed)
    assert (line["level"], line["event"], line["logger"]) == (
        "warning",
        "log",
        "ingestion.collector.engine",
    )
    assert line["message"] == "the lake is slow:\n7 bytes"


def test_a_traceback_stays_in_its_line(printed: io.StringIO) -> None:
    try:
        raise ValueError("bug")
    except ValueError:
        logging.getLogger(LOGGER).exception("failed", extra=fields_of({}))
    [line] = lines(printed)
    assert "ValueError: bug" in str(line["traceback"])
