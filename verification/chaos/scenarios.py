"""Every scenario: faults at a step of the protocol, or a script of what happens to workers and broker."""

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from verification.chaos.brokers import TOPIC
from verification.chaos.faults import CLAIM, COMMIT, MAIN, MANIFEST, REJECTS, Action, Fault
from verification.chaos.harness import Scenario, Stage
from verification.chaos.mutants import BROKEN, CHAIN_AT_LOG_START

STEPS = {"claim": CLAIM, "rejects": REJECTS, "main": MAIN, "manifest": MANIFEST, "commit": COMMIT}
PUTS = ("put ",)
STORE = ("put ", "get ", "list ", "head ")
# More than the collector's store client waits for an answer (12 s).
TOO_SLOW_S = 13.0


def fault(*steps: str, action: Action, **options: Any) -> Callable[[], Fault]:
    """A fault made anew for each run of a scenario."""
    return lambda: Fault(steps=steps, action=action, **options)


def at_steps() -> list[Scenario]:
    """Each step of the protocol with each way to be cut off there."""
    ways = {
        "crash-before": (Action.CRASH_BEFORE, "killed before {} arrives"),
        "crash-after": (Action.CRASH_AFTER, "killed after {} was done"),
        "answer-lost": (Action.LOSE_ANSWER, "{} is done, its answer is lost"),
        "frozen-before": (
            Action.FREEZE_BEFORE,
            "frozen with {} under way; it arrives after another took over",
        ),
        "frozen-after": (Action.FREEZE_AFTER, "frozen after {}; its answer arrives after another took over"),
    }
    return [
        Scenario(f"{step}-{way}", title.format(request), faults=(fault(request, action=action),))
        for step, request in STEPS.items()
        for way, (action, title) in ways.items()
    ]


def at_steps_in_a_group() -> list[Scenario]:
    """Workers that share one group and lose their partitions while they are frozen: zombies."""
    return [
        Scenario(
            f"zombie-{step}-{way}",
            f"in one group: frozen {when} {request} until its session expired and another took over",
            faults=(fault(request, action=action, times=2),),
            shared_group=True,
        )
        for step, request in STEPS.items()
        if step in ("claim", "main", "commit")
        for way, when, action in (
            ("before", "before", Action.FREEZE_BEFORE),
            ("after", "after", Action.FREEZE_AFTER),
        )
    ]


def overtaken() -> list[Scenario]:
    """Answers of 412 because another writer really was first."""
    return [
        Scenario(
            f"{step}-412",
            f"another writer creates the object before {request}"
            + (", with other bounds" if step == "claim" else ""),
            faults=(fault(request, action=Action.OVERTAKE, times=5),),
        )
        for step, request in STEPS.items()
        if step != "commit"
    ] + [
        Scenario(
            "claim-412-in-group",
            "in one group: another writer claims more than this one has seen, and never lands it",
            faults=(
                fault(CLAIM, action=Action.OVERTAKE, times=12, chance=0.7),
                # So that what the worker knows of the log is older than the other writer's claim.
                fault("fetch", action=Action.SLOW, delay_s=0.8, times=20, chance=0.3),
            ),
            shared_group=True,
            # Slow enough that workers reach the end of the log again and again.
            rate=600,
        )
    ]


def store_weather() -> list[Scenario]:
    """Errors, slowness and broken connections between workers and store."""
    return [
        Scenario(
            "store-409",
            "409 to puts before anything was written",
            faults=(fault(*PUTS, action=Action.REJECT, status=409, times=25),),
        ),
        Scenario(
            "store-409-concurrent",
            "409 to every put while another one of the same key is under way",
            conflict_status=409,
            faults=(fault(*PUTS, action=Action.SLOW, delay_s=0.05, times=10),),
        ),
        Scenario(
            "store-500",
            "500 to any request",
            faults=(fault(*STORE, action=Action.REJECT, status=500, times=25, chance=0.2),),
        ),
        Scenario(
            "store-503",
            "503 SlowDown to any request",
            faults=(fault(*STORE, action=Action.REJECT, status=503, times=25, chance=0.2),),
        ),
        Scenario(
            "store-slow",
            "a second until any request is forwarded",
            faults=(fault(*STORE, action=Action.SLOW, delay_s=1.0, times=20, chance=0.2),),
        ),
        Scenario(
            "store-late",
            "a put reaches the store after its sender gave up waiting and tried again",
            faults=(
                fault(CLAIM, action=Action.SLOW, delay_s=TOO_SLOW_S, times=1),
                fault(MAIN, action=Action.SLOW, delay_s=TOO_SLOW_S, times=1),
            ),
        ),
        Scenario(
            "store-reset",
            "connections reset before the request is forwarded",
            faults=(fault(*STORE, action=Action.RESET, times=25, chance=0.2),),
        ),
        Scenario(
            "store-truncated",
            "half an answer, then the connection closes",
            faults=(fault(*STORE, action=Action.TRUNCATE, times=25, chance=0.2),),
        ),
        Scenario(
            "store-outage",
            "every connection to the store is reset for a while",
            faults=(fault(*STORE, action=Action.RESET, times=80, chance=1.0),),
        ),
        Scenario(
            "store-credentials-revoked",
            "403 to every request for a while",
            faults=(fault(*STORE, action=Action.REJECT, status=403, times=25, chance=1.0),),
        ),
        Scenario(
            "store-bucket-vanished",
            "404 NoSuchBucket to every request for a while",
            faults=(fault(*STORE, action=Action.REJECT, status=404, times=25, chance=1.0),),
        ),
        Scenario(
            "everything-at-once",
            "crashes, zombies, lost answers and every error of the store, mixed",
            faults=(
                fault(*PUTS, action=Action.CRASH_BEFORE, chance=0.05),
                fault(*PUTS, COMMIT, action=Action.CRASH_AFTER, chance=0.05),
                fault(*PUTS, action=Action.LOSE_ANSWER, times=5, chance=0.1),
                fault(*PUTS, action=Action.FREEZE_BEFORE, times=2, chance=0.1),
                fault(*PUTS, action=Action.FREEZE_AFTER, times=2, chance=0.1),
                fault(*PUTS, action=Action.REJECT, status=409, times=5, chance=0.1),
                fault(*STORE, action=Action.REJECT, status=500, times=5, chance=0.05),
                fault(*STORE, action=Action.REJECT, status=503, times=5, chance=0.05),
                fault(*STORE, action=Action.RESET, times=5, chance=0.05),
                fault(*STORE, action=Action.TRUNCATE, times=5, chance=0.05),
                fault("fetch", action=Action.RESET, times=3, chance=0.1),
            ),
        ),
    ]


def broker_weather() -> list[Scenario]:
    """Broken and slow connections between workers and broker, and rebalances that are cut short."""
    return [
        Scenario(
            "broker-connections",
            "fetches reset, cut in half and slow",
            faults=(
                fault("fetch", action=Action.RESET, times=5, chance=0.1),
                fault("fetch", action=Action.TRUNCATE, times=5, chance=0.1),
                fault("fetch", action=Action.SLOW, delay_s=0.5, times=5, chance=0.1),
            ),
        ),
        Scenario(
            "broker-group-connections",
            "in one group: heartbeats, joins, syncs and commits without an answer",
            faults=(
                fault("heartbeat", action=Action.LOSE_ANSWER, times=2),
                fault("commit", action=Action.RESET, times=2),
                fault("join", action=Action.LOSE_ANSWER, times=1, chance=1.0),
                fault("sync", action=Action.LOSE_ANSWER, times=1, chance=1.0),
            ),
            script=_kill_until_exhausted,
            shared_group=True,
        ),
        Scenario(
            "zombie-rebalance",
            "in one group: frozen in the middle of joining and of syncing",
            faults=(
                fault("join", action=Action.FREEZE_BEFORE, times=1, chance=1.0),
                fault("sync", action=Action.FREEZE_AFTER, times=1, chance=1.0),
            ),
            script=_kill_until_exhausted,
            shared_group=True,
        ),
    ]


KILLS = 10
_CUT = "log start moved into a first claim under way"
_SET_BACK, _AT_START = "group offset seen going back", "group offset set to 0 while no worker runs"
_KILLED, _ADDED, _REMOVED = "worker killed", "worker added", "worker removed by SIGTERM"


def workers_and_offsets() -> list[Scenario]:
    """What happens to workers, to the group's offsets and to the log."""
    return [
        Scenario(
            "kill-random",
            "SIGKILL to any worker at any moment",
            script=_kill_at_random,
            expected_hits={_KILLED: KILLS},
        ),
        Scenario(
            "kill-random-in-group",
            "in one group: SIGKILL to any worker at any moment",
            script=_kill_at_random,
            expected_hits={_KILLED: KILLS},
            shared_group=True,
        ),
        Scenario(
            "workers-come-and-go",
            "in one group: workers added, stopped by SIGTERM and killed",
            script=_come_and_go,
            expected_hits={_ADDED: 4, _REMOVED: 2, _KILLED: 1},
            workers=1,
            shared_group=True,
        ),
        Scenario(
            "offset-regressed",
            "late commits of old offsets set the group's offset back, then every worker is killed",
            faults=(fault(COMMIT, action=Action.REPEAT_OLD, times=8),),
            script=_watch_offsets,
            expected_hits={_SET_BACK: 1},
            shared_group=True,
        ),
        Scenario(
            "offset-at-start",
            "workers come back to a group whose offsets were set to 0",
            script=_start_over,
            expected_hits={_AT_START: 1},
            shared_group=True,
        ),
        Scenario(
            "offset-of-another-stream",
            "the group's committed offset lies ahead and belongs to another stream",
            script=_commit_other_stream,
            expected_hits={"offset of another stream": 1},
            shared_group=True,
        ),
        Scenario(
            "log-starts-later",
            "retention removes what was produced while no worker ran",
            script=_lose_log_start,
            expected_hits={"log start moved beyond the last claim": 4},
        ),
        Scenario(
            "first-claim-and-retention",
            "in one group: frozen before a partition's first claim, which retention then cuts in two",
            **_FIRST_CLAIM_AND_RETENTION,
        ),
    ]


_RESTARTED, _BROKER_KILLED, _BROKER_FROZEN = "broker restarted", "broker killed", "broker frozen"
_RECREATED, _ALL_FROZEN = "topic recreated", "every worker frozen meanwhile"
_ABORTED = "transactions aborted"


def on_kafka_only() -> list[Scenario]:
    """What only a real broker can do."""
    return [
        Scenario(
            "broker-restart",
            "the broker stops in good order and starts again",
            script=lambda stage: _restart_broker(stage, _RESTARTED, crash=False),
            expected_hits={_RESTARTED: 2},
            kafka_only=True,
        ),
        Scenario(
            "broker-kill",
            "kill -9 to the broker, then it starts again",
            script=lambda stage: _restart_broker(stage, _BROKER_KILLED, crash=True),
            expected_hits={_BROKER_KILLED: 2},
            kafka_only=True,
        ),
        Scenario(
            "broker-frozen",
            "the broker answers nothing for longer than the workers' sessions last",
            script=_freeze_broker,
            expected_hits={_BROKER_FROZEN: 2},
            kafka_only=True,
        ),
        Scenario(
            "topic-recreated",
            "the topic is deleted and created again, once when all is landed and once in the middle",
            script=_recreate_topic,
            expected_hits={_RECREATED: 2},
            kafka_only=True,
        ),
        Scenario(
            "topic-recreated-asleep",
            "every worker is frozen while the topic is recreated and grows longer than it was",
            script=_recreate_topic_asleep,
            expected_hits={_RECREATED: 1, _ALL_FROZEN: 1},
            kafka_only=True,
        ),
        Scenario(
            "transactions",
            "offsets have gaps: markers and aborted transactions; workers are killed meanwhile",
            script=_abort_transactions,
            faults=(
                fault(CLAIM, action=Action.CRASH_AFTER, times=2),
                fault(CLAIM, action=Action.OVERTAKE, times=3),
                fault(MAIN, action=Action.CRASH_BEFORE, times=2),
            ),
            expected_hits={_ABORTED: 1},
            transactional=True,
            kafka_only=True,
        ),
        Scenario(
            "static-members",
            "static members are killed and come back within their session",
            script=_kill_at_random,
            expected_hits={_KILLED: KILLS},
            static_members=True,
            session_timeout_s=10.0,
            kafka_only=True,
        ),
        Scenario(
            "contested",
            "every worker in a group of its own: each range contested, workers killed at random",
            script=_kill_at_random,
            expected_hits={_KILLED: KILLS},
            shared_group=False,
            kafka_only=True,
        ),
    ]


def _restart_broker(stage: "Stage", what: str, *, crash: bool) -> None:
    for _ in range(2):
        stage.wait_for_landing()
        stage.broker.native.restart(crash=crash)
        stage.hits[what] += 1
    stage.wait_for_landing()


def _freeze_broker(stage: "Stage") -> None:
    for _ in range(2):
        stage.wait_for_landing()
        stage.broker.native.pause()
        time.sleep(stage.scenario.session_timeout_s + 1)  # The length is the point.
        stage.broker.native.resume()
        stage.hits[_BROKER_FROZEN] += 1
    stage.wait_for_landing()


def _recreate_topic(stage: "Stage") -> None:
    stage.wait_until(lambda: stage.traffic.count_reached, 60, "enough was sent")
    stage.traffic.finish(60)
    stage.log_ends.update(stage.broker.log_ends())
    stage.wait_until(stage.all_landed, 90, "the first stream is landed")
    stage.go_on_with_new_topic()
    stage.hits[_RECREATED] += 1
    stage.wait_for_landing()
    stage.wait_until(lambda: stage.traffic.delivered > 1_000, 30, "the second stream is under way")
    stage.traffic.cut_short()
    stage.go_on_with_new_topic()
    stage.hits[_RECREATED] += 1
    stage.wait_for_landing()


def _recreate_topic_asleep(stage: "Stage") -> None:
    stage.wait_until(lambda: stage.traffic.delivered > 2_000, 30, "the first stream is under way")
    stage.traffic.cut_short()
    stage.log_ends.update(stage.broker.log_ends())
    stage.wait_until(stage.all_landed, 90, "the first stream is landed")
    longest = max(stage.traffic.ends.values())
    names = stage.workers.running()
    for name in names:
        stage.workers.stop(name)
    stage.go_on_with_new_topic()
    stage.hits[_RECREATED] += 1
    stage.wait_until(
        lambda: min(stage.traffic.ends.values(), default=0) > longest + 300, 60, "the new topic is longer"
    )
    for name in names:
        stage.workers.wake(name)
    stage.hits[_ALL_FROZEN] += 1
    stage.wait_for_landing()


def _abort_transactions(stage: "Stage") -> None:
    stage.wait_until(lambda: stage.traffic.aborted > 0, 30, "a transaction was aborted")
    stage.hits[_ABORTED] += 1


def _kill_until_exhausted(stage: "Stage") -> None:
    draws = random.Random(stage.plan.seed)
    deadline = time.monotonic() + 60
    while not stage.plan.exhausted and time.monotonic() < deadline:
        stage.wait_for_landing()
        running = stage.workers.running()
        if len(running) == len(stage.workers.slots):
            stage.workers.kill_now(draws.choice(running))


def _kill_at_random(stage: "Stage") -> None:
    draws = random.Random(stage.plan.seed)
    while stage.hits[_KILLED] < stage.scenario.expected_hits[_KILLED]:
        time.sleep(draws.uniform(0.1, 0.6))  # A random moment is the point.
        running = stage.workers.running()
        if running and stage.workers.kill_now(draws.choice(running)):
            stage.hits[_KILLED] += 1


def _come_and_go(stage: "Stage") -> None:
    def add(name: str) -> None:
        stage.add_worker(name)
        stage.wait_for_landing(by=name)
        stage.hits[_ADDED] += 1

    def remove(name: str) -> None:
        stage.workers.remove(name)
        stage.hits[_REMOVED] += 1

    add("worker-2")
    add("worker-3")
    remove("worker-1")
    add("worker-4")
    stage.workers.crash(["worker-2"])
    stage.hits[_KILLED] += 1
    add("worker-5")
    remove("worker-3")
    stage.wait_for_landing()


def _watch_offsets(stage: "Stage") -> None:
    """See that commits of old offsets which reach the broker late do set the group's offset back."""
    highest = [0] * stage.broker.partitions
    deadline = time.monotonic() + 60
    with stage.group_consumer() as consumer:
        while time.monotonic() < deadline and not (stage.hits[_SET_BACK] and stage.plan.exhausted):
            offsets = [place.offset for place in consumer.committed(stage.places(), timeout=10)]
            stage.hits[_SET_BACK] += sum(now < before for now, before in zip(offsets, highest, strict=True))
            highest = offsets
            time.sleep(0.01)
    stage.workers.crash([*stage.workers.slots])
    stage.restart_workers()


def _start_over(stage: "Stage") -> None:
    stage.workers.crash([*stage.workers.slots])
    _commit_as_member(stage, 0, stage.broker.stream_id)
    stage.hits[_AT_START] += 1
    stage.restart_workers()
    stage.wait_for_landing()


def _commit_other_stream(stage: "Stage") -> None:
    stage.workers.crash([*stage.workers.slots])
    ahead = max(stage.traffic.ends.values()) + 10
    stage.wait_until(lambda: min(stage.traffic.ends.values()) > ahead, 30, "the log grew")
    _commit_as_member(stage, ahead, "another-stream")
    stage.hits["offset of another stream"] += 1
    stage.restart_workers()
    stage.wait_for_landing()


def _lose_log_start(stage: "Stage") -> None:
    """Delete records beyond the last claim, up to the middle of what no worker has seen."""
    stage.wait_for_landing()
    stage.workers.crash([*stage.workers.slots])
    reached = dict(stage.traffic.ends)
    stage.wait_until(
        lambda: all(stage.traffic.ends[p] > end + 200 for p, end in reached.items()), 30, "the log grew"
    )
    for partition, end in reached.items():
        stage.broker.forget_before(
            partition, end + 100, stage.ledger, keep_before=stage.landed_end(partition)
        )
        stage.hits["log start moved beyond the last claim"] += 1
    stage.restart_workers()
    stage.wait_for_landing()


def _cut_first_claim(stage: "Stage") -> None:
    """Delete the first half of what a frozen worker is about to claim, before another one takes over."""
    stage.wait_until(lambda: bool(stage.plan.held), 60, "a worker is frozen before a first claim")
    claim = json.loads(stage.plan.held[0])
    partition, half = claim["partition"], (claim["end"] + 1) // 2
    landed = stage.landed_end(partition)
    stage.broker.forget_before(partition, half, stage.ledger, keep_before=landed)
    # Else another one was faster, and nothing is shown.
    stage.hits[_CUT] += landed == 0
    stage.wait_until(lambda: stage.plan.exhausted, 60, "the frozen worker is awake and heard of again")
    # Those who start again finish whatever claims they find.
    stage.workers.crash([*stage.workers.slots])
    stage.restart_workers()
    stage.wait_for_landing()


def _commit_as_member(stage: "Stage", offset: int, metadata: str) -> None:
    """As the group's only member, commit one offset for every partition and see that it is in force."""
    with stage.group_consumer() as consumer:
        assigned: list[Any] = []
        consumer.subscribe([TOPIC], on_assign=lambda _, places: assigned.extend(places))
        deadline = time.monotonic() + 30
        while len(assigned) < stage.broker.partitions and time.monotonic() < deadline:
            consumer.poll(0.1)
        consumer.commit(offsets=stage.places(offset, metadata), asynchronous=False)
        now = consumer.committed(stage.places(), timeout=10)
        if any((place.offset, place.metadata) != (offset, metadata) for place in now):
            raise RuntimeError(f"the group's offsets are {[(p.offset, p.metadata) for p in now]}")


_FIRST_CLAIM_AND_RETENTION: dict[str, Any] = {
    "faults": (fault(CLAIM, action=Action.FREEZE_BEFORE, times=1, chance=1.0, first_of_chain=True),),
    "script": _cut_first_claim,
    "expected_hits": {_CUT: 1},
    "shared_group": True,
    "armed_from_start": True,
    # So long nobody takes over: enough for the log to lose its start.
    "session_timeout_s": 6.0,
}
_CONTESTED_CLAIMS: dict[str, Any] = {
    "faults": (
        fault(CLAIM, action=Action.CRASH_AFTER, times=2),
        fault(CLAIM, action=Action.OVERTAKE, times=4, chance=0.5),
    ),
    # Those who start again find what the others left.
    "script": _kill_at_random,
    "expected_hits": {_KILLED: 4},
    "shared_group": False,
}

ALL: tuple[Scenario, ...] = (
    *at_steps(),
    *at_steps_in_a_group(),
    *overtaken(),
    *store_weather(),
    *broker_weather(),
    *workers_and_offsets(),
    *on_kafka_only(),
)

# Collectors with a deliberate mistake: the harness has to find damage, or it proves nothing.
SELF_TESTS = tuple(
    Scenario(
        f"broken-{mistake}",
        f"a collector that breaks a rule on purpose ({mistake}); the harness has to see the damage",
        broken=mistake,
        **(_FIRST_CLAIM_AND_RETENTION if mistake == CHAIN_AT_LOG_START else _CONTESTED_CLAIMS),
    )
    for mistake in BROKEN
)

# What the test suite runs: every kind of fault once, in as few scenarios as can hold them. `ALL` has each kind at every
# step, on its own, so that a failure names its cause.
SHORT: tuple[Scenario, ...] = (
    Scenario(
        "short-contested",
        "every range contested: each way to be killed, frozen, overtaken and cut off once, then SIGKILL at random",
        faults=(
            fault(MANIFEST, action=Action.CRASH_BEFORE, times=1, chance=0.5),
            fault(CLAIM, action=Action.CRASH_AFTER, times=1, chance=0.5),
            fault(MANIFEST, action=Action.LOSE_ANSWER, times=1, chance=0.5),
            fault(MAIN, action=Action.FREEZE_BEFORE, times=1, chance=0.5),
            fault(MAIN, action=Action.FREEZE_AFTER, times=1, chance=0.5),
            fault(CLAIM, action=Action.OVERTAKE, times=2, chance=0.5),
            fault(*PUTS, action=Action.REJECT, status=409, times=2),
            fault(*STORE, action=Action.REJECT, status=500, times=2),
            fault(*STORE, action=Action.RESET, times=2),
            fault(*STORE, action=Action.TRUNCATE, times=2),
        ),
        script=_kill_at_random,
        expected_hits={_KILLED: 3},
        workers=2,
        rate=600,
        shared_group=False,
    ),
    Scenario(
        "short-in-group",
        "in one group: another writer claims more than this one has seen, old offsets are committed late, "
        "then the group's offset belongs to another stream",
        faults=(
            fault(CLAIM, action=Action.OVERTAKE, times=6, chance=0.7),
            fault("fetch", action=Action.SLOW, delay_s=0.8, times=10, chance=0.3),
            fault(COMMIT, action=Action.REPEAT_OLD, times=2),
        ),
        script=_commit_other_stream,
        expected_hits={"offset of another stream": 1},
        workers=2,
        rate=600,
        shared_group=True,
    ),
)
# On Apache Kafka, what only a real broker can do.
SHORT_ON_KAFKA = tuple(one for one in ALL if one.name in ("topic-recreated-asleep", "transactions"))


def by_names(names: Sequence[str]) -> list[Scenario]:
    """Scenarios of these names, or whose names start so; all of them without any. Raises KeyError."""
    found: dict[str, Scenario] = {}
    for name in names or [""]:
        exact = [one for one in ALL if one.name == name]
        matching = exact or [one for one in ALL if one.name.startswith(name)]
        if not matching:
            raise KeyError(f"no scenario is named {name} or starts so; see --list")
        found |= {one.name: one for one in matching}
    return [one for one in ALL if one.name in found]
