"""Starting over: how long the service waits, what it tells, what it raises."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from ingestion.broker.client import BrokerUnreachableError
from ingestion.collector import service
from ingestion.collector.ranges import DecoderVersionError
from ingestion.collector.report import DrainReport
from ingestion.collector.service import CALM_S, Failure, serve
from lake.store import StoreUnreachableError


class Clock:
    """A monotonic clock that attempts move on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(service, "time", one)
    return one


class Stop(threading.Event):
    """Notes how long was waited for it, and waits not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return self.is_set()


@dataclass
class Attempt:
    """Stands for a collector: takes some seconds, consumes, then fails or ends."""

    clock: Clock
    error: Exception | None = None
    seconds: float = 0.0
    messages: int = 0
    left: dict[str, int] = field(default_factory=dict)
    stops: Stop | None = None
    report: DrainReport = field(default_factory=DrainReport)

    def run_forever(self, stop: threading.Event) -> DrainReport:
        self.clock.now += self.seconds
        self.report.messages, self.report.left_by_partition = self.messages, self.left
        if self.stops is not None:
            stop.set()
        if self.error is not None:
            raise self.error
        return self.report


def run(attempts: list[Any], stop: Stop) -> tuple[list[Failure], dict[str, int]]:
    """Serve some attempts (or errors that building one raises); the failures told, and what was left."""
    coming: Iterator[Any] = iter(attempts)
    failures: list[Failure] = []

    def make() -> Any:
        one = next(coming)
        if isinstance(one, Exception):
            raise one
        return one

    left = serve(make, stop, failures.append)
    assert next(coming, None) is None
    return failures, left


DOWN = StoreUnreachableError("the lake is down")


def test_delays_double_up_to_a_minute(clock: Clock) -> None:
    stop = Stop()
    failures, _ = run([*(Attempt(clock, DOWN) for _ in range(8)), Attempt(clock)], stop)
    assert stop.waited == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [failure.retry_in_s for failure in failures] == stop.waited
    assert {failure.error for failure in failures} == {DOWN}


def test_a_calm_stretch_makes_the_next_failure_a_new_one(clock: Clock) -> None:
    stop = Stop()
    attempts = [Attempt(clock, DOWN), Attempt(clock, DOWN), Attempt(clock, DOWN, seconds=CALM_S)]
    run([*attempts, Attempt(clock, DOWN), Attempt(clock)], stop)
    assert stop.waited == [1, 2, 1, 2]


def test_a_broker_that_is_away_is_waited_for(clock: Clock) -> None:
    stop = Stop()
    away = BrokerUnreachableError("gone")
    failures, _ = run([away, Attempt(clock, DOWN), away, Attempt(clock)], stop)
    assert [failure.error for failure in failures] == [away, DOWN, away]
    assert stop.waited == [1, 2, 4]


def test_an_error_that_waiting_cannot_mend_is_raised(clock: Clock) -> None:
    with pytest.raises(DecoderVersionError):
        run([Attempt(clock, DecoderVersionError("collar-v1@0"))], Stop())


def test_a_stop_after_a_failure_says_what_was_left_and_tries_no_more(clock: Clock) -> None:
    stop = Stop()
    attempt = Attempt(clock, DOWN, messages=7, left={"telemetry[0]": 7}, stops=stop)
    [failure], left = run([attempt], stop)
    assert failure == Failure(DOWN, None, {"telemetry[0]": 7})
    assert left == {"telemetry[0]": 7}


def test_what_is_left_is_of_the_last_attempt_that_consumed(clock: Clock) -> None:
    stop = Stop()
    attempts = [
        Attempt(clock, DOWN, messages=7, left={"telemetry[0]": 7}),
        Attempt(clock, DOWN),
        Attempt(clock, DOWN, stops=stop),
    ]
    failures, left = run(attempts, stop)
    assert [failure.left for failure in failures] == [{"telemetry[0]": 7}] * 3
    assert left == {"telemetry[0]": 7}


def test_a_clean_end_leaves_nothing(clock: Clock) -> None:
    stop = Stop()
    _, left = run([Attempt(clock, DOWN, messages=7, left={"telemetry[0]": 7}), Attempt(clock)], stop)
    assert left == {}
