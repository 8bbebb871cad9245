"""Gaps: each fault gives a gap of its kind, with what closes it, and nothing is loaded twice to close one."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import duckdb
import msgspec
import pytest
from landed import CLAIMED_AT, STREAM, claim, manifest

from ingestion.collector.recovery import EMBEDDED_STOPPED
from lake.landing import Claim, Manifest
from lake.layout import RangeKey
from warehouse.gaps import (
    Gap,
    LakeGaps,
    Orphans,
    deleted_topics,
    heartbeat_gaps,
    lake_gaps,
    log_gaps,
    lost_ranges,
)
from warehouse.reconcile import RawRange


@dataclass
class State:
    """Three ranges that agree everywhere; a test breaks one thing."""

    claims: list[Claim] = field(default_factory=lambda: [claim(0, 10), claim(10, 20), claim(20, 30)])
    manifests: list[Manifest] = field(init=False)
    raw: dict[RangeKey, RawRange] = field(init=False)
    orphans: list[Orphans] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manifests = [manifest(one) for one in self.claims]
        self.raw = {m.range_key: RawRange(m.end, m.rows, m.rows, m.rows) for m in self.manifests}

    def look(self, alive: str = STREAM, settled_before: datetime | None = None) -> LakeGaps:
        is_dead = deleted_topics([alive])
        return lake_gaps(self.claims, self.manifests, self.raw, self.orphans, is_dead, settled_before)


def kinds(found: LakeGaps) -> list[str]:
    return [gap.kind.name for gap in found.gaps]


MIDDLE = (STREAM, 0, 10)


def test_what_agrees_has_no_gap() -> None:
    assert State().look() == LakeGaps((), (), (), 0)


def test_a_claim_without_manifest_is_unfinished_and_names_its_range() -> None:
    state = State()
    del state.manifests[1], state.raw[MIDDLE]
    [gap] = state.look().gaps
    assert (gap.kind.name, gap.where, gap.count) == ("unfinished", f"{STREAM} partition 0 [10, 20)", 10)
    assert "petwellness collect" in gap.kind.fix
    assert gap.kind.is_open


def test_a_claim_of_a_deleted_topic_is_dead_not_unfinished() -> None:
    state = State()
    unlanded = state.claims[1]
    del state.manifests[1], state.raw[MIDDLE]
    found = state.look(alive="cluster.telemetry.t2")
    assert kinds(found) == ["dead"]
    assert found.dead == (unlanded,)
    assert state.look(alive="othercluster.telemetry.t2").dead == ()


def test_a_fresh_claim_is_on_its_way_where_collectors_run() -> None:
    state = State()
    del state.manifests[2], state.raw[STREAM, 0, 20]
    found = state.look(settled_before=CLAIMED_AT - timedelta(seconds=1))
    assert (found.gaps, found.pending) == ((), 1)


def test_a_manifest_that_is_not_loaded_is_loaded_by_a_load() -> None:
    state = State()
    del state.raw[MIDDLE]
    found = state.look()
    assert kinds(found) == ["unloaded"]
    assert found.to_reload == ()


def test_rows_without_their_ledger_entry_are_not_loaded_on_top() -> None:
    state = State()
    del state.raw[MIDDLE]
    state.orphans = [Orphans("telemetry_events", STREAM, 0, 10, 19, 10)]
    found = state.look()
    assert kinds(found) == ["different"]
    assert found.to_reload == (state.manifests[1],)


@pytest.mark.parametrize(
    "raw",
    [
        RawRange(20, 10, 0, 0),  # Its rows are gone.
        RawRange(20, 10, 7, 7),  # Some are.
        RawRange(20, 10, 20, 10),  # They are there twice.
        RawRange(19, 10, 10, 10),
        RawRange(20, 9, 10, 10),
    ],
)
def test_a_range_on_which_raw_differs_is_loaded_again(raw: RawRange) -> None:
    state = State()
    state.raw[MIDDLE] = raw
    found = state.look()
    assert {*kinds(found)} == {"different"}
    assert found.to_reload == (state.manifests[1],)


def test_raw_of_ranges_that_the_lake_does_not_know_is_not_touched() -> None:
    state = State()
    del state.claims[2], state.manifests[2]
    state.orphans = [Orphans("telemetry_events", "gone.telemetry.x", 0, 0, 4, 5)]
    found = state.look()
    assert kinds(found) == ["unknown", "unknown"]
    assert found.to_reload == ()


def test_a_lake_that_contradicts_itself_is_broken() -> None:
    state = State()
    del state.claims[1]
    assert {*kinds(state.look())} == {"broken"}


@pytest.mark.parametrize(("start", "end"), [(5, 10), (4, 9)], ids=["begins above 0", "overlap"])
def test_a_chain_that_two_workers_began_names_its_command(start: int, end: int) -> None:
    claims = [claim(start, end)] if start == 5 else [claim(0, 9), claim(start, end)]
    manifests = [manifest(one) for one in claims]
    raw = {m.range_key: RawRange(m.end, m.rows, m.rows, m.rows) for m in manifests}
    [gap] = lake_gaps(claims, manifests, raw, [], deleted_topics([STREAM])).gaps
    assert (gap.kind.name, gap.kind.fix, gap.kind.is_open) == (
        "forked",
        "`petwellness claims supersede`",
        True,
    )
    assert gap.where == f"{STREAM} partition 0 [{start}, {end})"


def test_what_the_log_lost_is_told_and_cannot_be_closed() -> None:
    state = State()
    gone = msgspec.structs.replace(state.claims[1], gap_reason="the log starts at 20")
    state.claims[1] = gone
    state.manifests[1] = manifest(gone, rows=0, offset_gaps=10)
    state.raw[MIDDLE] = RawRange(20, 0, 0, 0)
    [gap] = state.look().gaps
    assert (gap.kind.name, gap.kind.is_open, gap.count) == ("lost", False, 10)
    assert "the log starts at 20" in gap.detail


def test_a_stopped_embedded_broker_loses_nothing() -> None:
    gone = manifest(claim(0, 10, gap_reason=EMBEDDED_STOPPED), rows=0, offset_gaps=10)
    assert lost_ranges([gone]) == []
    partly = manifest(claim(0, 10), rows=7, offset_gaps=3)
    assert lost_ranges([partly]) == [partly]


def test_a_replay_leaves_out_what_was_no_reject_and_loses_nothing() -> None:
    replayed = manifest(claim(0, 10, stream_id=f"rejects.{STREAM}"), rows=1, offset_gaps=9)
    assert lost_ranges([replayed]) == []


def brief(gaps: list[Gap]) -> list[tuple[str, str, int]]:
    return [(gap.kind.name, gap.where, gap.count) for gap in gaps]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 30, []),
        (25, 30, []),
        (0, 42, [("waiting", "telemetry[0] [30, 42)", 12)]),
        (35, 42, [("expired", "telemetry[0] [30, 35)", 5), ("waiting", "telemetry[0] [35, 42)", 7)]),
        (35, 35, [("expired", "telemetry[0] [30, 35)", 5)]),
    ],
)
def test_a_log_is_held_against_the_end_of_the_claims(low: int, high: int, expected: list[Any]) -> None:
    claims = [*State().claims, claim(0, 99, stream_id="cluster.telemetry.t0"), claim(0, 99, partition=1)]
    assert brief(log_gaps("telemetry", STREAM, {0: (low, high)}, claims, False)) == expected


def test_a_partition_without_claims_waits_from_its_start_on_and_has_lost_what_is_before() -> None:
    found = log_gaps("telemetry", STREAM, {3: (5, 9), 4: (5, 5)}, [], False)
    assert brief(found) == [
        ("expired", "telemetry[3] [0, 5)", 5),
        ("waiting", "telemetry[3] [5, 9)", 4),
        ("expired", "telemetry[4] [0, 5)", 5),
    ]
    assert found[1].kind.is_open
    assert not log_gaps("telemetry", STREAM, {3: (5, 9)}, [], True)[1].kind.is_open


def test_silent_devices_are_named_with_their_clinic() -> None:
    con = duckdb.connect()
    assert heartbeat_gaps(con, 0.8) == []
    con.execute("create schema anl")
    con.execute(
        "create table anl.device_daily_heartbeat as select * from (values"
        " ('c1', date '2026-06-01', 'north', 1440, 1440, 1.0), ('c2', date '2026-06-01', 'north', 100, 1440, 0.069),"
        " ('c3', date '2026-06-02', null, 0, 1440, 0.0), ('c4', date '2026-06-02', 'south', 3, null, null))"
        " as t (device_id, event_date, clinic_id, event_count, expected_events, heartbeat_ratio)"
    )
    found = heartbeat_gaps(con, 0.8)
    assert [(gap.where, gap.count, gap.detail) for gap in found] == [
        ("c3 on 2026-06-02", 1440, "0 of 1440 events, clinic unknown"),
        ("c2 on 2026-06-01", 1340, "100 of 1440 events, clinic north"),
    ]
