"""Which request a fault is for, and how the proxies read and change what passes."""

import json

import pytest

from verification.chaos.faults import CLAIM, MAIN, Action, Fault, FaultPlan, Place, Request, object_step
from verification.chaos.s3_proxy import HttpMessage, canned, foreign_claim
from verification.chaos.scenarios import ALL, SELF_TESTS, SHORT, by_names

CLAIM_KEY = f"_claims/c.telemetry.i/00003/{70:020}.json"


class NoFleet:
    """Workers that nothing is done to."""

    def __init__(self, others: bool = True) -> None:
        self.others = others

    async def kill(self, worker: str) -> None:
        raise AssertionError

    def stop(self, worker: str) -> None:
        raise AssertionError

    def wake(self, worker: str) -> None:
        raise AssertionError

    def others_run(self, worker: str) -> bool:
        return self.others


def a_plan(*faults: Fault, others: bool = True) -> FaultPlan:
    plan = FaultPlan([*faults], NoFleet(others), seed=1)
    plan.armed = True
    return plan


@pytest.mark.parametrize(
    ("method", "key", "listing", "step"),
    [
        ("PUT", CLAIM_KEY, None, "put claim"),
        ("GET", CLAIM_KEY, None, "get claim"),
        ("PUT", "landing/telemetry_events/date=2026-06-01/c.t.i+0+5+9.parquet", None, "put main"),
        ("PUT", "_rejects/telemetry_events/c.t.i+0+5+0123456789abcdef.parquet", None, "put rejects"),
        ("PUT", "_manifests/c.t.i/00000/00000000000000000005.json", None, "put manifest"),
        ("GET", "", "_manifests/c.t.i/00000/", "list manifest"),
        ("GET", "_consent/x.json", None, "get other"),
        ("HEAD", "", None, "head other"),
    ],
)
def test_requests_are_steps_of_the_protocol(method: str, key: str, listing: str | None, step: str) -> None:
    assert object_step(method, key, listing) == step


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (CLAIM_KEY, Place("c.telemetry.i", 3, 70)),
        ("landing/telemetry_events/date=2026-06-01/c.t.i+0+5+9.parquet", Place("c.t.i", 0, 5)),
        ("_rejects/telemetry_events/c.t.i+0+5+0123456789abcdef.parquet", Place("c.t.i", 0, 5)),
        ("_consent/x.json", None),
    ],
)
def test_keys_name_the_range_they_are_about(key: str, place: Place | None) -> None:
    assert Request("w", "put claim", key).place == place


def test_a_fault_of_first_claims_leaves_the_others_alone() -> None:
    fault = Fault(steps=(CLAIM,), action=Action.FREEZE_BEFORE, first_of_chain=True)
    assert fault.matches(Request("w", CLAIM, f"_claims/c.telemetry.i/00003/{0:020}.json"))
    assert not fault.matches(Request("w", CLAIM, CLAIM_KEY))
    assert not fault.matches(Request("w", CLAIM))


def test_a_fault_fires_as_often_as_it_should_one_at_a_time() -> None:
    fault = Fault(steps=(CLAIM,), action=Action.CRASH_AFTER, times=2, chance=1.0)
    plan = a_plan(fault)
    request = Request("w", CLAIM, CLAIM_KEY)
    assert plan.choose(Request("w", MAIN)) is None
    assert plan.choose(request) is fault
    assert plan.choose(request) is None
    plan.hit(fault)
    assert not plan.exhausted
    assert plan.choose(request) is fault
    plan.hit(fault)
    assert plan.exhausted
    assert plan.choose(request) is None


def test_a_fault_that_could_not_be_carried_through_fires_again_and_says_so() -> None:
    fault = Fault(steps=(CLAIM,), action=Action.CRASH_AFTER, times=1, chance=1.0)
    plan = a_plan(fault)
    assert plan.choose(Request("w", CLAIM)) is fault
    plan.missed(fault, "the connection ended")
    assert plan.problems == ["put claim: crash after: the connection ended"]
    assert plan.choose(Request("w", CLAIM)) is fault


def test_nobody_is_frozen_who_has_no_one_to_take_over() -> None:
    fault = Fault(steps=("put ",), action=Action.FREEZE_BEFORE, chance=1.0)
    assert a_plan(fault, others=False).choose(Request("w", CLAIM)) is None
    assert a_plan(fault).choose(Request("w", CLAIM)) is fault


def test_a_zombie_has_to_be_heard_of_again_before_the_plan_is_through() -> None:
    plan = a_plan()
    plan._awake.add("w")
    assert not plan.exhausted
    plan.choose(Request("w", "fetch"))
    assert plan.exhausted
    assert plan.zombies["w"] == 1


def test_the_other_writer_claims_more_where_the_log_allows_it() -> None:
    claim = json.dumps({"start": 10, "end": 20, "claimed_by": "w", "partition": 0}).encode()
    assert json.loads(foreign_claim(claim, 25))["end"] == 25
    assert json.loads(foreign_claim(claim, 20))["end"] == 15
    shortest = json.dumps({"start": 10, "end": 11, "claimed_by": "w", "partition": 0}).encode()
    assert json.loads(foreign_claim(shortest, 11)) == {
        "start": 10,
        "end": 11,
        "claimed_by": "another writer",
        "partition": 0,
    }


def test_messages_pass_without_what_belongs_to_one_connection() -> None:
    message = HttpMessage(b"PUT /b/k HTTP/1.1", [(b"Expect", b"100-continue"), (b"X-A", b"1")], b"body")
    assert (
        message.encode((b"Connection", b"close"))
        == b"PUT /b/k HTTP/1.1\r\nX-A: 1\r\nConnection: close\r\n\r\nbody"
    )
    assert canned(503).status == 503
    assert int(canned(409).header(b"content-length") or 0) == len(canned(409).body)


def test_scenarios_are_found_by_the_start_of_their_names() -> None:
    names = [scenario.name for scenario in ALL]
    assert len(set(names)) == len(names)
    assert not {one.name for one in SHORT} & set(names)
    assert len(SELF_TESTS) == 4
    assert by_names([]) == [*ALL]
    assert {one.name for one in by_names(["claim-crash"])} == {"claim-crash-before", "claim-crash-after"}
    with pytest.raises(KeyError, match="nonsense"):
        by_names(["nonsense"])


def test_every_scenario_has_something_that_must_happen() -> None:
    assert all(scenario.faults or scenario.expected_hits for scenario in ALL)


def test_every_step_is_cut_off_in_every_way() -> None:
    names = {scenario.name for scenario in ALL}
    ways = ("crash-before", "crash-after", "answer-lost", "frozen-before", "frozen-after")
    for step in ("claim", "rejects", "main", "manifest", "commit"):
        assert {f"{step}-{way}" for way in ways} <= names
