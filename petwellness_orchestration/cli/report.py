"""The demo's summary as tables for people. Nothing is computed here."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from petwellness_orchestration.cli.console import mebibytes, thousands
from petwellness_orchestration.settings import PlatformSettings

WIDTH = 110


def print_summary(settings: PlatformSettings, summary: dict[str, Any]) -> None:
    """Print every figure of a summary, and where to look next."""
    console = Console(width=WIDTH, highlight=False)
    console.print()
    console.rule("PetWellness: what came out", style="bold")
    lake(console, summary)
    if "warehouse" in summary:
        layers(console, summary["warehouse"])
    if summary["planted"]:
        planted(console, summary["planted"])
    if summary.get("real_input"):
        real_input(console, summary["real_input"])
    checks(console, summary["checks"])
    model(console, summary["model"])
    stages(console, summary)
    where_next(console, settings, summary)


def lake(console: Console, summary: dict[str, Any]) -> None:
    """Files and bytes, rejects by reason, what consent dropped."""
    figures = summary["lake"]
    table = _table(console, "Lake", "", "")
    table.add_row("landed files", f"{thousands(figures['files'])}  ({mebibytes(figures['bytes'])})")
    table.add_row(
        "telemetry", f"{thousands(figures['messages'])} messages, {thousands(figures['telemetry_rows'])} rows, "
        f"{figures['bytes_per_telemetry_row']} bytes a row"
    )  # fmt: skip
    rejected = figures["rejects_by_reason"]
    reasons = ", ".join(f"{reason} {thousands(count)}" for reason, count in rejected.items()) or "none"
    table.add_row("rejects", f"{thousands(sum(rejected.values()))}  ({reasons})")
    dropped = figures["consent_dropped_by_reason"]
    why = ", ".join(f"{reason} {thousands(count)}" for reason, count in dropped.items())
    table.add_row(
        "dropped by consent", f"{thousands(figures['consent_dropped'])}{f'  ({why})' if why else ''}"
    )
    if summary["source_problems"]:
        problems = summary["source_problems"]
        listed = ", ".join(f"{reason} {thousands(count)}" for reason, count in problems.items())
        table.add_row("source rows that do not fit", f"{thousands(sum(problems.values()))}  ({listed})")
    console.print(table)


def layers(console: Console, figures: dict[str, Any]) -> None:
    """Rows per layer and table, and what was set aside between layers."""
    table = _table(console, "Warehouse", "layer", "rows", "tables")
    for layer, rows in figures["rows_by_layer"].items():
        named = {
            name.split(".")[1]: count
            for name, count in figures["rows_by_table"].items()
            if name.startswith(f"{layer}.") and count
        }
        table.add_row(layer, thousands(rows), ", ".join(f"{n} {thousands(c)}" for n, c in named.items()))
    table.add_row(
        "set aside", thousands(figures["duplicates_set_aside"]), "duplicates (stg.telemetry_duplicates)"
    )
    table.add_row(
        "",
        thousands(figures["event_conflicts"]),
        "same event id, other content or date (stg.event_conflicts)",
    )
    console.print(table)


def planted(console: Console, compared: list[dict[str, Any]]) -> None:
    """What the simulator planted beside what the platform found."""
    table = _table(
        console, "Planted by the simulator, found by the platform", "", "planted", "found", "differing"
    )
    for one in compared:
        mark = f"{thousands(one['differing'])}  (differs)" if one["differing"] else ""
        table.add_row(one["name"], thousands(one["planted"]), thousands(one["found"]), mark)
    console.print(table)


def real_input(console: Console, figures: dict[str, Any]) -> None:
    """What real files taught: one line per figure."""
    table = _table(console, "Real input", "", "")
    for name, value in figures.items():
        listed = ", ".join(f"{key.replace('_', ' ')} {_figure(one)}" for key, one in value.items())
        table.add_row(name.replace("_", " "), listed)
    console.print(table)


def _figure(value: Any) -> str:
    return thousands(value) if isinstance(value, int) else str(value)


def checks(console: Console, figures: dict[str, Any]) -> None:
    """Checks by outcome; every one that did not simply pass is named."""
    table = _table(
        console,
        f"Checks: {figures['passed']} passed, {figures['failed']} failed, {figures['warned']} warned, "
        f"{figures['not_applicable']} not applicable",
        "status",
        "check",
        "why",
    )
    for named in figures["named"]:
        blocking = " (blocking)" if named["blocking"] and named["status"] == "failed" else ""
        table.add_row(named["status"] + blocking, named["check"], named["reason"] or "")
    console.print(table)


def model(console: Console, figures: dict[str, Any]) -> None:
    """The model's metrics beside its baseline's."""
    if figures.get("status") != "trained":
        why = f"{figures.get('status', 'not trained')}: {figures.get('reason', 'the run did not reach it')}"
        console.print(f"\n[bold]Model[/bold]  {why}\n")
        return
    table = _table(
        console,
        f"Model {figures['model']}: {thousands(figures['training_rows'])} pet-days, "
        f"{thousands(figures['positives'])} followed by an unplanned visit",
        "metric",
        "model",
        "baseline",
    )
    for name, value in figures.items():
        baseline = figures.get(f"baseline_{name}")
        if baseline is not None:
            table.add_row(name.replace("_", " "), f"{value:.3f}", f"{baseline:.3f}")
    console.print(table)


def stages(console: Console, summary: dict[str, Any]) -> None:
    """Seconds per stage and peak memory."""
    table = _table(console, "Time", "stage", "seconds")
    for stage, seconds in summary["stage_seconds"].items():
        table.add_row(stage, f"{seconds:.1f}")
    for process, size_bytes in summary["peak_memory_bytes"].items():
        if size_bytes is not None:
            table.add_row(f"peak memory, {process}", mebibytes(size_bytes))
    console.print(table)


def where_next(console: Console, settings: PlatformSettings, summary: dict[str, Any]) -> None:
    """What to run and open after this."""
    home = settings.state.home
    verdict = "[green]passed[/green]" if summary["passed"] else "[red]FAILED[/red]"
    environment = f"PETWELLNESS_HOME={home} " if settings.source.data is not None else ""
    query = "select * from anl.pet_daily_summary limit 5"
    console.print(f"\nResult: {verdict}. Where to look next:")
    console.print(f'  {environment}.venv/bin/petwellness query "{query}"', soft_wrap=True)
    console.print(f"  {home}/published/petwellness.duckdb with any DuckDB client", soft_wrap=True)
    console.print(f"  {home}/demo_summary.json has these figures", soft_wrap=True)
    if summary["source_problems"]:
        console.print(f"  {home}/source_problems.csv names every row that does not fit", soft_wrap=True)
    console.print("  make dev opens the asset graph at http://127.0.0.1:3000\n")


def _table(console: Console, title: str, *columns: str) -> Table:
    """A table to fill, under a title that has the whole width."""
    console.print(f"\n[bold]{title}[/bold]")
    table = Table(show_header=any(columns), box=None)
    for index, column in enumerate(columns):
        table.add_column(
            column,
            justify="right"
            if column in ("rows", "seconds", "planted", "found", "model", "baseline")
            else "left",
            no_wrap=index == 0,
            overflow="fold",
        )
    return table
