"""`python -m verification.benchmarks`: measure, print a table, write `verification/benchmarks/results/latest.json`."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infrastructure.kafka.local import KafkaUnavailableError
from verification.benchmarks import (
    code_location,
    collector,
    compaction,
    demo,
    machine,
    queries,
    report,
    simulator,
)
from verification.benchmarks.report import RESULTS, say

# In the order they run: the short ones first, the demo before the queries on what it made.
NAMES = ("simulator", "collector", "compaction", "code_location", "demo", "queries")


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen benchmarks; 0 when all of them ran, whether or not their aims are met."""
    options = _parser().parse_args(arguments)
    chosen = [name for name in NAMES if not options.only or name in options.only]
    described = machine.describe()
    fresh: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="petwellness-bench-") as folder:
        home = Path(folder) / "state"
        for name in chosen:
            say(f"{name} ...")
            work = _work(name, home, "demo" in chosen)
            try:
                fresh[name] = machine.section(work)
            except KafkaUnavailableError as error:
                say(f"{name} is not measured: {error}")
    document = report.merged(report.read(options.output), described, fresh)
    report.write(options.output, document)
    print("\n".join(report.lines(document)))
    say(f"written to {options.output}")
    return 0


def _work(name: str, home: Path, demo_ran: bool) -> Callable[[], dict[str, Any]]:
    if name == "demo":
        return lambda: demo.run(home, progress=say)
    if name == "queries":
        return lambda: queries.run(home if demo_ran else _own_home())
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "simulator": simulator.run,
        "collector": lambda: collector.run(say),
        "compaction": compaction.run,
        "code_location": code_location.run,
    }
    return works[name]


def _own_home() -> Path:
    from contracts.settings import StateSettings

    return StateSettings().home


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks",
        description="Measure the platform on this machine. Close other programs first; it takes about ten minutes.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=NAMES,
        metavar="NAME",
        help=f"run one benchmark and keep the other figures of the file (may be repeated): {', '.join(NAMES)};"
        " `queries` alone uses the state of the last demo (PETWELLNESS_HOME)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="JSON file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
