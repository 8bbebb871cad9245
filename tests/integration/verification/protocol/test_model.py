"""The landing protocol's model holds in every state, and each broken rule is caught (docs/protocol)."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SAFETY, PROGRESS = "-DSAFETY", "-DNP"

# What each broken rule leads to; `docs/protocol/README.md` says how.
TWICE = "assertion violated ((landed&content)==0)"
HOLE = "assertion violated ((landed&((1<<end)-(1<<0)))==((1<<end)-(1<<0)))"
MISSING = "assertion violated (landed==((1<<3)-(1<<0)))"
BROKEN = {
    "END_IN_CLAIM_KEY": TWICE,
    "CONFLICT_AS_EXISTS": HOLE,
    "CLAIM_CONFLICT_AS_EXISTS": TWICE,
    "MAIN_CONFLICT_AS_EXISTS": HOLE,
    "TWO_MAIN_OBJECTS": TWICE,
    "BOUNDS_NOT_ADOPTED": TWICE,
    "CLAIMS_OVERWRITTEN": TWICE,
    "NO_CLAIM": TWICE,
    "STALE_EOF": HOLE,
    "SKIP_OPEN_CLAIMS": MISSING,
    "RESUME_FROM_COMMIT": MISSING,
    "CHAIN_AT_LOG_START": TWICE,
    "MAIN_BEFORE_REJECTS": "assertion violated (rejects&(1<<land))",
}


@dataclass(frozen=True)
class Found:
    """What a search said: its first error or None, the distinct states it saw, its whole output."""

    error: str | None
    states: int
    output: str


Search = Callable[..., Found]


@pytest.fixture
def search(repository: Path, tmp_path: Path, program: Callable[[str, str], str]) -> Search:
    """Search every state of the model: `search(*definitions, kind=SAFETY)`."""
    spin, gcc = program("spin", "spin"), program("gcc", "gcc")
    model = repository / "docs" / "protocol" / "landing.pml"

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def find(*definitions: str, kind: str = SAFETY) -> Found:
        run(spin, "-a", *(f"-D{definition}" for definition in definitions), str(model))
        run(gcc, "-O1", "-w", kind, "-o", "pan", "pan.c")
        output = run("./pan", "-m1000000", "-w22", *(["-l"] if kind == PROGRESS else []))
        errors = re.search(r"errors: (\d+)", output)
        states = re.search(r"(\d+) states, stored", output)
        assert errors and states, output
        first = re.search(r"^pan:1: (.*?)(?: \(at depth \d+\))?$", output, re.MULTILINE)
        assert (first is not None) == (errors[1] != "0"), output
        # An end without an error proves something only if nothing was left out.
        assert first or not re.search(r"not completed|too small|out of memory", output), output
        return Found(first[1] if first else None, int(states[1]), output)

    return find


@pytest.mark.parametrize(
    ("workers", "offsets", "at_least"), [(3, 3, 1_200_000), (2, 5, 800_000)], ids=["3 workers", "5 offsets"]
)
def test_every_state_holds(
    search: Search, record_property: Callable[[str, object], None], workers: int, offsets: int, at_least: int
) -> None:
    found = search(f"WORKERS={workers}", f"OFFSETS={offsets}")
    print(f"{found.states} states")
    record_property("states", found.states)
    assert found.error is None, found.output
    assert found.states >= at_least
    # Every step of the model was taken somewhere.
    assert found.output.count("\t(0 of") == 3, found.output


def test_everything_is_landed_once_troubles_stop(
    search: Search, record_property: Callable[[str, object], None]
) -> None:
    """No run goes on for ever or gets stuck, whatever three crashes, conflicts or lost workers it had."""
    found = search("WORKERS=2", "OFFSETS=3", "TROUBLE=3", kind=PROGRESS)
    print(f"{found.states} states")
    record_property("states", found.states)
    assert found.error is None, found.output
    assert found.states >= 250_000


def test_the_search_for_progress_sees_what_never_ends(search: Search) -> None:
    """A worker that crashes for ever makes no progress."""
    assert "non-progress cycle" in (search("WORKERS=2", "OFFSETS=2", kind=PROGRESS).error or "none")


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_shows_in_the_data(search: Search, rule: str) -> None:
    assert search("WORKERS=2", "OFFSETS=3", "DATA_ONLY", rule).error == BROKEN[rule]


def test_two_claims_of_one_range_show_in_the_claims(search: Search) -> None:
    found = search("WORKERS=2", "OFFSETS=3", "END_IN_CLAIM_KEY")
    assert found.error == "assertion violated (claimed==((1<<next)-(1<<0)))"


def test_waiting_for_the_claimant_gets_stuck(search: Search) -> None:
    """Its claimant may be gone for good; whoever meets a claim has to land it."""
    found = search("WORKERS=2", "OFFSETS=3", "TROUBLE=2", "WAIT_FOR_CLAIMANT")
    assert found.error == "invalid end state"


def test_every_broken_rule_of_the_model_is_tested(repository: Path) -> None:
    model = (repository / "docs" / "protocol" / "landing.pml").read_text()
    named = set(re.findall(r"#ifdef (\w+)|defined\((\w+)\)", model))
    rules = {first or second for first, second in named} - {"TROUBLE", "WAIT_FOR_CLAIMANT"}
    assert rules == set(BROKEN)
