"""A parity run: every step of the world on both targets, and every table of both compared after it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from contracts.registry import FEEDS
from infrastructure.snowflake_emulator.local import LocalEmulator
from lake.store import LocalStore
from verification.parity.limits import Limit, ended_limits
from verification.parity.targets import Embedded, EmbeddedWorker, Emulated, Say, load_and_build
from verification.parity.world import Step, World, WorldSize
from warehouse.compare import Comparison, compare_whole_tables

# A range's place in its stream.
RAW_KEY = ("stream_id", "kafka_partition", "kafka_offset")

# Columns that may differ: when something was loaded, and the numbers that a warehouse counts its own loads by
# (on Snowflake the ranges of one feed are a load, in the embedded warehouse all pending ones).
EXCLUDED = {
    "raw.load_history": ("loaded_at", "load_seq"),
    "raw.redactions": ("applied_at", "load_seq"),
    "raw.build_marks": ("load_seq",),
}
# Rows that only one loader keeps.
ONLY_ROWS = {"raw.build_marks": "mark <> 'loads'"}
# Tables that are one target's own, and why.
LEFT_OUT = {
    "raw.rebuilt_days": "which days a build rebuilt is noted for the published copy, which the embedded warehouse has",
    "anl.visit_risk_scores": "scoring makes it in the embedded warehouse, the account's configuration on Snowflake",
}


@dataclass(frozen=True)
class TableResult:
    """A table after a step."""

    step: str
    comparison: Comparison

    @property
    def table(self) -> str:
        return self.comparison.table


@dataclass
class Report:
    """What a run compared and found."""

    size: WorldSize
    results: list[TableResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ended: list[Limit] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def differing(self) -> int:
        """Values and rows that differ, over all steps."""
        return sum(one.comparison.differing for one in self.results)

    @property
    def is_green(self) -> bool:
        """Whether something was compared, nothing differs, and every limit holds."""
        return bool(self.results) and not (self.differing or self.problems or self.ended)

    def document(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "collars": self.size.collars,
            "initial_days": self.size.initial_days,
            "increments": self.size.increments,
            "seed": self.size.seed,
            "is_green": self.is_green,
            "seconds": round(self.seconds, 1),
            "steps": self.steps,
            "problems": self.problems,
            "ended_limits": [one.feature for one in self.ended],
            "tables": [
                {
                    "step": one.step,
                    "table": one.table,
                    "rows_embedded": one.comparison.rows_a,
                    "rows_snowflake": one.comparison.rows_b,
                    "columns": len(one.comparison.columns),
                    "differing": one.comparison.differing,
                    "first_differences": [str(difference) for difference in one.comparison.differences],
                }
                for one in self.results
            ],
        }


def make_targets(
    folder: Path, emulator: LocalEmulator, database: str = "PARITY"
) -> tuple[Embedded, Emulated]:
    """Both warehouses, empty, over one lake in `folder`, which is empty, too."""
    store = LocalStore(folder / "lake")
    return Embedded(folder, store), Emulated(folder, store, emulator, database)


def run(size: WorldSize, embedded: Embedded, emulated: Emulated, say: Say) -> Report:
    """Build and compare every step, then hold the list of limits. Raises BuildFailedError, and what loading raises."""
    started = time.monotonic()
    report = Report(size)
    world = World(size)
    steps = list(world.steps())
    with EmbeddedWorker(embedded) as worker:
        for number, step in enumerate(steps, 1):
            began = time.monotonic()
            say(f"step {number} of {len(steps)}, {step.name}: {step.brings}")
            world.land(embedded.store, step)
            builds = build_both(worker, emulated, step, report, say)
            compare_all(step.name, embedded, emulated, report, say)
            report.steps.append({"step": step.name, **builds, "seconds": round(time.monotonic() - began, 1)})
    say("what the emulator cannot do: executing the list")
    with emulated.emulator.connect(emulated.database, "CUR") as con:
        report.ended = ended_limits(con)
    report.seconds = time.monotonic() - started
    return report


def build_both(
    worker: EmbeddedWorker, emulated: Emulated, step: Step, report: Report, say: Say
) -> dict[str, Any]:
    """Load and build each target; what it built."""
    other = worker.start(step.is_tested)
    built = {
        emulated.name: load_and_build(emulated, step.is_tested, lambda line: say(f"{emulated.name}: {line}")),
        "embedded": other.result(),
    }
    for name, one in built.items():
        say(f"{name}: {one}")
    asked = [{**one.variables, "build_seq": None} for one in built.values()]
    if asked[0] != asked[1]:
        report.problems.append(f"{step.name}: the targets build other days, or to another moment: {asked}")
    return {name: asdict(one) for name, one in built.items()}


def compare_all(
    step: str,
    embedded: Embedded,
    emulated: Emulated,
    report: Report,
    say: Say,
    only: Collection[str] | None = None,
) -> None:
    """Compare every table that either target has, or `only` those, and add what was found to the report."""
    keys = table_keys(emulated.dbt.manifest())
    tables, others = (set(target.tables()) - set(LEFT_OUT) for target in (embedded, emulated))
    for table in sorted(tables ^ others):
        report.problems.append(f"{step}: {table} is on {'embedded' if table in tables else 'snowflake'} only")
    with embedded.connect() as con_a, emulated.connect() as con_b:
        for table in sorted(tables & others if only is None else only):
            source = compared_rows(table)
            found = compare_whole_tables(
                con_a, source, con_b, source, keys.get(table, ()), EXCLUDED.get(table, ())
            )
            report.results.append(TableResult(step, named(found, table)))
            say(f"compared {table}: {found.rows_a:,} rows, {found.differing} differing")


def named(found: Comparison, table: str) -> Comparison:
    """The comparison under the table's name, also where only some of its rows were compared."""
    differences = tuple(replace(one, table=table) for one in found.differences)
    return replace(found, table=table, differences=differences)


def compared_rows(table: str) -> str:
    """What is compared of a table: itself, or the rows that both keep."""
    if table not in ONLY_ROWS:
        return table
    return f"(select * from {table} where {ONLY_ROWS[table]}) as {table.split('.')[1]}"


def table_keys(manifest: Any) -> dict[str, tuple[str, ...]]:
    """By table its key: where its rows were in the log, or what its test of uniqueness says."""
    keys: dict[str, tuple[str, ...]] = {f"raw.{feed}": RAW_KEY for feed in FEEDS}
    for table, columns in _tested_keys(manifest):
        keys[table] = columns
    return keys


def _tested_keys(manifest: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in manifest.nodes.values():
        metadata = getattr(node, "test_metadata", None)
        if metadata is not None and metadata.name == "unique_combination" and node.attached_node:
            model = manifest.nodes[node.attached_node]
            yield f"{model.schema}.{model.alias}", tuple(metadata.kwargs["columns"])
