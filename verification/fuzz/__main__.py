"""`python -m verification.fuzz`: a million messages per default, each compared; exit code 1 on any disagreement."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from contracts.telemetry import COLLAR_DECODER
from verification.fuzz.run import EXAMPLES, FuzzReport, run

# Vendors' messages are decoded one by one, by code that is its own reference: fewer are enough.
VENDOR_SHARE = 0.1
MAX_GROWTH_MIB = 64.0


def main(arguments: list[str] | None = None) -> int:
    """Fuzz every decoder; print and write what came of it."""
    options = _parser().parse_args(arguments)
    reports = []
    for decoder in (COLLAR_DECODER, *EXAMPLES):
        share = 1.0 if decoder == COLLAR_DECODER else VENDOR_SHARE
        reports.append(
            run(decoder, int(options.messages * share), options.seed, options.compare_every, progress=_tell)
        )
    documents = [report.document() for report in reports]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(documents, indent=1, ensure_ascii=False) + "\n")
    for document in documents:
        print(
            f"{document['decoder']}: {document['messages']:,} messages = {document['rows']:,} rows + "
            f"{document['rejects']:,} rejects, {document['compared']:,} compared, "
            f"{document['disagreements']} disagreements, {document['seconds']} s, "
            f"memory {document['memory_grown_mib']:+} MiB"
        )
        print("\n".join(f"  {line}" for line in document["first_disagreements"]))
    print(f"written to {options.output}")
    return 0 if all(_passed(report) for report in reports) else 1


def _passed(report: FuzzReport) -> bool:
    return report.tally.adds_up and not report.disagreements and report.grown_mib < MAX_GROWTH_MIB


def _tell(report: FuzzReport) -> None:
    if report.tally.messages % 100_000 == 0:
        print(
            f"{report.decoder}: {report.tally.messages:,} messages, {len(report.disagreements)} disagreements, "
            f"{report.last_mib:.0f} MiB, {report.seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m verification.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--compare-every",
        type=int,
        default=1,
        help="hold every n-th batch against the reference (30 us a message)",
    )
    parser.add_argument("--output", type=Path, default=Path("build/fuzz.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
