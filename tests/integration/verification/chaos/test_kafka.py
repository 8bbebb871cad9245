"""The short form of `make chaos` on Apache Kafka: what only a real broker can do."""

from collections.abc import Callable
from typing import Any

import pytest

from verification.chaos.brokers import ApacheKafka
from verification.chaos.harness import Scenario
from verification.chaos.scenarios import SHORT_ON_KAFKA, by_names

Play = Callable[..., Any]
# What the embedded broker shows as well: a freeze after a main object, claims that are overtaken in one group.
ALONE = ("main-frozen-after", "claim-412-in-group")
SCENARIOS = [*SHORT_ON_KAFKA, *(pytest.param(one, marks=pytest.mark.full) for one in by_names(ALONE))]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_record_is_there_once(play: Play, kafka: ApacheKafka, scenario: Scenario) -> None:
    outcome = play(scenario, kafka)
    assert (outcome.findings.missing, outcome.findings.duplicated, outcome.not_hit) == (0, 0, [])
    if scenario.transactional:
        assert outcome.findings.offset_gaps > 0
