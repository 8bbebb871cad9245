"""Latencies counted in bounded memory: percentiles within 5 %, every message counted."""

import math
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.collector.report import LATENCY_BOUNDS_S, Latencies

ROUNDING_S = 1e-6
received = st.lists(st.tuples(st.floats(0.0, 5_000.0), st.integers(1, 50)), min_size=1, max_size=30)


def nearest_rank(values: list[float], rank: float) -> float:
    return sorted(values)[max(0, math.ceil(rank * len(values)) - 1)]


@settings(deadline=None)
@given(received)
def test_percentiles_are_within_a_bucket_of_the_exact_ones(batches: list[tuple[float, int]]) -> None:
    done_at = 5_000.0
    counted = Latencies()
    counted.add(batches, done_at)
    exact = [done_at - moment for moment, count in batches for _ in range(count)]
    found = counted.percentiles()
    for name, rank in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        expected = nearest_rank(exact, rank)
        assert expected - ROUNDING_S <= found[name] <= max(expected * 1.051, LATENCY_BOUNDS_S[0])
    assert found["max"] == max(exact)
    assert found["p50"] <= found["p95"] <= found["p99"] <= found["max"]
    assert sum(counted.counts) == len(exact)
    assert math.isclose(counted.sum_s, sum(exact), abs_tol=1e-6)


@settings(deadline=None)
@given(received, received)
def test_counting_in_two_steps_is_counting_at_once(
    first: list[tuple[float, int]], second: list[tuple[float, int]]
) -> None:
    steps, at_once = Latencies(), Latencies()
    steps.add(first, 5_000.0)
    steps.add(second, 5_000.0)
    at_once.add([*first, *second], 5_000.0)
    assert steps.counts == at_once.counts
    assert steps.percentiles() == at_once.percentiles()


def test_nothing_counted_has_no_percentiles() -> None:
    assert Latencies().percentiles() == {}


def test_memory_does_not_grow_and_a_latency_beyond_a_day_still_counts() -> None:
    counted = Latencies()
    counted.add([(0.0, 1_000_000)], 1e9)
    assert len(counted.counts) == len(LATENCY_BOUNDS_S) + 1
    assert counted.percentiles()["p50"] == 1e9


def test_a_latency_of_exactly_a_bound_is_within_it() -> None:
    counted = Latencies()
    counted.add([(0.0, 1)], LATENCY_BOUNDS_S[100])
    assert counted.counts[100] == 1


def test_bounds_grow_by_at_most_five_percent() -> None:
    ratios = [high / low for low, high in pairwise(LATENCY_BOUNDS_S)]
    assert min(ratios) > 1
    assert max(ratios) < 1.051
    assert LATENCY_BOUNDS_S[-1] > 24 * 3600 * 0.9
