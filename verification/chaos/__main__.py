"""`python -m verification.chaos`: run scenarios, print a table, write `build/chaos.json`.

Every produced record has to be in the lake or its rejects once, whatever happened
on the way, and every fault has to have happened. Exit code 0 only then.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from verification.benchmarks import machine
from verification.chaos import report
from verification.chaos.brokers import ApacheKafka, Broker, Embedded, apache_kafka
from verification.chaos.harness import Outcome, S3Server, Scenario, run_scenario, s3_server
from verification.chaos.scenarios import ALL, SELF_TESTS, SHORT, SHORT_ON_KAFKA, by_names

OUTPUT = Path("build/chaos.json")
MESSAGES = 10_000
EMBEDDED, KAFKA, EVERY = "embedded", "kafka", "all"


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen scenarios; 1 when one of them failed, 2 for a wrong call."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{s.name:28} {'kafka  ' if s.kafka_only else '       '} {s.title}" for s in ALL))
        return 0
    try:
        chosen = [*SHORT, *SHORT_ON_KAFKA] if options.short else by_names(options.scenario)
    except KeyError as error:
        say(error.args[0])
        return 2
    # A path with a drive of its own could be slow; logs stay beside the result.
    folder = options.output.parent / "chaos"
    outcomes: list[Outcome] = []
    described = machine.describe() | {"commit": machine.commit()}
    with s3_server() as server, _kafka(options.broker, folder) as kafka:
        plays = _plays(chosen, options, kafka)
        for number, (scenario, broker) in enumerate(plays, 1):
            say(f"{number}/{len(plays)} {broker.name} {scenario.name}: {scenario.title}")
            outcomes.append(_play(scenario, broker, server, folder, options))
            say(report.line(outcomes[-1]))
            # An interrupted run leaves what it showed so far.
            report.write(options.output, outcomes, described)
    print("\n".join(report.table(outcomes)))
    say(f"written to {options.output}")
    return 0 if outcomes and all(outcome.passed for outcome in outcomes) else 1


def say(line: str) -> None:
    """A line of progress, apart from the table."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _play(
    scenario: Scenario, broker: Broker, server: S3Server, folder: Path, options: argparse.Namespace
) -> Outcome:
    return run_scenario(
        scenario,
        broker,
        server,
        folder / broker.name / scenario.name,
        seed=options.seed,
        messages=options.messages,
    )


def _plays(
    chosen: list[Scenario], options: argparse.Namespace, kafka: ApacheKafka | None
) -> list[tuple[Scenario, Broker]]:
    """Which scenario runs on which broker; the self-tests first, unless scenarios were named."""
    plays: list[tuple[Scenario, Broker]] = []
    if options.broker != KAFKA:
        embedded = Embedded()
        plays += [(one, embedded) for one in SELF_TESTS if options.self_test or not options.scenario]
        plays += [(one, embedded) for one in chosen if not one.kafka_only and not options.self_test]
    if kafka is not None and not options.self_test:
        plays += [(one, kafka) for one in chosen]
    return plays


@contextlib.contextmanager
def _kafka(wanted: str, folder: Path) -> Iterator[ApacheKafka | None]:
    """A real broker if it is wanted; without Java or Maven that is an error only if nothing else is wanted."""
    from infrastructure.kafka.local import KafkaUnavailableError

    if wanted == EMBEDDED:
        yield None
        return
    with contextlib.ExitStack() as stack:
        kafka = None
        try:
            kafka = stack.enter_context(apache_kafka(folder / "apache-kafka"))
        except KafkaUnavailableError as error:
            if wanted == KAFKA:
                raise SystemExit(f"error: {error}") from None
            say(f"NOT RUN ON APACHE KAFKA: {error}")
        yield kafka


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verification.chaos",
        description="Kill, freeze and cut off collectors at every step of the landing protocol, then look for "
        "every produced record. On two free cores it takes about ten minutes for each kind of broker.",
    )
    parser.add_argument(
        "--broker",
        choices=(EMBEDDED, KAFKA, EVERY),
        default=EVERY,
        help="embedded, Apache Kafka (needs Java and Maven), or both as far as they can be had (default)",
    )
    parser.add_argument(
        "--scenario",
        action="append",
        default=[],
        metavar="NAME",
        help="run only scenarios whose name starts so (may be repeated)",
    )
    parser.add_argument("--list", action="store_true", help="say which scenarios there are, and do nothing")
    parser.add_argument("--short", action="store_true", help="the few scenarios that the test suite runs")
    parser.add_argument(
        "--self-test", action="store_true", help="only the collectors with a deliberate mistake"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides messages and moments (default: 1)")
    parser.add_argument(
        "--messages", type=int, default=MESSAGES, help="produced at least per scenario (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
