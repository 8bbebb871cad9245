"""Consent and erasure under the current settings: what assets and commands call.

The ledger is `lake.redactions`, how entries come about and originals go
is `governance.erasure`; here they meet the state folder, the warehouse and the
published copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.settings import PlatformSettings
from warehouse.environments import WarehouseKind

if TYPE_CHECKING:
    import duckdb

    from governance.erasure.disputes import OpenSpan
    from governance.erasure.kept import KeptRows
    from governance.erasure.leftovers import Leftover
    from lake.disputes import Decision, Disputed
    from lake.redactions import Redaction, Redactions
    from lake.store import ObjectStore
    from ml.warehouse import Warehouse
    from warehouse.duckdb.publish import PublishedTable

# Features look this many days back, so a day that changes changes the scores of as many.
SCORE_WINDOW_DAYS = 30

Say = Callable[[str], None]


@dataclass(frozen=True)
class LeftoverReport:
    """Entries in the ledger, those past their deadline, where something of these is left, disputed spans that wait
    for a person's decision, those past their deadline among them, and what stays because a practice must keep it."""

    redactions: int
    past_deadline: int
    overdue: list[Leftover]
    waiting: int = 0
    overdue_spans: list[WaitingSpan] = field(default_factory=list)
    kept: list[KeptRows] = field(default_factory=list)


@dataclass(frozen=True)
class WaitingSpan:
    """A disputed span that nobody has decided of, and how many landed rows it holds."""

    span: OpenSpan
    rows: int

    def __str__(self) -> str:
        """Names no person, pet or device."""
        return f"{self.span.listing.listing_id} {self.span.number}: {self.rows} rows wait for a decision"


@dataclass(frozen=True)
class Decided:
    """What a decision is about, how many landed rows, and the entry; None when it was only looked at."""

    waiting: WaitingSpan
    decision: Decision | None


def take_consent_snapshot(settings: PlatformSettings, store: ObjectStore, say: Say) -> dict[str, Any]:
    """Build a consent snapshot and enter what landed without it into the ledger; the asset's metadata."""
    from governance.erasure.late import enter_late_refusals
    from ingestion.collector.consent import REASONS, build_consent_snapshot
    from lake.landing import list_manifests, utc_now

    now = utc_now()
    snapshot = build_consent_snapshot(store, now, settings.analytics_default)
    late = enter_late_refusals(
        store,
        snapshot,
        list_manifests(store),
        now,
        settings.retention.erasure_days,
        settings.jurisdictions,
    )
    for entry in late.entered:
        say(f"redaction {entry.redaction_id}: {entry.kind}, to be gone by {entry.deadline:%Y-%m-%d %H:%M}")
    if late.listed is not None:
        say(
            f"{late.listed.listing_id}: {len(late.listed.spans)} spans that several pets claim wait for a person, "
            f"to be decided by {late.listed.deadline:%Y-%m-%d %H:%M} (`petwellness erasures`)"
        )
    return {
        "snapshot_id": snapshot.snapshot_id,
        "analytics_default": snapshot.analytics_default.value,
        "opted_out_intervals": len(snapshot.opted_out),
        **{
            f"intervals_{reason}": sum(one.reason == reason for one in snapshot.opted_out)
            for reason in REASONS
        },
        "redactions_entered": len(late.entered),
        "disputed_spans": len(snapshot.disputed),
        "ranges_examined": late.ranges_examined,
    }


def purge_everything(
    settings: PlatformSettings, store: ObjectStore, say: Say, dry_run: bool = False
) -> dict[str, Any]:
    """Delete originals of what the ledger covers (what a practice must keep is put aside, until its term is over),
    old dead letters, files of cold storage whose day has come
    back without redacted rows, published files out of force, what Dagster's storage says of erased households and
    what the warehouse file still holds in unused blocks; with `dry_run` only count. The asset's metadata."""
    from governance.erasure.purge import purge
    from lake.landing import list_manifests, utc_now
    from lake.redactions import load_redactions
    from petwellness_orchestration.dagster_erasure import erase_from_dagster, values_to_erase
    from petwellness_orchestration.retaining import withdraw_outdated

    # First: once its originals are gone nobody knows a household's names and addresses.
    texts = erase_from_dagster(settings, values_to_erase(load_redactions(store), store), dry_run)
    report = purge(
        store, list_manifests(store), utc_now(), settings.retention.rejects_days, dry_run, progress=say
    )
    return {
        "ranges": report.ranges,
        "redacted_rows": report.redacted_rows,
        "kept_rows": report.kept_rows,
        "cleared_payloads": report.cleared_payloads,
        "deleted_objects": report.deleted_objects,
        "expired_rejects": report.expired_rejects,
        "kept_files_expired": report.expired_kept,
        "audits": report.audits,
        "dagster_texts_erased": texts,
        "cold_files_removed": withdraw_outdated(settings, store, say, dry_run),
        "published_files_retired": _retire_published(settings, load_redactions(store), dry_run),
        "warehouse_rewritten": _rewrite(settings, say, dry_run),
    }


def _retire_published(settings: PlatformSettings, redactions: Redactions, dry_run: bool) -> int:
    from warehouse.duckdb.publish import files_out_of_force, retire

    if not redactions:
        return 0
    old = files_out_of_force(settings.state.published_dir, max(entry.requested_at for entry in redactions))
    if not dry_run:
        retire(old)
    return len(old)


def _rewrite(settings: PlatformSettings, say: Say, dry_run: bool) -> bool:
    from warehouse.duckdb.raw import needs_rewriting, open_warehouse, rewrite_warehouse

    if settings.environment.warehouse is not WarehouseKind.DUCKDB or not settings.warehouse_path.exists():
        return False
    path = settings.warehouse_path
    with open_warehouse(path) as con:
        needed = needs_rewriting(con)
    if needed and not dry_run:
        say("rewriting the warehouse file, so that no block of it holds deleted rows")
        rewrite_warehouse(path)
    return needed


def forget_redacted_scores(warehouse: Warehouse, store: ObjectStore, redacted: Iterable[date]) -> int:
    """Delete the scores of erased pets and of days whose features change with a redaction (`redacted` lost rows to
    it), and what is kept of superseded features there; returns how many scores."""
    from lake.redactions import load_redactions
    from ml.datasets import forget_superseded_features
    from ml.scoring import forget_scores

    days = {day + timedelta(days=later) for day in redacted for later in range(SCORE_WINDOW_DAYS)}
    pet_ids = sorted(load_redactions(store).pet_ids)
    forget_superseded_features(warehouse, pet_ids, sorted(days))
    return forget_scores(warehouse, pet_ids, sorted(days))


def scores_to_republish(con: duckdb.DuckDBPyConnection, folder: Path) -> list[PublishedTable]:
    """The table of scores once there are redactions: erasure does not wait for the next scoring. After a
    rebuild there are no scores yet, and none are published until then."""
    from ml.scoring import SCORES_SCHEMA, SCORES_TABLE, write_scores
    from ml.warehouse import DuckDBWarehouse
    from warehouse.duckdb.publish import PublishedTable, read_catalogue

    redacted = con.execute("select 1 from raw.redactions limit 1").fetchall()
    if not redacted or SCORES_TABLE not in read_catalogue(folder).get("tables", {}):
        return []
    write_scores(DuckDBWarehouse(con), SCORES_SCHEMA.empty_table(), [])
    schema, name = SCORES_TABLE.split(".")
    return [PublishedTable(schema, name, tuple(SCORES_SCHEMA.names), day_column="event_date")]


def find_leftovers(settings: PlatformSettings, store: ObjectStore) -> LeftoverReport:
    """Everything that is left of entries past their deadline, and disputed spans that nobody has decided of."""
    from governance.erasure.kept import kept_rows
    from governance.erasure.leftovers import due
    from lake.landing import utc_now
    from lake.redactions import load_redactions

    redactions, now = load_redactions(store), utc_now()
    late = due(redactions, now)
    found = places(settings, store, late, now) if late else []
    waiting = waiting_spans(store, redactions)
    overdue = [one for one in waiting if one.rows and one.span.listing.deadline <= now]
    kept = kept_rows(store, redactions)
    return LeftoverReport(len(redactions.entries), len(late.entries), found, len(waiting), overdue, kept)


def kept_of(store: ObjectStore, redactions: Redactions) -> list[KeptRows]:
    """What stays, or will stay, of these entries because a practice must keep it: put aside, or still landed."""
    from governance.erasure.kept import kept_rows, rows_to_keep
    from lake.landing import list_manifests, utc_now
    from lake.replacements import load_replacements

    landed = list_manifests(store)
    return [
        *kept_rows(store, redactions),
        *rows_to_keep(store, landed, redactions, load_replacements(store), utc_now()),
    ]


def waiting_spans(store: ObjectStore, redactions: Redactions) -> list[WaitingSpan]:
    """Disputed spans that wait for a person's decision."""
    from governance.erasure.disputes import count_rows, open_spans
    from lake.landing import list_manifests
    from lake.replacements import load_replacements

    spans = open_spans(store, redactions)
    if not spans:
        return []
    counts = count_rows(store, spans, list_manifests(store), redactions, load_replacements(store))
    return [WaitingSpan(span, rows) for span, rows in zip(spans, counts, strict=True)]


def disputed_of(store: ObjectStore, owner_id: str) -> list[Disputed]:
    """What an erasure of the household would list for a person to decide. Raises UnknownHouseholdError."""
    from governance.erasure.scope import find_household, household_stretches
    from lake.redactions import load_redactions

    redactions = load_redactions(store)
    _, disputed = household_stretches(store, find_household(store, owner_id, redactions), redactions)
    return disputed


def decide(
    settings: PlatformSettings,
    store: ObjectStore,
    listing_id: str,
    number: int,
    verdict: str,
    decided_by: str,
    reason: str,
    say: Say,
    dry_run: bool,
) -> Decided:
    """Decide of a disputed span. That it goes is honoured as an erasure or a refusal is: what has landed enters
    the redaction ledger, what is still to come is dropped. A run that dies in between is finished by the next
    consent snapshot. Raises UnknownSpanError."""
    from governance.erasure.disputes import decide, find_open
    from ingestion.collector.consent import ERASED
    from lake.disputes import ERASE
    from lake.landing import utc_now
    from lake.redactions import load_redactions

    waiting = waiting_spans(store, load_redactions(store))
    found = find_open([one.span for one in waiting], listing_id, number)
    [chosen] = [one for one in waiting if one.span is found]
    if dry_run:
        return Decided(chosen, None)
    decision = decide(store, found, verdict, decided_by, reason, utc_now())
    if verdict == ERASE:
        for owner_id in sorted({part.owner_id for part in found.parts if part.reason == ERASED}):
            request_erasure(settings, store, owner_id, reason, dry_run=False)
        take_consent_snapshot(settings, store, say)
    return Decided(chosen, decision)


def places(
    settings: PlatformSettings, store: ObjectStore, redactions: Redactions, now: datetime | None = None
) -> list[Leftover]:
    """Where rows of these entries are: objects of the lake, tables of the environment's warehouse, published files,
    Dagster's storage. With `now`, what landed so recently that its own time is not up does not count.

    Raises SnowflakeError where the account cannot be asked: what nobody looked for is not gone.
    """
    from governance.erasure.kept import kept_leftovers
    from governance.erasure.leftovers import cold_leftovers, lake_leftovers, published_leftovers
    from lake.landing import list_manifests, utc_now
    from lake.replacements import load_replacements
    from petwellness_orchestration.dagster_erasure import dagster_leftovers, values_to_erase

    found = lake_leftovers(store, list_manifests(store), redactions, load_replacements(store), now)
    found += kept_leftovers(store, redactions, now or utc_now())
    found += cold_leftovers(store, redactions)
    found += _in_the_warehouse(settings, redactions)
    found += published_leftovers(settings.state.published_dir, redactions)
    return found + dagster_leftovers(settings, values_to_erase(redactions, store))


def _in_the_warehouse(settings: PlatformSettings, redactions: Redactions) -> list[Leftover]:
    if settings.environment.warehouse is WarehouseKind.SNOWFLAKE:
        from governance.erasure.account_leftovers import account_leftovers
        from petwellness_orchestration.account import COMMAND, OWNING_ROLE, OWNING_WAREHOUSE, account_session

        with account_session(
            settings, OWNING_ROLE, OWNING_WAREHOUSE, "landing/redactions", COMMAND
        ) as account:
            return account_leftovers(account, redactions)
    from governance.erasure.leftovers import warehouse_leftovers
    from warehouse.duckdb.raw import open_warehouse

    if not settings.warehouse_path.exists():
        return []
    with open_warehouse(settings.warehouse_path) as con:
        return warehouse_leftovers(con, redactions)


def request_erasure(
    settings: PlatformSettings, store: ObjectStore, owner_id: str, reason: str, dry_run: bool
) -> Redaction | None:
    """Enter a household's erasure into the ledger; None when the ledger covers everything of it.

    Raises UnknownHouseholdError.
    """
    from governance.erasure.scope import request_erasure
    from lake.landing import list_manifests, utc_now
    from lake.redactions import load_redactions
    from lake.replacements import load_replacements

    return request_erasure(
        store,
        owner_id,
        reason,
        utc_now(),
        settings.retention.erasure_days,
        load_redactions(store),
        load_replacements(store),
        list_manifests(store),
        dry_run,
        settings.jurisdictions,
    )
