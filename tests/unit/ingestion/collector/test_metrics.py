"""What Prometheus is told: exactly what was counted, and no counter that goes back when the service starts over."""

import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contracts.telemetry import REJECT_REASONS
from ingestion.collector.metrics import PREFIX, CollectorMetrics
from ingestion.collector.report import ROTATION_REASONS, DrainReport, Landed
from lake.landing import Manifest
from lake.store import StoreUnreachableError

NOW = datetime(2026, 6, 1, 12)
Samples = dict[tuple[str, str], float]
"""Value by (name without the prefix, values of the labels)."""
COLLAR, LAB = "petwellness-collar,collar-v1@1", "lab,lab-v1@1"


def samples(metrics: CollectorMetrics) -> Samples:
    registry = CollectorRegistry()
    registry.register(metrics)
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            assert sample.name.startswith(PREFIX)
            order = ("partition", "topic", "source", "decoder")
            labels = sorted(
                sample.labels.items(), key=lambda one: order.index(one[0]) if one[0] in order else 9
            )
            label = ",".join(value for _, value in labels)
            found[sample.name.removeprefix(PREFIX), label] = sample.value
    return found


def is_counter(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum"))


def manifest(**changes: Any) -> Manifest:
    content: dict[str, Any] = {
        "stream_id": "s",
        "partition": 0,
        "start": 0,
        "end": 10,
        "feed": "telemetry_events",
        "source_system": "petwellness-collar",
        "source_file": "landing/f",
        "rows": 10,
        "rejected_by_reason": {},
        "consent_dropped": 0,
        "offset_gaps": 0,
        "rows_by_event_date": {},
        "min_event_ts": None,
        "max_event_ts": None,
        "min_arrival_ts": None,
        "max_arrival_ts": None,
        "ingested_at": NOW,
        "bytes": 100,
        "sha256": "",
        "schema_version": 1,
        "decoder": "collar-v1@1",
        "consent_snapshot_id": "s",
        "gap_reason": None,
        "reject_object": None,
        "extract_id": None,
        "complete": None,
        "extracted_at": None,
    }
    return Manifest(**{**content, **changes})


def test_a_report_is_shown_as_it_is() -> None:
    report = DrainReport(messages=20, bytes=900, claims_lost=1, recovered_claims=2, gap_claims=3, pauses=4)
    report.add(
        manifest(
            source_system="lab",
            decoder="lab-v1@1",
            rows=6,
            rejected_by_reason={"empty": 1, "range": 2},
            consent_dropped=1,
            consent_dropped_by_reason={"erased": 1},
        )
    )
    report.rotations_by_reason["age"] += 1
    report.latencies.add([(0.0, 10)], 3.0)
    report.lag_by_partition = {("telemetry", 0): 5, ("telemetry", 1): 0}
    metrics = CollectorMetrics(lambda: {"conflict": 7})
    metrics.follow(report)
    found = samples(metrics)
    expected = {
        ("consumed_messages_total", ""): 20,
        ("consumed_bytes_total", ""): 900,
        ("landed_rows_total", ""): 6,
        ("landed_files_total", ""): 1,
        ("landed_file_bytes_total", ""): 100,
        ("consent_dropped_total", "erased"): 1,
        ("consent_dropped_total", "analytics_opt_out"): 0,
        ("offset_gaps_total", ""): 0,
        ("gap_claims_total", ""): 3,
        ("claims_lost_total", ""): 1,
        ("claims_recovered_total", ""): 2,
        ("pauses_total", ""): 4,
        ("rejects_total", f"{COLLAR},empty"): 0,
        ("rejects_total", f"{LAB},empty"): 1,
        ("rejects_total", f"{LAB},range"): 2,
        ("source_messages_total", COLLAR): 0,
        ("source_messages_total", LAB): 10,
        ("rotations_total", "age"): 1,
        ("store_retries_total", "conflict"): 7,
        ("lag_messages", "0,telemetry"): 5,
        ("lag_messages", "1,telemetry"): 0,
        ("receipt_to_file_seconds_count", ""): 10,
        ("receipt_to_file_seconds_sum", ""): 30,
    }
    assert {key: found[key] for key in expected} == expected


def test_reasons_are_there_before_they_happen_so_that_their_first_rise_is_seen() -> None:
    found = samples(CollectorMetrics())
    rejects = {label.rpartition(",")[::2] for name, label in found if name == "rejects_total"}
    assert {of for of, _ in rejects} == {label for name, label in found if name == "source_messages_total"}
    assert {reason for of, reason in rejects if of == COLLAR} == set(REJECT_REASONS)
    assert {label for name, label in found if name == "rotations_total"} == set(ROTATION_REASONS)
    assert {label for name, label in found if name == "store_retries_total"} == {"client", "conflict"}


reports = st.builds(
    lambda messages, rejects, latencies: (messages, rejects, latencies),
    st.integers(0, 1000),
    st.dictionaries(st.sampled_from(REJECT_REASONS), st.integers(1, 9), max_size=3),
    st.lists(st.tuples(st.floats(0, 100), st.integers(1, 9)), max_size=5),
)


@settings(max_examples=settings.default.max_examples // 8)
@given(st.lists(reports, min_size=1, max_size=4))
def test_counters_of_many_attempts_add_up_and_never_go_back(attempts: list[Any]) -> None:
    metrics = CollectorMetrics()
    before = samples(metrics)
    for messages, rejects, latencies in attempts:
        report = DrainReport()
        metrics.follow(report)
        assert_only_risen(before, samples(metrics))
        report.messages = messages
        report.rejects_by_source = {("lab", "lab-v1@1"): Counter(rejects)}
        report.latencies.add(latencies, 100.0)
        after = samples(metrics)
        assert_only_risen(before, after)
        before = after
    assert before["consumed_messages_total", ""] == sum(messages for messages, _, _ in attempts)
    assert sum(n for (name, _), n in before.items() if name == "rejects_total") == sum(
        sum(rejects.values()) for _, rejects, _ in attempts
    )
    assert before["receipt_to_file_seconds_count", ""] == sum(
        count for _, _, latencies in attempts for _, count in latencies
    )


def assert_only_risen(before: Samples, after: Samples) -> None:
    for key, value in before.items():
        if is_counter(key[0]):
            assert after[key] >= value, key


@settings(max_examples=settings.default.max_examples // 8)
@given(st.lists(st.tuples(st.floats(0, 90), st.integers(1, 9)), min_size=1, max_size=20))
def test_every_bucket_counts_exactly_what_is_within_its_bound(received: list[tuple[float, int]]) -> None:
    report = DrainReport()
    report.latencies.add(received, 90.0)
    metrics = CollectorMetrics()
    metrics.follow(report)
    buckets = {
        float(label): value
        for (name, label), value in samples(metrics).items()
        if name == "receipt_to_file_seconds_bucket"
    }
    assert len(buckets) > 30
    for bound, value in buckets.items():
        assert value == sum(count for moment, count in received if 90.0 - moment <= bound)


def test_restarts_are_counted_by_error() -> None:
    metrics = CollectorMetrics()
    for _ in range(2):
        metrics.note_restart(StoreUnreachableError("down"))
    assert samples(metrics)["restarts_total", "StoreUnreachableError"] == 2


def test_the_time_in_kafka_counts_from_a_files_oldest_event() -> None:
    metrics = CollectorMetrics(now=lambda: NOW)
    landed_at = time.monotonic()
    for waited_s in (30, -5):  # A clock that is behind counts as no wait.
        oldest = NOW - timedelta(seconds=waited_s)
        metrics.note_landed(Landed("telemetry", manifest(min_arrival_ts=oldest), "age", landed_at))
    metrics.note_landed(Landed("telemetry", manifest(rows=0), "gap", landed_at))
    found = samples(metrics)
    assert found["arrival_to_file_seconds_count", ""] == 2
    assert found["arrival_to_file_seconds_sum", ""] == pytest.approx(30)


def test_the_age_of_the_last_file_starts_with_the_service() -> None:
    metrics = CollectorMetrics()
    assert 0 <= samples(metrics)["last_file_age_seconds", ""] < 10
    metrics.note_landed(Landed("telemetry", manifest(), "age", time.monotonic()))
    assert 0 <= samples(metrics)["last_file_age_seconds", ""] < 10


def test_the_age_of_the_consent_snapshot_outlives_a_restart() -> None:
    metrics = CollectorMetrics(now=lambda: NOW)
    assert ("consent_snapshot_age_seconds", "") not in samples(metrics)
    metrics.follow(DrainReport(consent_built_at=NOW - timedelta(minutes=2)))
    assert samples(metrics)["consent_snapshot_age_seconds", ""] == 120
    for _ in range(2):
        metrics.follow(DrainReport())
        assert samples(metrics)["consent_snapshot_age_seconds", ""] == 120
