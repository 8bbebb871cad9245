"""Running scenarios in tests: the S3 server, shared by all of a file, and a verdict in words."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infrastructure.kafka.local import KafkaUnavailableError
from verification.chaos import report
from verification.chaos.brokers import ApacheKafka, Broker, apache_kafka
from verification.chaos.harness import Outcome, S3Server, Scenario, run_scenario, s3_server

# Fewer than `make chaos` produces; faults have to be hit all the same.
MESSAGES = 3_000

Play = Callable[[Scenario, Broker], Outcome]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """A broker that the scenarios of one file may restart and freeze."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(apache_kafka(tmp_path_factory.mktemp("kafka")))
        except KafkaUnavailableError as error:
            pytest.skip(f"not run on Apache Kafka: {error}")
        yield running


@pytest.fixture
def play(server: S3Server, tmp_path: Path) -> Play:
    """Run a scenario and fail with its reasons unless it passed."""

    def run(scenario: Scenario, broker: Broker) -> Outcome:
        outcome = run_scenario(scenario, broker, server, tmp_path / broker.name, seed=1, messages=MESSAGES)
        if not outcome.passed:
            logs = sorted((tmp_path / broker.name).glob("*/worker.log"))
            tails = [f"{log.parent.name}: {log.read_text()[-2000:]}" for log in logs]
            pytest.fail("\n".join([report.line(outcome), *tails]), pytrace=False)
        return outcome

    return run
