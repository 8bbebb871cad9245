"""The short form of `make chaos` on the embedded broker, and collectors that are broken on purpose."""

from collections.abc import Callable
from typing import Any

import pytest

from verification.chaos.brokers import Embedded
from verification.chaos.faults import Action
from verification.chaos.harness import Scenario
from verification.chaos.scenarios import SELF_TESTS, SHORT, by_names

Play = Callable[..., Any]
# Each on its own what `SHORT` mixes.
ALONE = (
    "claim-crash-after",
    "main-frozen-before",
    "manifest-answer-lost",
    "claim-412-in-group",
    "kill-random",
    "offset-of-another-stream",
)
SCENARIOS = [*SHORT, *(pytest.param(one, marks=pytest.mark.full) for one in by_names(ALONE))]


def test_the_short_form_has_every_kind_of_fault() -> None:
    assert {make().action for scenario in SHORT for make in scenario.faults} == {*Action}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_record_is_there_once(play: Play, scenario: Scenario) -> None:
    outcome = play(scenario, Embedded())
    findings = outcome.findings
    assert (findings.missing, findings.duplicated, outcome.not_hit) == (0, 0, [])
    # All parts of the law occurred, or nothing was shown of them.
    assert min(findings.rows, findings.rejected, findings.consent_dropped) > 0
    assert findings.rows + findings.rejected + findings.consent_dropped == findings.produced


@pytest.mark.parametrize("scenario", SELF_TESTS, ids=lambda scenario: scenario.name)
def test_the_damage_of_a_broken_collector_is_seen(play: Play, scenario: Scenario) -> None:
    outcome = play(scenario, Embedded())
    assert outcome.damaged
    assert outcome.findings.broken_rules > 0
