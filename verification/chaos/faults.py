"""What goes wrong, where, and proof that it did: faults bound to steps of the protocol.

The proxies ask a `FaultPlan` about every request before they forward it and
again when its answer is there. A fault fires for one request at a time, so that
never all workers lie frozen at once. Bytes and sockets are the proxies' business,
processes the fleet's.
"""

import asyncio
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Action(StrEnum):
    """What a fault does to a request or to the worker that sent it."""

    CRASH_BEFORE = "crash before"  # SIGKILL, request not forwarded
    CRASH_AFTER = "crash after"  # forwarded and done, then SIGKILL
    LOSE_ANSWER = "answer lost"  # forwarded and done, connection closed instead of an answer
    FREEZE_BEFORE = "frozen before"  # SIGSTOP; forwarded only after another worker took over
    FREEZE_AFTER = "frozen after"  # done, SIGSTOP; the answer arrives after another worker took over
    REJECT = "status"  # answered with `status`, not forwarded
    SLOW = "slow"  # forwarded after `delay_s`
    RESET = "reset"  # connection reset, not forwarded
    TRUNCATE = "truncated"  # forwarded and done, half of the answer, connection closed
    REPEAT_OLD = "an older one repeated"  # done; then an earlier one of the same member reaches the broker
    OVERTAKE = "overtaken"  # another writer creates the object first


FREEZES = (Action.FREEZE_BEFORE, Action.FREEZE_AFTER)
AFTER = (Action.CRASH_AFTER, Action.LOSE_ANSWER, Action.FREEZE_AFTER, Action.TRUNCATE, Action.REPEAT_OLD)

# Steps of the protocol, as the proxies name requests.
CLAIM, REJECTS, MAIN, MANIFEST, COMMIT = "put claim", "put rejects", "put main", "put manifest", "commit"

_ROOTS = {"_claims": "claim", "_rejects": "rejects", "landing": "main", "_manifests": "manifest"}
_PLACES = (
    re.compile(r"_(?:claims|manifests)/(?P<stream>[^/]+)/(?P<partition>\d+)/(?P<start>\d+)\.json"),
    re.compile(r"landing/.*/(?P<stream>[^/+]+)\+(?P<partition>\d+)\+(?P<start>\d+)\+\d+\.parquet"),
    re.compile(r"_rejects/.*/(?P<stream>[^/+]+)\+(?P<partition>\d+)\+(?P<start>\d+)\+[0-9a-f]+\.parquet"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """The range a request is about."""

    stream_id: str
    partition: int
    start: int


@dataclass(frozen=True, slots=True)
class Request:
    """A worker's request: `step` is e.g. "put claim", "list manifest", "commit", "fetch"."""

    worker: str
    step: str
    key: str = ""

    @property
    def place(self) -> Place | None:
        for pattern in _PLACES:
            match = pattern.search(self.key)
            if match:
                return Place(match["stream"], int(match["partition"]), int(match["start"]))
        return None


def object_step(method: str, key: str, listing: str | None) -> str:
    """The step of an S3 request; `listing` is the prefix that is listed, if any."""
    if listing is not None:
        return f"list {_ROOTS.get(listing.partition('/')[0], 'other')}"
    kind = _ROOTS.get(key.partition("/")[0], "other")
    return f"{method.lower()} {kind}"


@dataclass
class Fault:
    """One kind of fault at one step, `times` over.

    `chance` spreads firings over the matching requests. `steps` may hold several
    steps; an entry that ends in a blank matches every step that starts with it.
    `first_of_chain`: only requests about a range that starts at 0.
    """

    steps: tuple[str, ...]
    action: Action
    times: int = 3
    chance: float = 0.3
    status: int = 0
    delay_s: float = 0.0
    worker: str | None = None
    first_of_chain: bool = False
    hits: int = 0
    taken: int = 0

    @property
    def name(self) -> str:
        what = f"{self.action} {self.status}" if self.action is Action.REJECT else str(self.action)
        where = ", first of its chain" if self.first_of_chain else ""
        return f"{' or '.join(step.strip() for step in self.steps)}{where}: {what}"

    @property
    def exhausted(self) -> bool:
        return self.hits >= self.times

    def matches(self, request: Request) -> bool:
        if self.worker is not None and request.worker != self.worker:
            return False
        if self.first_of_chain and (request.place is None or request.place.start != 0):
            return False
        return any(
            request.step.startswith(step) if step.endswith(" ") else request.step == step
            for step in self.steps
        )


class Fleet(Protocol):
    """What faults do to workers."""

    async def kill(self, worker: str) -> None:
        """SIGKILL; returns when the process is gone."""

    def stop(self, worker: str) -> None:
        """SIGSTOP."""

    def wake(self, worker: str) -> None:
        """SIGCONT."""

    def others_run(self, worker: str) -> bool:
        """Whether some other worker is up, to take over."""


class TakeoverError(Exception):
    """No other worker took over from a frozen one."""


@dataclass
class FaultPlan:
    """The faults of a scenario, and what was seen of the workers' requests."""

    faults: list[Fault]
    fleet: Fleet
    seed: int
    takeover_timeout_s: float = 45.0
    # Requests by step; puts that found their key taken, by worker.
    seen: Counter[str] = field(default_factory=Counter)
    taken_keys: Counter[str] = field(default_factory=Counter)
    # Range objects created: (worker, step, place, moment).
    created: list[tuple[str, str, Place, float]] = field(default_factory=list)
    # Workers that came back from a freeze and asked for something again.
    zombies: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    # Bodies of the requests that were under way when their worker was frozen.
    held: list[bytes] = field(default_factory=list)
    armed: bool = False
    _awake: set[str] = field(default_factory=set)
    _last_place: dict[str, Place] = field(default_factory=dict)
    _busy: bool = False
    _quiet_until: float = 0.0

    def __post_init__(self) -> None:
        self._draws = random.Random(self.seed)

    @property
    def exhausted(self) -> bool:
        """Whether every fault fired as often as it should, and every zombie was heard of again."""
        return all(fault.exhausted for fault in self.faults) and not self._awake and not self._busy

    def choose(self, request: Request) -> Fault | None:
        """The fault for a request that just arrived, if it is its turn."""
        self.seen[request.step] += 1
        if request.worker in self._awake:
            self._awake.discard(request.worker)
            self.zombies[request.worker] += 1
        place = request.place
        if place is not None:
            self._last_place[request.worker] = place
        if not self.armed or self._busy or time.monotonic() < self._quiet_until:
            return None
        for fault in self.faults:
            if fault.taken >= fault.times or not fault.matches(request):
                continue
            if self._draws.random() >= fault.chance:
                continue
            if fault.action in FREEZES and not self.fleet.others_run(request.worker):
                continue
            fault.taken += 1
            self._busy = fault.action not in (Action.REJECT, Action.SLOW, Action.RESET, Action.TRUNCATE)
            return fault
        return None

    def hit(self, fault: Fault, pause_s: float = 0.0) -> None:
        """A fault did all it should; crashes leave the fleet a moment to come back."""
        fault.hits += 1
        self._busy = False
        self._quiet_until = time.monotonic() + pause_s

    def missed(self, fault: Fault, why: str) -> None:
        """A fault could not be carried through: it may fire again."""
        fault.taken -= 1
        self._busy = False
        self.problems.append(f"{fault.name}: {why}")

    def answered(self, request: Request, status: int) -> None:
        """Note the server's own answer to a put."""
        if not request.step.startswith("put "):
            return
        place = request.place
        if status == 412:
            self.taken_keys[request.worker] += 1
        elif status == 200 and place is not None:
            self.created.append((request.worker, request.step, place, time.monotonic()))

    async def freeze(self, fault: Fault, request: Request, meanwhile: Callable[[], Awaitable[None]]) -> None:
        """Stop the worker until another one has landed in its partition, then wake it.

        `meanwhile` is awaited between, for what shall happen while nobody answers.
        """
        place = request.place or self._last_place.get(request.worker)
        stopped_at = time.monotonic()
        self.fleet.stop(request.worker)
        try:
            while not self._taken_over(request.worker, place, stopped_at):
                if time.monotonic() - stopped_at > self.takeover_timeout_s:
                    raise TakeoverError(f"nobody took over from {request.worker}")
                await asyncio.sleep(0.02)
            await meanwhile()
        finally:
            self.fleet.wake(request.worker)
        self._awake.add(request.worker)

    def _taken_over(self, worker: str, place: Place | None, since: float) -> bool:
        return any(
            moment >= since
            and other != worker
            and step == MANIFEST
            and (
                place is None
                or (
                    (created.stream_id, created.partition) == (place.stream_id, place.partition)
                    and created.start >= place.start
                )
            )
            for other, step, created, moment in reversed(self.created[-500:])
        )

    def landed_by(self) -> dict[str, int]:
        """Manifests written by each worker."""
        found: dict[str, int] = defaultdict(int)
        for worker, step, _, _ in self.created:
            if step == MANIFEST:
                found[worker] += 1
        return dict(found)
