"""`petwellness rejects`: look at rejected messages, and land again what is good after a fix.

Finding, counting and landing are `ingestion.rejects`; here are options and how it is told.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from petwellness_orchestration.cli.console import say, thousands, warn
from petwellness_orchestration.lake_access import open_lake, reach_lake

if TYPE_CHECKING:
    from ingestion.rejects.reading import RejectCount, RejectFilter, RejectList
    from ingestion.rejects.replay import ReplayReport

rejects = typer.Typer(
    help="Look at rejected messages, and land again, once, what is good after a fix.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ReasonOption = Annotated[list[str] | None, typer.Option("--reason", help="Only this reason; repeatable.")]
SourceOption = Annotated[
    list[str] | None, typer.Option("--source", help="Only this source system; repeatable.")
]
DecoderOption = Annotated[
    list[str] | None,
    typer.Option("--decoder", help="Only what this decoder (name or name@version) rejected; repeatable."),
]
DayOption = Annotated[
    datetime | None, typer.Option("--day", formats=["%Y-%m-%d"], help="Only received on this day (UTC).")
]

RESTRICTED = (
    "payloads are restricted: they may hold positions, health data and ids; do not pass them on or keep them"
)


@rejects.command("list")
def list_command(
    reason: ReasonOption = None,
    source: SourceOption = None,
    decoder: DecoderOption = None,
    day: DayOption = None,
    limit: Annotated[int, typer.Option(min=0, help="Most examples to show.")] = 20,
    by_range: Annotated[bool, typer.Option("--by-range", help="Also count per landed range.")] = False,
    payload: Annotated[
        bool,
        typer.Option("--payload", help="Show what was received, too. Restricted: may hold personal data."),
    ] = False,
    output: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Count rejected messages per reason, with examples; payloads only with --payload."""
    from ingestion.rejects.reading import list_rejects
    from lake.landing import list_manifests
    from petwellness_orchestration.cli.query import QueryFailedError
    from petwellness_orchestration.settings import load_settings

    if output not in ("table", "json"):
        raise QueryFailedError(f"unknown format '{output}'; choose one of: table, json")
    where = _filter(reason, source, decoder, day)
    settings = load_settings()
    store = open_lake(settings)
    found = list_rejects(store, list_manifests(store), where, limit, payload)
    if payload:
        warn(RESTRICTED)
    if output == "json":
        print(json.dumps(as_document(found, by_range), default=str, ensure_ascii=False))
        return
    print("\n".join(table_lines(found, by_range)))


@rejects.command("replay")
def replay_command(
    reason: ReasonOption = None,
    source: SourceOption = None,
    decoder: DecoderOption = None,
    day: DayOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only decode and count; nothing is stored.")
    ] = False,
) -> None:
    """Decode rejected messages with today's decoders and land what is good now, once.

    Run it after a fix. What is still bad stays the reject it was; what landed is
    left out from then on. Load and build take the new rows up like any others.
    """
    from ingestion.rejects.replay import replay_rejects
    from petwellness_orchestration.settings import load_settings

    where = _filter(reason, source, decoder, day)
    settings = load_settings()
    store = reach_lake(settings)
    report = replay_rejects(
        store,
        where,
        consent_max_age_s=settings.collector.consent_max_age_s,
        max_message_bytes=settings.collector.max_message_bytes,
        not_before=settings.collector.not_before,
        dry_run=dry_run,
        progress=say,
    )
    print("\n".join(replay_lines(report, dry_run)))


def _filter(
    reason: list[str] | None, source: list[str] | None, decoder: list[str] | None, day: datetime | None
) -> RejectFilter:
    from ingestion.rejects.reading import RejectFilter

    on_day: date | None = day.date() if day else None
    return RejectFilter(reasons=reason or (), source_systems=source or (), decoders=decoder or (), day=on_day)


def as_document(found: RejectList, by_range: bool) -> dict[str, Any]:
    """A list of rejects as plain values; payloads, where there are any, as text."""
    document: dict[str, Any] = {
        "by_reason": {reason: vars(count) for reason, count in found.by_reason.items()},
        "total": vars(found.total),
        "gone": found.gone,
        "examples": [
            {name: _text(value) if name == "payload" else value for name, value in example.items()}
            for example in found.examples
        ],
    }
    if by_range:
        document["ranges"] = [
            {
                "stream_id": one.manifest.stream_id,
                "partition": one.manifest.partition,
                "start": one.manifest.start,
                "end": one.manifest.end,
                "decoder": one.manifest.decoder,
                "reject_object": one.manifest.reject_object,
                "by_reason": one.by_reason,
                "replayed": one.replayed,
            }
            for one in found.ranges
        ]
    return document


def table_lines(found: RejectList, by_range: bool) -> list[str]:
    """A list of rejects for people."""

    def counted(reason: str, count: RejectCount) -> str:
        numbers = (count.rejected, count.replayed, count.without_payload)
        return f"{reason:<12}" + "".join(f"{thousands(number):>18}" for number in numbers)

    lines = [f"{'reason':<12}{'rejected':>18}{'replayed since':>18}{'without payload':>18}"]
    lines += [counted(reason, count) for reason, count in found.by_reason.items()]
    lines.append(counted("total", found.total))
    if found.gone:
        lines.append(f"{thousands(found.gone)} more were rejected and are no longer stored")
    if by_range:
        lines += ["", "ranges"]
        lines += [
            f" {one.manifest.stream_id}[{one.manifest.partition}] {one.manifest.start}-{one.manifest.end}"
            f" {one.manifest.decoder}: "
            + ", ".join(f"{reason} {thousands(count)}" for reason, count in sorted(one.by_reason.items()))
            + (f"; replayed {thousands(one.replayed)}" if one.replayed else "")
            for one in found.ranges
        ]
    if found.examples:
        lines += ["", f"examples ({len(found.examples)} of {thousands(found.total.rejected)})"]
    for example in found.examples:
        lines.append(
            f" {example['stream_id']}[{example['kafka_partition']}]@{example['kafka_offset']}"
            f" {example['arrival_ts']:%Y-%m-%d %H:%M:%S} {example['reason']}: {example['detail']}"
            + (" (replayed)" if example["replayed"] else "")
        )
        if "payload" in example:
            lines.append(f"   {json.dumps(_text(example['payload']), ensure_ascii=False)}")
    return lines


def replay_lines(report: ReplayReport, dry_run: bool) -> list[str]:
    """What a replay did, for people."""

    def by_reason(counts: dict[str, int]) -> str:
        listed = ", ".join(f"{reason} {thousands(count)}" for reason, count in sorted(counts.items()))
        return f"{thousands(sum(counts.values()))}{f'  ({listed})' if listed else ''}"

    landed = "would land" if dry_run else "landed"
    lines = [
        f"{landed:<22}{by_reason(report.landed)}",
        f"{'dropped by consent':<22}{by_reason(report.dropped)}",
        f"{'still rejected':<22}{by_reason(report.still_rejected)}",
        f"{'replayed before':<22}{thousands(report.before)}",
        f"{'without payload':<22}{thousands(report.without_payload)}",
        f"{'no longer stored':<22}{thousands(report.gone)}",
    ]
    if dry_run:
        return [*lines, "nothing was stored"]
    if report.finished_claims:
        lines.append(
            f"{'claims finished':<22}{report.finished_claims} of a replay that had died"
            + (f", {report.closed_claims} of them closed empty" if report.closed_claims else "")
        )
    return [*lines, f"{'ranges':<22}{report.ranges}; `petwellness load` takes them up"]


def _text(payload: bytes | None) -> str | None:
    """A payload to look at: bytes that are no UTF-8 as escapes."""
    return None if payload is None else payload.decode(errors="backslashreplace")
