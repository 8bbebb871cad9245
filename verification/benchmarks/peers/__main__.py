"""`python -m verification.benchmarks.peers`: start a broker, fill a topic, run every peer, print a table and JSON."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from verification.benchmarks import machine
from verification.benchmarks.peers import PEERS, Figures, lines, run
from verification.benchmarks.peers.runner import MESSAGES, PARTITIONS


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen peers; 1 when Kafka cannot run here or no peer could be measured."""
    from infrastructure.kafka.local import LocalKafkaError

    options = _parser().parse_args(arguments)
    names = [name for name in PEERS if not options.only or name in options.only]
    try:
        outcomes = run(options.messages, options.partitions, names, say)
    except LocalKafkaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines(outcomes)))
    document = {
        "machine": machine.describe(),
        "load_1m": machine.load_1m(),
        "peers": [asdict(one) for one in outcomes],
    }
    text = json.dumps(document, indent=2)
    if options.output:
        options.output.write_text(text + "\n")
    else:
        print(text)
    return 0 if any(isinstance(one, Figures) for one in outcomes) else 1


def say(line: str) -> None:
    """A line of progress, apart from the table."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.peers",
        description="Other programs that read a Kafka topic into Parquet, on this machine. The first run installs "
        "them into a cache in the home folder, which takes minutes and the network. Close other programs first.",
    )
    parser.add_argument("--messages", type=int, default=MESSAGES, help="default: %(default)s")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="default: %(default)s")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(PEERS),
        metavar="NAME",
        help=f"one of {', '.join(PEERS)}; repeatable",
    )
    parser.add_argument("--output", type=Path, help="JSON file (default: printed after the table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
