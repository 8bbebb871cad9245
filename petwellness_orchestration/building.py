"""Builds on the environment's warehouse: what one starts from and what is kept of it, whichever warehouse it is.

dbt itself is `defs.warehouse.dbt_run`; how raw is asked is `ingestion.loading`; here is which of its modules an
environment means, and in whose session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ingestion.loading.ledger import WAREHOUSE_MARK
from petwellness_orchestration.account import account_session
from petwellness_orchestration.loading import OWNING_ROLE, OWNING_WAREHOUSE, is_on_snowflake, open_raw
from petwellness_orchestration.observing import duckdb_ops, keep_history, open_ops
from petwellness_orchestration.resources import PlatformResource

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection

    from ingestion.environments import DbtSession
    from ingestion.observability.history import Build
    from ingestion.observability.sessions import OpsSession

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


@dataclass(frozen=True)
class Built:
    """The warehouse after dbt.

    `query` gives the rows of a statement; `keep` adds a build to the history of builds and says what went wrong with
    that; `vouch` remembers that everything was built up to a load.
    """

    query: Callable[[str], Sequence[Sequence[Any]]]
    keep: Callable[[Build, Callable[[str], None]], None]
    vouch: Callable[[int], None]


def begin_build(platform: PlatformResource, run: str) -> Start:
    """Give the warehouse its salt and say where a build starts. Raises SaltError for another salt than it has."""
    from ingestion.loading.rebuilt import begin_build as next_build_seq
    from ingestion.privacy.salt import salt_of

    with open_raw(platform, run) as (con, raw):
        raw.put_salt(con, salt_of(platform.settings().state))
        mark = raw.build_mark(con, WAREHOUSE_MARK)
        return Start(
            load_seq=raw.latest_load_seq(con),
            mark=mark,
            dirty=tuple(raw.dirty_days(con, mark)),
            as_of_ts=raw.data_time(con),
            build_seq=0 if is_on_snowflake(platform) else next_build_seq(con),
        )


def data_time(platform: PlatformResource, run: str) -> datetime | None:
    """The data's own present (naive UTC); None without data."""
    with open_raw(platform, run) as (con, raw):
        return raw.data_time(con)


@contextmanager
def built(platform: PlatformResource, run: str) -> Iterator[Built]:
    """The warehouse as dbt has left it, on Snowflake with the rights of dbt's role."""
    if is_on_snowflake(platform):
        with account_session(platform.settings(), OWNING_ROLE, OWNING_WAREHOUSE, ASSET, run) as session:
            yield _on_snowflake(session, platform.settings().dbt_session, open_ops(platform, ASSET, run))
    else:
        with platform.warehouse() as con:
            yield _on_duckdb(con)


def _on_duckdb(con: duckdb.DuckDBPyConnection) -> Built:
    from ingestion.loading.duckdb_raw import set_build_mark

    def query(sql: str) -> Sequence[Sequence[Any]]:
        return con.execute(sql).fetchall()

    return Built(
        query=query,
        keep=partial(keep_history, duckdb_ops(con), query),
        vouch=partial(set_build_mark, con, WAREHOUSE_MARK),
    )


def _on_snowflake(
    con: SnowflakeConnection, dbt: DbtSession | None, ops: AbstractContextManager[OpsSession]
) -> Built:
    from ingestion.loading.snowflake_connection import run
    from ingestion.loading.snowflake_raw import set_build_mark

    query = partial(run, con)
    # A build in a schema of one's own vouches for nothing that others read, and is no part of their history.
    if dbt is not None and dbt.is_own:
        return Built(query, keep=lambda _build, _complain: None, vouch=lambda _load_seq: None)
    return Built(
        query,
        keep=partial(keep_history, ops, query),
        vouch=partial(set_build_mark, con, WAREHOUSE_MARK),
    )
