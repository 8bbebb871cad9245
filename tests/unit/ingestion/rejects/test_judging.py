"""Which share of rejects is too much, and for whom it stops a build."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from ingestion.rejects.judging import SourceVerdict, judge_sources
from ingestion.rejects.offsets import OffsetSet
from ingestion.settings import RejectSettings
from lake.landing import Manifest
from lake.layout import REPLAYS
from lake.quarantine import NOTHING_QUARANTINED, Quarantine, Span, quarantine_entry

NOW = datetime(2026, 6, 10, 12)
EMPTY: dict[str, Any] = dict.fromkeys(
    (
        *("min_event_ts", "max_event_ts", "min_arrival_ts", "max_arrival_ts", "consent_snapshot_id"),
        *("gap_reason", "reject_object", "extract_id", "complete", "extracted_at"),
    )
)


def landed(good: int, bad: int, days_ago: float = 0, source: str = "lab", **changes: Any) -> Manifest:
    """A range of a source whose offsets begin at 0, its rejects first."""
    content: dict[str, Any] = {
        "stream_id": f"c.{source}.t",
        "partition": 0,
        "start": 0,
        "end": good + bad,
        "feed": "telemetry_events",
        "source_system": source,
        "source_file": "landing/f",
        "rows": good,
        "rejected_by_reason": {"type": bad} if bad else {},
        "consent_dropped": 0,
        "offset_gaps": 0,
        "rows_by_event_date": {},
        "ingested_at": NOW - timedelta(days=days_ago),
        "bytes": 1,
        "sha256": "",
        "schema_version": 1,
        "decoder": "lab-v1@1",
    }
    return Manifest(**EMPTY | content | changes)


def judged(
    *ranges: Manifest, settled: Any = None, quarantine: Any = None, **limits: Any
) -> list[SourceVerdict]:
    return judge_sources(ranges, settled or {}, quarantine or NOTHING_QUARANTINED, RejectSettings(**limits))


def test_half_of_a_new_vendor_blocks_however_much_the_others_send() -> None:
    """Over all vendors it would be 0.5 %."""
    fleet = landed(1_000_000, 20, source="petwellness-collar", decoder="collar-v1@1")
    new, old = judged(fleet, landed(4_980, 5_020))
    assert (new.name, new.messages, new.rejected, new.share) == ("lab/lab-v1@1", 10_000, 5_020, 0.502)
    assert (new.is_too_much, new.blocks, new.has_history) == (True, True, False)
    assert (old.is_too_much, old.blocks, old.messages) == (False, False, 1_000_020)


@pytest.mark.parametrize(("setting", "blocks"), [("warn", False), ("fail", True)])
def test_a_source_with_history_warns_or_fails_as_set(setting: str, blocks: bool) -> None:
    [found] = judged(landed(50_000, 0, 3), landed(500, 500), known_source=setting)
    assert (found.has_history, found.is_too_much, found.blocks) == (True, True, blocks)
    assert found.messages == 1_000  # The day is judged, not its dilution by all that was good before.


def test_rejects_do_not_become_history_by_getting_old() -> None:
    [found] = judged(landed(500, 500, 3), landed(600, 400))
    assert (found.has_history, found.blocks, found.messages) == (False, True, 2_000)
    # Nor do the few messages of a trial.
    [found] = judged(landed(99, 0, 3), landed(200, 200))
    assert (found.has_history, found.blocks) == (False, True)


def test_a_new_version_of_a_decoder_is_new() -> None:
    before, after = judged(landed(50_000, 0), landed(500, 500, decoder="lab-v1@2"))
    assert (before.blocks, after.blocks) == (False, True)


@pytest.mark.parametrize(
    ("good", "bad", "too_much"),
    [(95, 5, False), (949, 51, True), (94, 6, True), (0, 99, False), (0, 100, True)],
)
def test_the_limit_is_exact_and_few_messages_are_not_judged(good: int, bad: int, too_much: bool) -> None:
    [found] = judged(landed(good, bad))
    assert found.is_too_much is found.blocks is too_much


def test_what_a_replay_has_landed_is_no_reject_any_more() -> None:
    bad = landed(500, 500)
    [found] = judged(bad, settled={("c.lab.t", 0): OffsetSet([(0, 460), (2_000, 3_000)])})
    assert (found.rejected, found.is_too_much) == (40, False)
    [found] = judged(bad, settled={("c.lab.t", 1): OffsetSet([(0, 460)])})
    assert found.rejected == 500


def test_what_a_person_set_aside_or_accepted_holds_nothing_up() -> None:
    bad = landed(500, 500)
    entry = quarantine_entry("misread", "ab", NOW, [Span("c.lab.t", 0, 0, 1_000)])
    assert judged(bad, quarantine=Quarantine((entry,))) == []
    part = quarantine_entry("misread", "ab", NOW, [Span("c.lab.t", 0, 0, 999)])
    assert judged(bad, quarantine=Quarantine((part,)))[0].blocks
    [found] = judged(bad, accepted="other/x@1, lab/lab-v1@1")
    assert (found.is_accepted, found.is_too_much, found.blocks) == (True, False, False)
    assert judged(bad, accepted="lab/lab-v1@2")[0].blocks


def test_gaps_records_and_replays_are_no_messages_and_a_silent_source_is_not_judged() -> None:
    good = landed(1_000, 0)
    others = [
        msgspec.structs.replace(landed(0, 500), gap_reason="the log starts at 500", rejected_by_reason={}),
        landed(0, 500, feed="owners"),
        landed(500, 0, stream_id=f"{REPLAYS}c.lab.t"),
    ]
    assert [found.messages for found in judged(good, *others)] == [1_000]
    assert [found.source_system for found in judged(landed(1_000, 0, 9, "old"), good)] == ["lab"]
    assert judged() == []
