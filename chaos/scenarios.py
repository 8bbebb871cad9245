"""Every scenario: faults at a step of the protocol, or a script of what happens to workers and broker."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.faults import CLAIM, COMMIT, MAIN, MANIFEST, REJECTS, Action, Fault
from chaos.stage import fault

if TYPE_CHECKING:
    from chaos.stage import Stage

STEPS = {"claim": CLAIM, "rejects": REJECTS, "main": MAIN, "manifest": MANIFEST, "commit": COMMIT}


@dataclass(frozen=True)
class Scenario:
    """What happens. `shared_group` None: a group each on the embedded broker, one group on Kafka.

    `prelude` runs before the first worker, `script` while workers collect;
    `expected_hits` are what a script counts in `stage.hits`.
    """

    name: str
    title: str
    faults: tuple[Callable[[], list[Fault]], ...] = ()
    script: "Callable[[Stage], None] | None" = None
    prelude: "Callable[[Stage], None] | None" = None
    expected_hits: dict[str, int] = field(default_factory=dict)
    workers: int = 3
    shared_group: bool | None = None
    static_members: bool = False
    session_timeout_s: float = 3.0
    conflict_status: int | None = None
    broken: str | None = None
    kafka_only: bool = False


def at_steps() -> list[Scenario]:
    """Each step of the protocol with each way to be cut off there."""
    ways = {
        "crash-before": (Action.CRASH_BEFORE, "killed before {} arrives"),
        "crash-after": (Action.CRASH_AFTER, "killed after {} was done"),
        "answer-lost": (Action.LOSE_ANSWER, "{} is done, its answer is lost"),
        "frozen-before": (Action.FREEZE_BEFORE, "frozen with {} under way; it arrives after another took over"),
        "frozen-after": (Action.FREEZE_AFTER, "frozen after {}; its answer arrives after another took over"),
    }
    return [
        Scenario(f"{step}-{way}", title.format(request), faults=(fault(request, action=action, times=3),))
        for step, request in STEPS.items()
        for way, (action, title) in ways.items()
    ]


ALL: tuple[Scenario, ...] = (*at_steps(),)
