"""Commands that run one part of the graph, and the two that look at or replace the warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.cli.console import mebibytes, say, thousands, warn
from petwellness_orchestration.cli.runs import CHECK_EVERYTHING, EVERYTHING, REFRESH, RunOutcome, run_job
from petwellness_orchestration.lake_access import open_lake
from petwellness_orchestration.settings import PlatformSettings, load_settings

if TYPE_CHECKING:
    import duckdb


def land_records() -> int:
    """Land the source's record extracts, then take the consent snapshot."""
    return finish(
        run_job(
            load_settings(),
            EVERYTHING,
            ["group:landing and not key:landing/telemetry_events and not key:landing/telemetry_compacted"],
        )
    )


def collect_telemetry() -> int:
    """Drain the topics to the present; 1, too, when a source's rejects will hold up the build.

    Then everything has landed all the same: who collects, loads and builds in a row shall stop here.
    """
    settings = load_settings()
    return finish_collecting(run_job(settings, EVERYTHING, ["landing/telemetry_events"]), settings)


def finish_collecting(outcome: RunOutcome, settings: PlatformSettings) -> int:
    """As `finish`, and what arrived; 1 when rejects of it will stop runs before the build."""
    code = finish(outcome)
    if not outcome.success or not show_arrivals(settings):
        return code
    warn("landed, and stops before the build: see docs/runbooks/README.md, Rejects")
    return 1


def load_raw() -> int:
    """Load and reconcile; 1 when lake and raw disagree, or a source's rejects hold up the build."""
    settings = load_settings()
    outcome = run_job(settings, EVERYTHING, ["group:raw"])
    code = finish(outcome)
    # A run that a check stopped has loaded; one that failed before has nothing to say of it.
    if outcome.success or outcome.checks:
        show_arrivals(settings)
    return code


def show_arrivals(settings: PlatformSettings) -> bool:
    """Print rejects by source and what devices nobody registered; whether that holds up the build."""
    from lake.landing import list_manifests
    from petwellness_orchestration.arrivals import arrival_lines, look_at_devices, look_at_sources

    store = open_lake(settings)
    manifests = list_manifests(store)
    sources = look_at_sources(store, manifests, settings)
    print("\n".join(arrival_lines(sources, look_at_devices(store, manifests))), flush=True)
    return any(source.verdict.blocks for source in sources)


def build_models(full_refresh: bool) -> int:
    """Build and test the dbt models; 1 when a test that guards a contract fails."""
    if full_refresh:
        forget_builds()
    return finish(run_job(load_settings(), REFRESH, ["group:stg or group:cur or group:anl or group:ml"]))


def check_everything() -> int:
    """Every check over every day; 1 when one of them fails (not: warns)."""
    return finish_checks(run_job(load_settings(), CHECK_EVERYTHING))


def finish_checks(outcome: RunOutcome) -> int:
    """As `finish`, and 1 with a line that counts them when checks failed that stop no run."""
    code = finish(outcome)
    failed = sum(check.status == "failed" for check in outcome.checks)
    if failed and not code:
        warn(f"{failed} checks failed")
    return 1 if failed else code


def publish_tables() -> int:
    """Publish what changed."""
    return finish(run_job(load_settings(), EVERYTHING, ["group:published"]))


def forget_builds() -> None:
    """Make every day and every model of records count as dirty for the next build."""
    from petwellness_orchestration.account import COMMAND
    from petwellness_orchestration.loading import open_raw
    from petwellness_orchestration.resources import PlatformResource
    from warehouse.ledger import WAREHOUSE_MARK

    with open_raw(PlatformResource(), COMMAND) as (con, raw):
        raw.set_build_mark(con, WAREHOUSE_MARK, 0)
        raw.forget_model_marks(con)


def rebuild_warehouse(confirmed: bool, compare: bool = False) -> int:
    """Drop the warehouse file and build it again from the lake; without `confirmed` only say so.

    With `compare` 1, too, when a table is not what it was.
    """
    import shutil

    import duckdb

    from warehouse.builds.sessions import carry_over

    settings = load_settings()
    path = settings.warehouse_path
    if not path.exists():
        warn(f"there is no warehouse at {path}; `petwellness load` creates one from the lake")
        return 1
    size = mebibytes(path.stat().st_size)
    if not confirmed:
        say(
            f"would delete {path} ({size}) and rebuild it from {settings.lake.resolved_url(settings.state.home)}"
        )
        say("nothing was changed; add --yes to do it")
        return 0
    before = path.with_name(f"{path.stem}_before{path.suffix}")
    if compare:
        shutil.copyfile(path, before)
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        kept = f"kept the history of {carry_over(path, fresh)} builds"
    except duckdb.Error as error:
        # A rebuild is also the way out of a broken file.
        fresh.unlink(missing_ok=True)
        kept = f"its history of builds could not be read ({str(error).splitlines()[0]})"
    # A write-ahead log that was left belongs to the file that goes.
    path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    if fresh.exists():
        fresh.replace(path)
    else:
        path.unlink()
    say(f"deleted {path} ({size}); {kept}")
    code = finish(run_job(settings, REFRESH))
    if not compare:
        return code
    try:
        return code or finish_comparison(before, path)
    finally:
        # Rows that are erased from the warehouse from now on would stay in it.
        before.unlink()


def finish_comparison(before: Path, after: Path) -> int:
    """Say what a rebuild changed: tables and columns, no values, which may be a person's. 1 when anything."""
    import duckdb

    with (
        duckdb.connect(str(before), read_only=True) as old,
        duckdb.connect(str(after), read_only=True) as new,
    ):
        tables = [*dict.fromkeys([*_rebuilt_tables(old), *_rebuilt_tables(new)])]
        found = {table: what for table in tables if (what := _difference(old, new, table))}
    for table, what in found.items():
        warn(f"{table} differs in {what}")
    if found:
        warn(f"{len(found)} of {len(tables)} tables are not what they were before the rebuild")
        return 1
    say(f"{len(tables)} tables are what they were before the rebuild, row by row")
    return 0


def _rebuilt_tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    """What the lake gives again: records, telemetry and all that dbt builds. Scores are the model's."""
    from contracts.registry import FEEDS
    from ml.scoring import SCORES_TABLE
    from warehouse.environments import LAYERS

    found = con.execute(
        "select table_schema || '.' || table_name from information_schema.tables"
        " where table_schema in (select unnest(?)) or table_schema = 'raw' and table_name in (select unnest(?))"
        " order by all",
        [[*LAYERS], [*FEEDS]],
    ).fetchall()
    return [name for (name,) in found if name != SCORES_TABLE]


def _difference(old: duckdb.DuckDBPyConnection, new: duckdb.DuckDBPyConnection, table: str) -> str:
    """Where a table differs; empty where it does not."""
    from warehouse.compare import ComparisonError, compare_tables

    if not all(table in _rebuilt_tables(con) for con in (old, new)):
        return "being there"
    try:
        differences = compare_tables(old, table, new, table)
    except ComparisonError:
        return "its columns"
    return ", ".join(sorted({one.column or "rows" for one in differences}))


def show_status() -> int:
    """What has landed, been loaded, built and published."""
    from lake.landing import list_manifests
    from lake.quarantine import load_quarantine
    from warehouse.duckdb.publish import read_catalogue
    from warehouse.ledger import WAREHOUSE_MARK

    settings = load_settings()
    store = open_lake(settings)
    manifests = list_manifests(store)
    print(f"state      {settings.state.home}")
    print(f"lake       {store.url}")
    print(
        f"landed     {thousands(len(manifests))} ranges, {thousands(sum(m.rows for m in manifests))} rows, "
        f"{mebibytes(sum(m.bytes for m in manifests))}"
    )
    show_arrivals(settings)
    is_embedded = settings.environment.snowflake is None
    if is_embedded and not settings.warehouse_path.exists():
        print("warehouse  none yet; `make demo` or `petwellness load` creates it")
        return 0
    with _raw_to_read(settings) as (con, raw):
        waiting = len({m.range_key for m in manifests} - raw.loaded_keys(con))
        newest = raw.latest_load_seq(con)
        built = raw.build_mark(con, WAREHOUSE_MARK)
        dirty = raw.dirty_days(con, built)
        quarantine = load_quarantine(store)
        unapplied = {*quarantine.ids} - raw.applied_redactions(con)
    print(f"loaded     {thousands(newest)} loads; {thousands(waiting)} ranges wait to be loaded")
    print(f"built      up to load {built}; {len(dirty)} event days wait to be built")
    if quarantine.entries:
        waits = f"; {len(unapplied)} entries or releases wait to be loaded" if unapplied else ""
        print(f"quarantine {len(quarantine.in_force)} entries in force{waits}")
    if is_embedded:
        catalogue = read_catalogue(settings.state.published_dir)
        print(f"published  version {catalogue.get('version', 0)}, {len(catalogue.get('tables', {}))} tables")
    return 0


@contextmanager
def _raw_to_read(settings: PlatformSettings) -> Iterator[tuple[Any, ModuleType]]:
    """As `open_raw`; of DuckDB read only, which several may at once."""
    from petwellness_orchestration.account import COMMAND
    from petwellness_orchestration.loading import open_raw
    from petwellness_orchestration.resources import PlatformResource
    from warehouse.duckdb import raw as duckdb_raw

    if settings.environment.snowflake is not None:
        with open_raw(PlatformResource(), COMMAND) as found:
            yield found
    else:
        with duckdb_raw.open_warehouse(settings.warehouse_path, read_only=True) as con:
            yield con, duckdb_raw


def finish(outcome: RunOutcome) -> int:
    """Say how the run ended; the exit code."""
    for check in outcome.checks:
        if check.status != "passed":
            say(
                f"check {check.asset}:{check.name} {check.status}{f': {check.reason}' if check.reason else ''}"
            )
    if outcome.success:
        passed = sum(check.status == "passed" for check in outcome.checks)
        say(f"done; {passed} checks passed")
        return 0
    warn(outcome.error or "the run failed; see it in the Dagster UI (`make dev`)")
    return 1
