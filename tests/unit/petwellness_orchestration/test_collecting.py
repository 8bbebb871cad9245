"""What a drain shows in Dagster."""

from collections import Counter

from ingestion.collector.report import DrainReport
from petwellness_orchestration.collecting import drain_metadata


def test_a_drain_shows_its_counts_and_latencies_as_numbers() -> None:
    report = DrainReport(messages=100, claims_lost=2, pauses=3, recovered_claims=1)
    report.messages_by_source["lab", "lab-v1@1"] += 50
    report.rejects_by_source = {
        ("lab", "lab-v1@1"): Counter(range=1, empty=1),
        ("petwellness-collar", "collar-v1@1"): Counter(range=1),
    }
    report.messages_by_source["petwellness-collar", "collar-v1@1"] += 50
    report.latencies.add([(0.0, 98), (9.0, 2)], 10.0)
    report.settle(0.0)
    shown = drain_metadata(report)
    expected = {
        "messages": 100,
        "rejected": 3,
        "rejected_by_reason": {"empty": 1, "range": 2},
        "rejected_by_source": {"lab/lab-v1@1": "2 of 50", "petwellness-collar/collar-v1@1": "1 of 50"},
        "claims_lost": 2,
        "pauses": 3,
        "recovered_claims": 1,
        "landing_latency_max_s": 10.0,
    }
    assert {name: shown[name] for name in expected} == expected
    assert 9.5 < shown["landing_latency_p50_s"] <= shown["landing_latency_p99_s"] <= 10.0


def test_a_drain_of_nothing_has_no_latencies() -> None:
    report = DrainReport()
    report.settle(0.0)
    assert not any(name.startswith("landing_latency") for name in drain_metadata(report))
