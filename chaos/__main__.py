"""`python -m chaos`: run scenarios, show a table, write `build/chaos.json`."""

import argparse
import sys
import time
from pathlib import Path

from chaos import report
from chaos.brokers import Broker, Embedded
from chaos.scenarios import ALL, Scenario
from chaos.stage import Outcome, run_scenario, s3_server

OUTPUT = Path("build/chaos.json")
MESSAGES = 10_000


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen scenarios; 1 when one of them failed."""
    options = _parser().parse_args(arguments)
    chosen = [s for s in ALL if not options.scenario or any(s.name.startswith(p) for p in options.scenario)]
    outcomes: list[Outcome] = []
    broker: Broker = Embedded()
    with s3_server() as server:
        for scenario in chosen:
            outcome = run_scenario(
                scenario,
                broker,
                server,
                options.output.parent / "chaos" / broker.name / scenario.name,
                seed=options.seed,
                messages=options.messages,
            )
            outcomes.append(outcome)
            say(report.line(outcome))
    report.write(options.output, outcomes)
    print("\n".join(report.table(outcomes)))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def say(line: str) -> None:
    """A line of progress, apart from the table."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--scenario", action="append", metavar="NAME", help="run those whose name starts so")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
