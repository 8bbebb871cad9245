"""`petwellness quarantine` and `petwellness claims`: what landed and must not be used is entered, listed, released.

Which rows a request names is `governance.quarantine`, which claim yields is
`ingestion.collector.superseding`; here are options and how it is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from petwellness_orchestration.cli.console import say, thousands, warn
from petwellness_orchestration.cli.entries import checked_person, checked_reason
from petwellness_orchestration.lake_access import reach_lake
from petwellness_orchestration.settings import load_settings

if TYPE_CHECKING:
    from governance.quarantine.scope import Covered, FoundRow
    from lake.quarantine import Quarantine, QuarantineEntry

quarantine = typer.Typer(
    help="Keep landed rows out of the warehouse, although they stay in the lake.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
claims = typer.Typer(help="Mend claims of the landing protocol.", no_args_is_help=True, rich_markup_mode=None)

MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
# Rows that are printed one by one, and event days of an entry.
SHOWN = 20

ByOption = Annotated[
    str | None, typer.Option("--by", help="Who says so, kept for good; by default the user of the system.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why: kept for good; no personal data.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]

NEXT = (
    "the next run takes it up; at once: `petwellness load`, `petwellness build`, `petwellness publish`,"
    " `petwellness compact`"
)


@quarantine.command("find")
def find_command(
    arrival_after: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Received after this moment (UTC).")
    ] = None,
    arrival_before: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Received before this moment (UTC).")
    ] = None,
) -> None:
    """Find landed telemetry by its time of receipt, and print the command that quarantines it."""
    from governance.quarantine.scope import received_outside
    from lake.landing import list_manifests
    from lake.replacements import load_replacements

    if arrival_after is None and arrival_before is None:
        raise typer.BadParameter("give --arrival-after, --arrival-before or both")
    store = reach_lake(load_settings())
    found = received_outside(
        store, list_manifests(store), load_replacements(store), arrival_after, arrival_before
    )
    print("\n".join(found_lines(found)))


@quarantine.command("add")
def add_command(
    stream: Annotated[str, typer.Option("--stream", help="Stream id, as in raw.telemetry_events.")],
    partition: Annotated[int, typer.Option("--partition", min=0)],
    offset: Annotated[
        list[int] | None, typer.Option("--offset", min=0, help="Offset of a row; repeatable.")
    ] = None,
    start: Annotated[int | None, typer.Option("--start", min=0, help="First offset of a range.")] = None,
    end: Annotated[int | None, typer.Option("--end", min=0, help="Offset after a range's last.")] = None,
    reason: ReasonOption = "",
    by: ByOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Quarantine rows of a partition, one by one or as a range. Their originals stay in the lake."""
    from governance.quarantine.scope import beyond, checked_rows, covered, requested_spans, rows_in
    from lake.landing import list_manifests, utc_now
    from lake.quarantine import load_quarantine, put_entry, quarantine_entry
    from lake.replacements import load_replacements

    asked = _asked(offset, start, end)
    reason, person = checked_reason(reason, "an entry of the quarantine"), checked_person(by)
    store = reach_lake(load_settings())
    manifests, replacements, ledger = list_manifests(store), load_replacements(store), load_quarantine(store)
    spans = requested_spans(manifests, stream, partition, asked)
    checked_rows(rows_in(store, manifests, replacements, spans), spans, named_one_by_one=bool(offset))
    new = beyond(spans, ledger)
    if not new:
        say("all of it is quarantined already; nothing was changed")
        return
    before = covered(rows_in(store, manifests, replacements, ledger.spans))
    more = covered(rows_in(store, manifests, replacements, new))
    for span in new:
        print(f"quarantines    {span}")
    print(f"covers         {covered_text(more)}")
    print(f"quarantined    {thousands(before.rows)} rows before, {thousands(before.rows + more.rows)} after")
    if dry_run:
        say("nothing was changed; leave out --dry-run to do it")
        return
    entry = quarantine_entry(reason, person, utc_now(), new)
    put_entry(store, entry)
    say(f"{entry.quarantine_id} is in the ledger; {NEXT}")


@quarantine.command("list")
def list_command() -> None:
    """Every entry with what it covers, who entered it, when and why, and whether it was released."""
    from governance.quarantine.scope import covered, rows_in
    from lake.landing import list_manifests
    from lake.quarantine import load_quarantine
    from lake.replacements import load_replacements

    store = reach_lake(load_settings())
    ledger = load_quarantine(store)
    manifests, replacements = list_manifests(store), load_replacements(store)
    if not ledger.entries:
        print("nothing was ever quarantined")
    for entry in ledger:
        if entry.releases is None:
            text = covered_text(covered(rows_in(store, manifests, replacements, entry.spans)))
            print("\n".join(entry_lines(entry, text, ledger)))


@quarantine.command("release")
def release_command(
    quarantine_id: Annotated[str, typer.Argument(help="Id of the entry, as `list` shows it.")],
    reason: ReasonOption = "",
    by: ByOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """End an entry: its rows are loaded again. The entry and its release stay in the ledger."""
    from governance.quarantine.scope import covered, entry_to_release, rows_in
    from lake.landing import list_manifests, utc_now
    from lake.quarantine import load_quarantine, put_entry, quarantine_entry
    from lake.replacements import load_replacements

    reason, person = checked_reason(reason, "a release"), checked_person(by)
    store = reach_lake(load_settings())
    ledger = load_quarantine(store)
    entry = entry_to_release(ledger, quarantine_id)
    rows = rows_in(store, list_manifests(store), load_replacements(store), entry.spans)
    for span in entry.spans:
        print(f"releases       {span}")
    print(f"covers         {covered_text(covered(rows))}")
    if dry_run:
        say("nothing was changed; leave out --dry-run to do it")
        return
    put_entry(store, quarantine_entry(reason, person, utc_now(), releases=quarantine_id))
    say(f"{quarantine_id} is released; {NEXT}")


@claims.command("supersede")
def supersede_command(
    reason: ReasonOption = "claims of a partition overlap",
    by: ByOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Set aside what one claim repeats of another, and close the gap before a chain that begins above 0.

    Names first what it would do with --dry-run. Rows that only one claim holds are never
    set aside. Run it with no collector at work.
    """
    from ingestion.collector.superseding import mend_chains, plan_mend
    from lake.landing import utc_now

    reason, person = checked_reason(reason, "an entry of the quarantine"), checked_person(by)
    store, now = reach_lake(load_settings()), utc_now()
    mend = plan_mend(store, now, person)
    for span in mend.superseded:
        print(f"supersedes     {span}")
    for gap in mend.gaps:
        print(f"closes         {gap.stream_id} partition {gap.partition} [{gap.start}, {gap.end}) as a gap")
    if mend.hidden:
        print(f"catalogue      {mend.hidden} claims lie before its frontier; it is rolled up anew")
    for why in mend.refused:
        warn(why)
    if not mend:
        say("no claim has to be mended" if not mend.refused else "nothing was changed")
    elif dry_run:
        say("nothing was changed; leave out --dry-run to do it")
    else:
        entry = mend_chains(store, mend, reason, person, now)
        say(f"{entry.quarantine_id if entry else 'the gap'} is in the lake; {NEXT}")
    if mend.refused:
        raise typer.Exit(1)


def covered_text(found: Covered) -> str:
    """What an entry covers, for people."""
    if not found.event_dates:
        return f"{thousands(found.rows)} rows"
    days = [f"{day:%Y-%m-%d}" for day in found.event_dates]
    shown = ", ".join(days) if len(days) <= SHOWN else f"{days[0]} to {days[-1]} ({len(days)} days)"
    return f"{thousands(found.rows)} rows of {thousands(found.devices)} devices, event days {shown}"


def entry_lines(entry: QuarantineEntry, covers: str, ledger: Quarantine) -> list[str]:
    """An entry for people: one line, and one for each span."""
    release = ledger.released.get(entry.quarantine_id)
    state = "in force"
    if release is not None:
        state = f"released {release.entered_at:%Y-%m-%d %H:%M} by {release.entered_by}: {release.reason}"
    head = f"{entry.quarantine_id}  {entry.entered_at:%Y-%m-%d %H:%M}  {entry.entered_by}  {state}"
    return [head, f"  {entry.reason}", f"  {covers}", *(f"  {span}" for span in entry.spans)]


def found_lines(found: Sequence[FoundRow]) -> list[str]:
    """Rows for people, and the commands that quarantine them."""
    from lake.redactions import merged

    if not found:
        return ["no landed row was received then"]
    lines = [f"{thousands(len(found))} rows"]
    lines += [
        f"  {row.stream_id} partition {row.partition} offset {row.offset}: received"
        f" {row.arrival_ts:%Y-%m-%d %H:%M:%S}, measured {row.event_ts:%Y-%m-%d %H:%M:%S}, {row.device_id}"
        for row in found[:SHOWN]
    ]
    if len(found) > SHOWN:
        lines.append(f"  and {thousands(len(found) - SHOWN)} more")
    places: dict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for row in found:
        places[row.stream_id, row.partition].append((row.offset, row.offset + 1))
    for (stream_id, partition), offsets in places.items():
        runs = merged(offsets)
        named = [f"--start {start} --end {end}" for start, end in runs if end - start > 1]
        if alone := [f"--offset {start}" for start, end in runs if end - start == 1]:
            named.append(" ".join(alone))
        lines += [
            f"petwellness quarantine add --stream {stream_id} --partition {partition} {which}"
            " --reason '...' --dry-run"
            for which in named
        ]
    return lines


def _asked(offsets: Iterable[int] | None, start: int | None, end: int | None) -> list[tuple[int, int]]:
    one_by_one = [(offset, offset + 1) for offset in offsets or ()]
    if start is not None and end is not None and not one_by_one:
        return [(start, end)]
    if one_by_one and start is None and end is None:
        return one_by_one
    raise typer.BadParameter("give --offset (once or more), or --start and --end")
