"""Builds on the environment's warehouse: what one starts from and what is kept of it, whichever warehouse it is.

dbt itself is `defs.warehouse.dbt_run`; how raw is asked is `ingestion.loading`; here is which of its modules an
environment means, and in whose session.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Protocol

from petwellness_orchestration.account_usage import account_session
from petwellness_orchestration.loading import is_on_snowflake, loading_session
from petwellness_orchestration.observing import TableCount, count_tables, keep_history
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection

    from ingestion.observability.history import Build
    from petwellness_orchestration.defs.warehouse.dbt_run import DbtRun

# Of config/business_role.yaml and config/warehouse.yaml.
ROLE, WAREHOUSE = "transformer", "transforming_wh"
ASSET = "warehouse"


@dataclass(frozen=True)
class Start:
    """What raw says before a build.

    `load_seq` is the newest load, `mark` the one up to which a whole build has gone (0: none has), `dirty` the event
    dates touched in between, `as_of_ts` the data's own present (None: no data). `build_seq` tells builds apart where
    the published copy follows them.
    """

    load_seq: int
    mark: int
    dirty: tuple[date, ...]
    as_of_ts: datetime | None
    build_seq: int = 0


class Built(Protocol):
    """The warehouse after dbt."""

    def count(
        self, run: DbtRun, manifest: Mapping[str, Any], days: Collection[date]
    ) -> dict[str, TableCount]:
        """Rows of what the run built, as `observing.count_tables`."""

    def keep(self, build: Build, complain: Callable[[str], None]) -> None:
        """Add the build to the history of builds, where there is one."""

    def vouch(self, load_seq: int) -> None:
        """Remember that everything was built up to a load."""


def begin_build(platform: PlatformResource, run: str) -> Start:
    """Give the warehouse its salt and say where a build starts. Raises SaltError for another salt than it has."""
    return _begin_snowflake(platform, run) if is_on_snowflake(platform) else _begin_duckdb(platform)


def _begin_duckdb(platform: PlatformResource) -> Start:
    from ingestion.loading import duckdb_raw
    from ingestion.loading.rebuilt import begin_build
    from ingestion.privacy.salt import put_salt, salt_of

    with platform.warehouse() as con:
        put_salt(con, salt_of(platform.settings().state))
        mark = duckdb_raw.build_mark(con, duckdb_raw.WAREHOUSE_MARK)
        return Start(
            load_seq=duckdb_raw.latest_load_seq(con),
            mark=mark,
            dirty=tuple(duckdb_raw.dirty_days(con, mark)),
            as_of_ts=duckdb_raw.data_time(con),
            build_seq=begin_build(con),
        )


def _begin_snowflake(platform: PlatformResource, run: str) -> Start:
    from ingestion.loading import snowflake_raw
    from ingestion.loading.ledger import WAREHOUSE_MARK
    from ingestion.privacy.salt import salt_of

    # The loader's role: dbt's may not write the salt.
    with loading_session(platform, run) as con:
        snowflake_raw.put_salt(con, salt_of(platform.settings().state))
        mark = snowflake_raw.build_mark(con, WAREHOUSE_MARK)
        return Start(
            load_seq=snowflake_raw.latest_load_seq(con),
            mark=mark,
            dirty=tuple(snowflake_raw.dirty_days(con, mark)),
            as_of_ts=snowflake_raw.data_time(con),
        )


def data_time(platform: PlatformResource, run: str) -> datetime | None:
    """The data's own present (naive UTC); None without data."""
    from ingestion.loading import duckdb_raw, snowflake_raw

    if is_on_snowflake(platform):
        with loading_session(platform, run) as session:
            return snowflake_raw.data_time(session)
    with platform.warehouse() as con:
        return duckdb_raw.data_time(con)


@contextmanager
def built(platform: PlatformResource, run: str) -> Iterator[Built]:
    """The warehouse as dbt has left it."""
    settings = platform.settings()
    if is_on_snowflake(platform):
        with account_session(settings, ROLE, WAREHOUSE, ASSET, run) as session:
            is_own = settings.dbt_session is not None and settings.dbt_session.is_own
            yield _BuiltOnSnowflake(session, is_own)
    else:
        with platform.warehouse() as con:
            yield _BuiltOnDuckDb(con)


@dataclass(frozen=True)
class _BuiltOnDuckDb:
    con: duckdb.DuckDBPyConnection

    def count(
        self, run: DbtRun, manifest: Mapping[str, Any], days: Collection[date]
    ) -> dict[str, TableCount]:
        return count_tables(lambda sql: self.con.execute(sql).fetchall(), run, manifest, days)

    def keep(self, build: Build, complain: Callable[[str], None]) -> None:
        keep_history(self.con, build, complain)

    def vouch(self, load_seq: int) -> None:
        from ingestion.loading import duckdb_raw

        duckdb_raw.set_build_mark(self.con, duckdb_raw.WAREHOUSE_MARK, load_seq)


@dataclass(frozen=True)
class _BuiltOnSnowflake:
    con: SnowflakeConnection
    # In a schema of one's own, which vouches for nothing that others read.
    is_own: bool

    def count(
        self, run: DbtRun, manifest: Mapping[str, Any], days: Collection[date]
    ) -> dict[str, TableCount]:
        from ingestion.loading.snowflake_connection import run as rows_of

        return count_tables(lambda sql: rows_of(self.con, sql), run, manifest, days)

    def keep(self, build: Build, complain: Callable[[str], None]) -> None:
        """Nothing: the account keeps the history of its queries by the tags that dbt sets."""

    def vouch(self, load_seq: int) -> None:
        from ingestion.loading import snowflake_raw
        from ingestion.loading.ledger import WAREHOUSE_MARK

        if not self.is_own:
            snowflake_raw.set_build_mark(self.con, WAREHOUSE_MARK, load_seq)
