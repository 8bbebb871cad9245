"""Raw on the environment's warehouse: one load, one reconciliation, whichever it is.

What they do is `warehouse`; here is which of its modules an environment means, and in whose session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

from petwellness_orchestration import names
from petwellness_orchestration.account import (
    OWNING_ROLE,
    OWNING_WAREHOUSE,
    account_session,
    account_warehouse,
)
from petwellness_orchestration.resources import PlatformResource
from warehouse.environments import WarehouseKind
from warehouse.ledger import SCORES_MARK

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

    from lake.landing import Manifest
    from lake.layout import RangeKey
    from lake.store import ObjectStore
    from ml.warehouse import Warehouse
    from warehouse.ledger import LoadReport
    from warehouse.reconcile import RawRange, Reconciliation
    from warehouse.snowflake.reconcile import AccountFindings


# Of config/business_role.yaml and config/warehouse.yaml.
ROLE, WAREHOUSE = "ingestion", "loading_wh"


@dataclass(frozen=True)
class Loaded:
    """A load, the rows of every table of raw after it, and what else the warehouse has to say of it."""

    report: LoadReport
    totals: dict[str, int]
    more: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Reconciled:
    """A reconciliation, and how many ranges an earlier one vouched for."""

    result: Reconciliation
    vouched: int


def is_on_snowflake(platform: PlatformResource) -> bool:
    return platform.settings().environment.warehouse is WarehouseKind.SNOWFLAKE


@contextmanager
def loading_session(platform: PlatformResource, run: str) -> Iterator[SnowflakeConnection]:
    """The loader's session. Raises NotOnThisWarehouseError and what `open_snowflake` raises."""
    asset = names.LOAD_HISTORY.to_user_string()
    with account_session(platform.settings(), ROLE, WAREHOUSE, asset, run) as con:
        yield con


@contextmanager
def open_raw(platform: PlatformResource, run: str) -> Iterator[tuple[Any, ModuleType]]:
    """A connection to raw, and the module that knows how to ask it: `duckdb.raw` or `snowflake.raw`, whose functions
    of one name mean the same."""
    if is_on_snowflake(platform):
        from warehouse.snowflake import raw as snowflake_raw

        with loading_session(platform, run) as session:
            yield session, snowflake_raw
    else:
        from warehouse.duckdb import raw as duckdb_raw

        with platform.warehouse() as con:
            yield con, duckdb_raw


def load(platform: PlatformResource, run: str, say: Callable[[str], None]) -> Loaded:
    """Load every landed range that the ledger does not hold; take out what new redactions cover."""
    return _load_snowflake(platform, run, say) if is_on_snowflake(platform) else _load_duckdb(platform, say)


def _load_duckdb(platform: PlatformResource, say: Callable[[str], None]) -> Loaded:
    from lake.landing import list_manifests
    from ml.warehouse import DuckDBWarehouse
    from warehouse.duckdb import raw as duckdb_raw
    from warehouse.duckdb.raw import load_pending, loaded_keys, table_row_counts

    store = platform.store()
    with platform.warehouse(store) as con:
        manifests = list_manifests(store, known=loaded_keys(con))
        report = load_pending(con, store, manifests, progress=say)
        forgotten = _forget_scores(con, duckdb_raw, nullcontext(DuckDBWarehouse(con)), store)
        return Loaded(report, table_row_counts(con, "raw"), {"scores_forgotten": forgotten})


def _load_snowflake(platform: PlatformResource, run: str, say: Callable[[str], None]) -> Loaded:
    from lake.landing import list_manifests
    from warehouse.snowflake import raw as snowflake_raw
    from warehouse.snowflake.raw import load_pending, loaded_keys, table_row_counts
    from warehouse.snowflake.settings import SnowflakeSettings

    patience = SnowflakeSettings()
    store = platform.store()
    with loading_session(platform, run) as con:
        report = load_pending(
            con,
            store,
            list_manifests(store, known=loaded_keys(con)),
            platform.pipes(con),
            patience.pipe_grace_s,
            patience.pipe_drain_s,
            say,
        )
        owner = account_warehouse(
            platform.settings(), OWNING_ROLE, OWNING_WAREHOUSE, names.LOAD_HISTORY.to_user_string(), run
        )
        more = {
            "ranges_adopted": report.adopted,
            "ranges_copied": report.copied,
            "ranges_mended": report.mended,
            names.RANGES_WAITING: report.waiting,
            "scores_forgotten": _forget_scores(con, snowflake_raw, owner, store),
        }
        return Loaded(report, table_row_counts(con, "raw"), more)


def _forget_scores(
    con: Any, raw: ModuleType, warehouse: AbstractContextManager[Warehouse], store: ObjectStore
) -> int:
    """Forget the scores that redactions touch which were applied since this was last done: a load may have died
    between the two."""
    from petwellness_orchestration.erasing import forget_redacted_scores

    newest = raw.latest_load_seq(con)
    redacted = raw.redacted_days(con, raw.build_mark(con, SCORES_MARK))
    if redacted is None:
        return 0
    with warehouse as opened:
        forgotten = forget_redacted_scores(opened, store, redacted)
    raw.set_build_mark(con, SCORES_MARK, newest)
    return forgotten


def reconcile_raw(platform: PlatformResource, run: str) -> Reconciled:
    """The law of the landing protocol over every range that no build has taken up yet, and every claim's place."""
    return _reconcile_snowflake(platform, run) if is_on_snowflake(platform) else _reconcile_duckdb(platform)


def _reconcile_duckdb(platform: PlatformResource) -> Reconciled:
    from lake.landing import list_manifests
    from warehouse.duckdb.raw import last_load_started_at, loaded_keys, vouched_seq
    from warehouse.reconcile import LANDING_GRACE, read_raw_ranges

    store = platform.store()
    with platform.warehouse() as con:
        since_seq = vouched_seq(con)
        vouched = loaded_keys(con, until_seq=since_seq)
        manifests = list_manifests(store, known=vouched)
        claimed_from = min((m.ingested_at for m in manifests), default=datetime.max)
        raw_ranges, orphan_rows = read_raw_ranges(con, since_seq, claimed_from)
        load_started_at = last_load_started_at(con)
    beside = platform.settings().collector.as_service
    settled_before = load_started_at - LANDING_GRACE if beside and load_started_at else None
    return _reconciled(store, manifests, vouched, raw_ranges, orphan_rows, settled_before)


def _reconcile_snowflake(platform: PlatformResource, run: str) -> Reconciled:
    from lake.landing import list_manifests, utc_now
    from warehouse.reconcile import LANDING_GRACE
    from warehouse.snowflake.raw import last_load_started_at, loaded_keys, vouched_seq
    from warehouse.snowflake.reconcile import read_orphans, read_raw_ranges
    from warehouse.snowflake.settings import SnowflakeSettings

    store = platform.store()
    with loading_session(platform, run) as con:
        since_seq = vouched_seq(con)
        vouched = loaded_keys(con, until_seq=since_seq)
        manifests = list_manifests(store, known=vouched)
        claimed_from = min((m.ingested_at for m in manifests), default=utc_now())
        # What its pipe may still bring is on its way.
        grace = max(LANDING_GRACE, timedelta(seconds=SnowflakeSettings().pipe_grace_s))
        settled_before = (last_load_started_at(con) or utc_now()) - grace
        raw_ranges = read_raw_ranges(con, since_seq, claimed_from)
        orphan_rows = sum(found.rows for found in read_orphans(con, claimed_from, settled_before))
    return _reconciled(store, manifests, vouched, raw_ranges, orphan_rows, settled_before)


def _reconciled(
    store: ObjectStore,
    manifests: list[Manifest],
    vouched: set[RangeKey],
    raw_ranges: dict[RangeKey, RawRange],
    orphan_rows: int,
    settled_before: datetime | None,
) -> Reconciled:
    from lake.landing import list_claims
    from lake.quarantine import load_quarantine
    from warehouse.reconcile import reconcile

    result = reconcile(
        list_claims(store),
        manifests,
        raw_ranges,
        orphan_rows,
        settled_before,
        vouched,
        load_quarantine(store),
    )
    return Reconciled(result, len(vouched))


def reconcile_account(
    platform: PlatformResource, run: str, is_dead: Callable[[str], bool] = lambda _: False
) -> AccountFindings:
    """Everything in lake, ledger, raw, pipes and copy history that does not agree, over all ranges."""
    from lake.landing import utc_now
    from warehouse.snowflake.reconcile import account_findings
    from warehouse.snowflake.settings import SnowflakeSettings

    store = platform.store()
    with loading_session(platform, run) as con:
        return account_findings(
            con, store, platform.pipes(con), utc_now(), SnowflakeSettings().pipe_grace_s, is_dead
        )


def forget(platform: PlatformResource, run: str, manifests: Iterable[Manifest]) -> int:
    """Take ranges out of raw and ledger, so that the next load brings them again; the rows that were there."""
    with open_raw(platform, run) as (con, raw):
        return int(raw.forget_ranges(con, manifests))
