"""Figures against their aims, as one JSON document and one table. Nothing is measured here."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verification.benchmarks.code_location import AIM_RATIO
from verification.benchmarks.demo import AIM_PEAK_BYTES, AIM_SECOND_RUN_S, AIM_TOTAL_S
from verification.benchmarks.simulator import AIM_EVENTS_PER_S

RESULTS = Path(__file__).parent / "results" / "latest.json"

AIM_TIMES_NAIVE = 5.0
AIM_SHARE_OF_ENCODER = 0.5
AIM_MEMORY_RATIO = 1.1
AIM_DAY_FILES = 10_000
AIM_INCREMENT_RATIO = 1.3
AIM_WHOLE_DAY_RATIO = 3.0
AIM_WHOLE_DAY_BYTES = 8_000_000_000
AIM_CLINIC_MONTH_MS = 50
AIM_YEAR_OF_MINUTES_MS = 45


def say(line: str) -> None:
    """A line of progress, apart from the table."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Aim:
    """One figure that has an aim: at least or at most `aim`."""

    benchmark: str
    figure: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether the figure reaches the aim; exactly the aim does."""
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is not None and value <= self.at_most

    @property
    def text(self) -> str:
        bound, aim = ("at least", self.at_least) if self.at_least is not None else ("at most", self.at_most)
        return f"{bound} {aim:,}"


AIMS = (
    Aim("collector", "times_naive", "times the naive loop", at_least=AIM_TIMES_NAIVE),
    Aim("collector", "share_of_encoder", "of what encoding alone reaches", at_least=AIM_SHARE_OF_ENCODER),
    Aim("collector", "memory_ratio", "times the memory for ten times the backlog", at_most=AIM_MEMORY_RATIO),
    Aim("day", "objects", "objects of a day of 50,000 collars", at_most=AIM_DAY_FILES),
    Aim("warehouse", "increment_ratio", "times a day on the short history", at_most=AIM_INCREMENT_RATIO),
    Aim(
        "warehouse_day",
        "ratio",
        "times loading, sorting and writing a large day",
        at_most=AIM_WHOLE_DAY_RATIO,
    ),
    Aim("warehouse_day", "platform_peak_bytes", "bytes for a large day", at_most=AIM_WHOLE_DAY_BYTES),
    Aim("warehouse", "clinic_month_p95_ms", "ms, p95, beside a writer", at_most=AIM_CLINIC_MONTH_MS),
    Aim("warehouse", "year_of_minutes_p95_ms", "ms, p95, beside a writer", at_most=AIM_YEAR_OF_MINUTES_MS),
    Aim("simulator", "events_per_s", "events/s on one core", at_least=AIM_EVENTS_PER_S),
    Aim("code_location", "ratio", "times the bare import", at_most=AIM_RATIO),
    Aim("demo", "wall_s", "s in all", at_most=AIM_TOTAL_S),
    Aim("demo", "peak_bytes", "bytes, all processes at one moment", at_most=AIM_PEAK_BYTES),
    Aim("demo", "second_run_s", "s when nothing changed", at_most=AIM_SECOND_RUN_S),
)


def judged(benchmarks: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every aim whose figure was measured: figure, value, aim, met."""
    return [
        {**_named(aim), "value": value, "met": aim.is_met(value)}
        for aim in AIMS
        if (value := benchmarks.get(aim.benchmark, {}).get("figures", {}).get(aim.figure)) is not None
    ]


def _named(aim: Aim) -> dict[str, Any]:
    return {key: value for key, value in asdict(aim).items() if value is not None}


def merged(before: Mapping[str, Any], machine: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The document after a run: fresh sections replace theirs, others stay if they are of this machine."""
    kept = before.get("benchmarks", {}) if before.get("machine") == machine else {}
    benchmarks = {**kept, **fresh}
    return {
        "machine": dict(machine),
        "aims": judged(benchmarks),
        "benchmarks": dict(sorted(benchmarks.items())),
    }


def read(path: Path) -> dict[str, Any]:
    """The document of the last run; {} when there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write the document as JSON that diffs well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def lines(document: Mapping[str, Any]) -> list[str]:
    """The document as text: every figure, then the aims."""
    text = []
    for name, section in document["benchmarks"].items():
        text.append(f"{name}  (commit {section['commit']}, load {section['load_1m']} before)")
        text += [f"  {figure:<46} {_shown(value)}" for figure, value in flat(section["figures"])]
    text.append("aims")
    for aim in document["aims"]:
        bound = Aim(**{key: aim[key] for key in aim if key not in ("value", "met")}).text
        verdict = "met" if aim["met"] else "MISSED"
        figure = f"{aim['benchmark']} {aim['figure']}"
        text.append(f"  {verdict:<7} {figure:<30} {_shown(aim['value'])} {aim['unit']} (aim: {bound})")
    return text


def flat(figures: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested figures as (dotted name, value)."""
    found: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{prefix}{name}: ")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
