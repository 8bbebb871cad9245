"""Subcommands and their options. What each does is in the module it imports when called."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from petwellness_orchestration.cli.processes import dagster
from petwellness_orchestration.cli.quarantine import claims, quarantine
from petwellness_orchestration.cli.rejects import rejects

app = typer.Typer(
    name="petwellness",
    help="Smart-collar telemetry and clinic records, from Kafka to tables and models, as one asset graph.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(rejects, name="rejects")
app.add_typer(dagster, name="dagster")
app.add_typer(quarantine, name="quarantine")
app.add_typer(claims, name="claims")

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder of real source files (PETWELLNESS_DATA); without it the simulated fleet."
    ),
]


@app.command()
def demo(data: DataOption = None) -> None:
    """Run the whole platform once, headless, and show what came out."""
    from petwellness_orchestration.cli.demo import run_demo

    raise typer.Exit(run_demo(data))


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Port of the Dagster UI on 127.0.0.1.")] = 3000,
) -> None:
    """Dagster UI and daemon, live fleet, collector, schedules and sensors; Ctrl-C stops all of it."""
    from petwellness_orchestration.cli.dev import run_dev

    raise typer.Exit(run_dev(port))


@app.command()
def environment() -> None:
    """Which environment this is, and where its warehouse, lake and broker are. Shows no secret."""
    from petwellness_orchestration.cli.environment import show_environment

    raise typer.Exit(show_environment())


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def dbt(context: typer.Context) -> None:
    """dbt by hand, in this environment: `petwellness dbt build --select cur_pets`.

    Project, target, account role and schema are the environment's. On the embedded
    warehouse no run may be under way: DuckDB takes one writing process.
    """
    from petwellness_orchestration.cli.environment import become_dbt

    become_dbt(context.args)


@app.command()
def simulate(
    live: Annotated[bool, typer.Option("--live", help="Go on in real time until stopped.")] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep the embedded broker up until standard input closes.")
    ] = False,
) -> None:
    """Publish the simulated fleet's telemetry, through an embedded broker unless Kafka is set.

    Waves that have landed before are not published again. A collector has to
    run beside it (`petwellness collect`): the embedded broker keeps little.
    """
    from petwellness_orchestration.cli.publish import publish_live, publish_source

    publish_live() if live else publish_source(serve)


@app.command()
def replay(
    data: Annotated[Path, typer.Argument(help="Folder of real source files.")],
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep the embedded broker up until standard input closes.")
    ] = False,
) -> None:
    """Publish real telemetry files with their original times of receipt."""
    from petwellness_orchestration.cli.environment import use_data
    from petwellness_orchestration.cli.publish import publish_source

    use_data(data)
    publish_source(serve)


@app.command()
def extract(data: DataOption = None) -> None:
    """Land the record extracts of the source and take the consent snapshot."""
    from petwellness_orchestration.cli.environment import use_data
    from petwellness_orchestration.cli.steps import land_records

    use_data(data)
    raise typer.Exit(land_records())


@app.command()
def collect(
    forever: Annotated[
        bool, typer.Option("--forever", help="Run as a service until SIGTERM; logs JSON lines.")
    ] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="With --forever: Prometheus metrics on this port of 127.0.0.1, 0 for none "
            "(PETWELLNESS_COLLECTOR_METRICS_PORT).",
        ),
    ] = None,
) -> None:
    """Take telemetry from the broker into the lake, to the present or forever."""
    if forever:
        from petwellness_orchestration.cli.serve import serve_collector

        raise typer.Exit(serve_collector(metrics_port))
    from petwellness_orchestration.cli.steps import collect_telemetry

    raise typer.Exit(collect_telemetry())


@app.command()
def bridge() -> None:
    """Carry telemetry from an MQTT broker into Kafka until SIGTERM (PETWELLNESS_MQTT_URL).

    Nothing is acknowledged before it is safe in Kafka. Without Kafka an embedded
    broker runs inside the bridge, and safe means landed: run `petwellness collect
    --forever` beside it.
    """
    from petwellness_orchestration.cli.bridge import run_bridge

    raise typer.Exit(run_bridge())


@app.command()
def load() -> None:
    """Load what has landed into raw, by ledger, and reconcile lake and raw."""
    from petwellness_orchestration.cli.steps import load_raw

    raise typer.Exit(load_raw())


@app.command()
def gaps(
    output: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    close_dead: Annotated[
        bool,
        typer.Option("--close-dead", help="Record as lost what was claimed of topics that are deleted."),
    ] = False,
    dead: Annotated[
        list[str] | None,
        typer.Option(
            "--dead", help="Id of a stream of which nothing more comes, as of a cluster that is gone."
        ),
    ] = None,
) -> None:
    """Find what is missing between broker, lake, raw and devices; exit code 1 while a gap is open."""
    from petwellness_orchestration.cli.gaps import show_gaps

    if output not in ("text", "json"):
        raise typer.BadParameter(f"'{output}' is no format; choose text or json", param_hint="--format")
    raise typer.Exit(show_gaps(output, close_dead, dead or []))


@app.command()
def reload(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this only say what would happen.")
    ] = False,
) -> None:
    """Load again, from the lake, the ranges on which raw differs from it."""
    from petwellness_orchestration.cli.gaps import reload_ranges

    raise typer.Exit(reload_ranges(yes))


@app.command()
def build(
    full_refresh: Annotated[bool, typer.Option("--full-refresh", help="Rebuild every day.")] = False,
) -> None:
    """Build and test the dbt models for the days that changed."""
    from petwellness_orchestration.cli.steps import build_models

    raise typer.Exit(build_models(full_refresh))


@app.command()
def check() -> None:
    """Run every check over every day; exit code 1 when one of them fails. Nothing is built."""
    from petwellness_orchestration.cli.steps import check_everything

    raise typer.Exit(check_everything())


@app.command()
def publish() -> None:
    """Write what changed to the published copy that readers use."""
    from petwellness_orchestration.cli.steps import publish_tables

    raise typer.Exit(publish_tables())


@app.command()
def rebuild(
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this only say what would happen.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Then compare every table with what it was, and fail where one differs."
        ),
    ] = False,
) -> None:
    """Drop the warehouse and rebuild it from the lake."""
    from petwellness_orchestration.cli.steps import rebuild_warehouse

    raise typer.Exit(rebuild_warehouse(yes, compare))


@app.command()
def catalogue() -> None:
    """Roll up closed hours into the lake's catalogue; say what the lake holds by feed."""
    from petwellness_orchestration.cli.lake import show_catalogue

    raise typer.Exit(show_catalogue())


@app.command()
def compact(
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Arrival day (UTC); without it every closed day that waits."),
    ] = None,
    even_if_open: Annotated[
        bool, typer.Option("--even-if-open", help="Also a --day that may still get claims.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what waits.")] = False,
) -> None:
    """Sort telemetry of arrival days into few files, prove that no row changed, switch readers."""
    from petwellness_orchestration.cli.lake import compact_days

    raise typer.Exit(compact_days(None if day is None else day.date(), even_if_open, dry_run))


@app.command()
def clean(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove compacted and catalogue files that nothing has named for a day (orphans, superseded ones)."""
    from petwellness_orchestration.cli.lake import clean_lake

    raise typer.Exit(clean_lake(dry_run))


@app.command()
def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is due.")] = False,
) -> None:
    """Move days past their table's retention limit from the warehouse to cold storage."""
    from petwellness_orchestration.cli.retention import retain_days

    raise typer.Exit(retain_days(dry_run))


@app.command()
def restore(
    day: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Event day (UTC).")],
    table: Annotated[
        str | None, typer.Option(help="Table, such as anl.telemetry_events; without it every one.")
    ] = None,
    keep_days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days of the data's present for which it then stays.")
    ] = 7,
    release: Annotated[
        bool, typer.Option("--release", help="Instead let the next `retain` move the day again.")
    ] = False,
) -> None:
    """Bring an event day back from cold storage into the warehouse."""
    from petwellness_orchestration.cli.retention import release_day, restore_day

    chosen = day.date()
    raise typer.Exit(release_day(chosen, table) if release else restore_day(chosen, table, keep_days))


@app.command()
def query(
    sql: Annotated[
        str | None, typer.Argument(help="SQL; without it the published tables are listed.")
    ] = None,
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    limit: Annotated[int, typer.Option(help="Most rows to show as a table.")] = 50,
    saved: Annotated[
        str | None, typer.Option(help="A saved analysis instead of SQL: its name in dbt_project/analyses.")
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            help="The present (UTC) of the saved analysis; by default the newest published event's receipt."
        ),
    ] = None,
) -> None:
    """Ask the published copy, also while a run writes."""
    from petwellness_orchestration.cli.query import run_query

    run_query(sql, output, limit, saved, as_of)


@app.command()
def status() -> None:
    """What has landed, been loaded, built and published, and what waits."""
    from petwellness_orchestration.cli.steps import show_status

    raise typer.Exit(show_status())


@app.command()
def costs(
    days: Annotated[int, typer.Option(min=1, max=365, help="UTC days up to today.")] = 7,
    output: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """What Snowflake cost, by warehouse, asset, node and table; exit code 1 when a day is over its budget."""
    from petwellness_orchestration.cli.costs import FORMATS, show_costs

    if output not in FORMATS:
        raise typer.BadParameter(f"'{output}' is no format; choose table or json", param_hint="--format")
    raise typer.Exit(show_costs(days, output))


@app.command()
def erase(
    household: Annotated[str, typer.Argument(help="Owner id of the household, as in cur.owners.")],
    reason: Annotated[
        str, typer.Option("--reason", help="Why: the number of the request; no personal data.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased, table by table.")
    ] = False,
) -> None:
    """Enter a household's erasure into the redaction ledger. It cannot be taken back."""
    from petwellness_orchestration.cli.erasure import erase_household

    raise typer.Exit(erase_household(household, reason, dry_run))


@app.command()
def erasures() -> None:
    """Late opt-outs and erasures with their deadlines, what is left of each, and spans that wait for a decision."""
    from petwellness_orchestration.cli.erasure import list_erasures

    raise typer.Exit(list_erasures())


@app.command()
def decide(
    listing: Annotated[str, typer.Argument(help="Id of the listing, as `petwellness erasures` shows it.")],
    span: Annotated[int, typer.Argument(min=1, help="Number of the span in it.")],
    verdict: Annotated[
        str, typer.Argument(help="erase: it was the household's and goes; keep: it was not and stays.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="Why: the number of the case; no personal data.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="Who decides: a staff number or initials.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would happen.")] = False,
) -> None:
    """Decide whose a span is that several pets claim and one household wants gone. It cannot be taken back."""
    from lake.disputes import VERDICTS
    from petwellness_orchestration.cli.erasure import decide_span

    if verdict not in VERDICTS:
        raise typer.BadParameter(f"'{verdict}' is no verdict; choose erase or keep", param_hint="VERDICT")
    raise typer.Exit(decide_span(listing, span, verdict, reason, by, yes))


@app.command()
def purge(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete originals of redacted rows and dead letters past their retention."""
    from petwellness_orchestration.cli.erasure import purge_originals

    raise typer.Exit(purge_originals(dry_run))


@app.command()
def privacy() -> None:
    """Look for names, addresses, phones, e-mail and the salt where they may not be; exit code 1 when found."""
    from petwellness_orchestration.cli.privacy import look_for_personal_data

    raise typer.Exit(look_for_personal_data())
