"""The change log that consent and erasure read, against the reference of histories and by hand."""

import importlib.util
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lake.changes import Extract, Row, change_log

REFERENCE = Path(__file__).resolve().parents[2] / "integration/dbt_project/history_reference.py"
START = datetime(2026, 6, 1)
HOUR = timedelta(hours=1)
HOURS = 9


def _load_reference() -> Any:
    spec = importlib.util.spec_from_file_location("reference_of_histories", REFERENCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


reference = _load_reference()


def at(hour: int) -> datetime:
    return START + hour * HOUR


def record(key: str, changed: int, said: str | None, received: int | None = None, **more: Any) -> Row:
    """A record of a stream of changes; nothing said: a deletion."""
    return {
        "id": key,
        "said": said,
        "op": "delete" if said is None else "upsert",
        "changed_at": at(changed),
        "arrival_ts": at(changed if received is None else received),
        "stream_id": "crm",
        "kafka_partition": 0,
        "kafka_offset": 0,
        **more,
    }


def extract(
    number: int, hour: int, rows: list[Row], received: int | None = None, source: str = "registry"
) -> tuple[list[Row], Extract]:
    """A complete extract, stated at an hour."""
    arrived = at(hour if received is None else received)
    stream_id = f"{source}.{number}"
    listed = [
        {**row, "op": "snapshot", "arrival_ts": arrived, "stream_id": stream_id, "kafka_offset": offset}
        for offset, row in enumerate(rows)
    ]
    return listed, Extract(source, stream_id, at(hour), arrived, len(listed))


HOUR_NUMBERS = st.integers(0, HOURS - 1)
KEYS = st.sampled_from(["a", "b", "c"])
SAID = st.sampled_from(["x", "y"])


@st.composite
def landed(draw: st.DrawFn) -> tuple[list[Row], list[Extract]]:
    rows = [
        record(
            *(draw(KEYS), changed := draw(HOUR_NUMBERS), draw(st.one_of(SAID, st.none()))),
            # The last of these is of a clock that is ahead.
            received=changed + draw(st.sampled_from([0, 0, 3, -25])),
            kafka_offset=number,
        )
        for number in range(draw(st.integers(0, 5)))
    ]
    extracts = []
    for number in range(draw(st.integers(0, 5))):
        hour = draw(HOUR_NUMBERS)
        listed = [
            record(draw(KEYS), hour - draw(st.integers(0, 5)), draw(SAID))
            for _ in range(draw(st.integers(0, 4)))
        ]
        of_extract, statement = extract(number, hour, listed, hour + draw(st.sampled_from([0, 0, 2])))
        rows += of_extract
        extracts.append(statement)
    return rows, extracts


def expected(rows: list[Row], extracts: list[Extract], known_at: datetime | None) -> list[Any]:
    return reference.history(
        [
            reference.Change(
                key=row["id"],
                changed_at=row["changed_at"],
                arrival_ts=row["arrival_ts"],
                stream_id=row["stream_id"],
                partition=row["kafka_partition"],
                offset=row["kafka_offset"],
                ingested_at=row["arrival_ts"],
                content=row["said"],
                extract_id=row["stream_id"] if row["op"] == "snapshot" else None,
            )
            for row in rows
            if row["changed_at"] <= row["arrival_ts"] + 24 * HOUR
        ],
        [
            reference.Extract(
                one.stream_id, one.extracted_at, one.arrival_ts, one.stream_id, one.arrival_ts, complete=True
            )
            for one in extracts
        ],
        known_at,
    )


@settings(max_examples=settings.default.max_examples // 2)
@given(landed(), st.one_of(st.none(), HOUR_NUMBERS.map(at)))
def test_at_every_moment_an_entity_is_what_its_history_says(
    landed: tuple[list[Row], list[Extract]], known_at: datetime | None
) -> None:
    rows, extracts = landed
    log = change_log(
        [row for row in rows if known_at is None or row["arrival_ts"] <= known_at],
        [one for one in extracts if known_at is None or one.arrival_ts <= known_at],
        "id",
    )
    versions = expected(rows, extracts, known_at)
    for moment in [at(hour) for hour in range(-6, HOURS)]:
        said = {
            change.key: change.row and change.row["said"] for change in log if change.changed_at <= moment
        }
        assert {key: content for key, content in said.items() if content} == {
            one.key: one.content
            for one in versions
            if one.content and one.valid_from <= moment and (one.valid_to is None or moment < one.valid_to)
        }


def present(*extracts: tuple[list[Row], Extract], others: list[Row] | None = None) -> dict[str, str]:
    """What each entity is after all of it."""
    rows = [row for listed, _ in extracts for row in listed] + (others or [])
    log = change_log(rows, [statement for _, statement in extracts], "id")
    last = {change.key: change.row for change in log}
    return {key: row["said"] for key, row in last.items() if row is not None}


def test_extracts_of_another_source_are_no_neighbours() -> None:
    one, other = record("a", 0, "x"), record("b", 0, "x")
    assert present(extract(1, 1, [one]), extract(2, 2, [other], source="clinic")) == {"a": "x", "b": "x"}
    assert present(extract(1, 1, [one]), extract(2, 2, [other])) == {"b": "x"}


def test_an_extract_without_rows_says_that_nothing_is_there() -> None:
    row = record("a", 0, "x")
    assert present(extract(1, 1, [row]), extract(2, 2, [])) == {}
    assert present(extract(1, 1, [row]), extract(2, 2, []), extract(3, 3, [row])) == {"a": "x"}


def test_a_row_of_a_clock_that_is_ahead_says_that_its_entity_is_there() -> None:
    row, ahead = record("a", 0, "x"), record("a", 99, "y")
    assert present(extract(1, 1, [row]), extract(2, 2, [ahead])) == {"a": "x"}
    # After an extract without it, what it says holds from the extract on, if nothing else is said there.
    assert present(extract(1, 1, [row]), extract(2, 2, []), extract(3, 3, [ahead])) == {"a": "y"}
    assert present(extract(1, 1, [row]), extract(2, 2, []), extract(3, 3, [row, ahead])) == {"a": "x"}
