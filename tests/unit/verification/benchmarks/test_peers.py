"""What is said of peers: their table, their configurations, the types of their columns."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from verification.benchmarks.messages import generate
from verification.benchmarks.peers import PEERS, Figures, NotMeasured, lines
from verification.benchmarks.peers.contenders import (
    Job,
    benthos_config,
    iceberg_properties,
    properties,
    worker_properties,
)
from verification.benchmarks.peers.verify import FIELDS, untyped

FIGURES = Figures(
    peer="Peer",
    version="1.2",
    configuration="as it comes",
    messages=1_000,
    rows=1_000,
    lost=0,
    duplicated=0,
    payloads=1_000,
    untyped=(),
    files=2,
    bytes_written=1_500_000,
    whole_s=2.0,
    consuming_s=1.0,
    events_per_s=1_000,
    cpu_s=0.5,
    cpu_us_per_event=12.34,
    peak_rss_bytes=200_000_000,
    remarks="",
)
JOB = Job("127.0.0.1:9092", "telemetry", 1_000, "group-1", Path("/scratch/peer"))
WELL_TYPED = {
    "text": "VARCHAR",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "real": "DOUBLE",
    "whole": "BIGINT",
}


def test_a_peer_that_kept_everything_says_so_in_its_row() -> None:
    row = lines([FIGURES])[-1]

    assert row == "| Peer 1.2 | 1,000 | 12.3 | 200 | 1.5 | 2 | all, once | kept | - |"


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"rows": 990, "lost": 10}, "990: 10 lost, 0 twice"),
        ({"rows": 1_010, "duplicated": 10}, "1,010: 0 lost, 10 twice"),
        ({"lost": 10, "duplicated": 10}, "1,000: 10 lost, 10 twice"),
        ({"payloads": 0}, "| no |"),
        ({"payloads": 7}, "| 7 kept |"),
        ({"untyped": ("event_ts", "gps_lat")}, "| event_ts, gps_lat |"),
    ],
)
def test_what_a_peer_does_not_keep_is_in_its_row(found: dict[str, int], told: str) -> None:
    figures = replace(FIGURES, **found)

    assert told in lines([figures])[-1]
    assert figures.is_whole is not ({"lost", "duplicated"} & found.keys() != set())


def test_a_peer_that_was_not_measured_has_a_line_with_the_reason_and_no_row() -> None:
    told = lines([NotMeasured("peer", "there is no `go` here")])

    assert told == ["peer: not measured: there is no `go` here"]


def test_the_fields_looked_for_are_those_of_the_messages() -> None:
    [message], _ = generate(1)

    assert list(FIELDS) == list(json.loads(message))


def test_columns_of_their_kind_are_typed() -> None:
    assert untyped({name: WELL_TYPED[kind] for name, kind in FIELDS.items()}) == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("event_ts", "VARCHAR"), ("step_count", "DOUBLE"), ("gps_lat", "VARCHAR"), ("device_id", "BLOB")],
)
def test_a_column_of_another_kind_is_named(name: str, kind: str) -> None:
    types = {field: WELL_TYPED[wanted] for field, wanted in FIELDS.items()} | {name: kind}

    assert untyped(types) == (name,)


def test_a_missing_column_is_named() -> None:
    assert untyped({}) == tuple(sorted(FIELDS))


def test_no_peer_listens_beyond_this_machine() -> None:
    assert benthos_config(JOB)["http"] == {"enabled": False}
    assert worker_properties(JOB, 20_001)["listeners"] == "http://127.0.0.1:20001"


def test_every_peer_reads_as_the_group_of_its_job() -> None:
    assert '"consumer_group": "group-1"' in json.dumps(benthos_config(JOB))
    assert "name=group-1\n" in properties(iceberg_properties(JOB, "control"))
    assert json.loads(JOB.told())["group"] == "group-1"


def test_the_peers_can_be_named() -> None:
    assert list(PEERS) == ["quixstreams", "benthos", "kafka-connect", "polars", "duckdb"]
