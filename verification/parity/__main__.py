"""`python -m verification.parity`: the same lake on DuckDB and on the Snowflake emulator, every table compared.

Exit code 0 when nothing differs and the list of what the emulator cannot do still holds, 1 otherwise, 2 when a run
could not be made. Progress is on stderr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from infrastructure.snowflake_emulator.local import EmulatorError, LocalEmulator
from verification.parity.limits import LIMITS
from verification.parity.run import LEFT_OUT, Report, make_targets, run
from verification.parity.targets import BuildFailedError
from verification.parity.world import WorldSize

FOLDER = Path("build/parity")
OUTPUT = Path("build/parity.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the table, write the report."""
    options = _parser().parse_args(arguments)
    size = WorldSize(options.collars, options.days, options.increments, options.seed)
    folder: Path = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with LocalEmulator(folder) as emulator:
            report = run(size, *make_targets(folder.absolute(), emulator), _say)
    except (EmulatorError, BuildFailedError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report.document(), indent=1, default=str) + "\n")
    print("\n".join(lines_of(report)))
    print(f"written to {options.output}")
    return 0 if report.is_green else 1


def lines_of(report: Report) -> list[str]:
    """Differences, problems, and the table of what was compared (rows of the last step, differing of all)."""
    lines = [
        f"{one.step}: {difference}" for one in report.results for difference in one.comparison.differences
    ]
    lines += [f"problem: {problem}" for problem in report.problems]
    lines += [
        f"no limit any more: {one.feature} ({one.statement}); take it off verification/parity/limits.py and use it"
        for one in report.ended
    ]
    lines.append(f"{'table':<34} {'rows':>10} {'columns':>8} {'differing':>10}")
    last = {one.table: one for one in report.results}
    for table, one in sorted(last.items()):
        differing = sum(each.comparison.differing for each in report.results if each.table == table)
        lines.append(
            f"{table:<34} {one.comparison.rows_a:>10,} {len(one.comparison.columns):>8} {differing:>10,}"
        )
    lines += [f"{table} is left out: {why}" for table, why in LEFT_OUT.items()]
    lines.append(
        f"{len(last)} tables after each of {len(report.steps)} steps, {report.differing} differing;"
        f" {len(LIMITS) - len(report.ended)} of {len(LIMITS)} limits of the emulator hold; {report.seconds:.0f} s"
    )
    return lines


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m verification.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = WorldSize()
    parser.add_argument("--collars", type=int, default=default.collars)
    parser.add_argument("--days", type=int, default=default.initial_days, help="days of the initial load")
    parser.add_argument("--increments", type=int, default=default.increments, help="a day each")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="lake, warehouse and logs; emptied first")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    return parser


if __name__ == "__main__":
    sys.exit(main())
