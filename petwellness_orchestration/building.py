"""Builds on the environment's warehouse: what one starts from and what is kept of it, whichever warehouse it is.

dbt itself is `defs.warehouse.dbt_run`; how raw is asked is `warehouse`; here is which of its modules an
environment means, and in whose session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from petwellness_orchestration.account import OWNING_ROLE, OWNING_WAREHOUSE, account_session
from petwellness_orchestration.loading import is_on_snowflake, open_raw
from petwellness_orchestration.observing import duckdb_ops, keep_history, open_ops
from petwellness_orchestration.resources import PlatformResource
from warehouse.ledger import PRESENT_MARK, WAREHOUSE_MARK

if TYPE_CHECKING:
    import duckdb
    from snowflake.connector import SnowflakeConnection

    from warehouse.builds.history import Build, OpsSession
    from warehouse.environments import DbtSession

ASSET = "warehouse"

_EPOCH, _MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)


@dataclass(frozen=True)
class Start:
    """What raw says before a build.

    `load_seq` is the newest load, `mark` the one up to which a whole build has gone (0: none has), `dirty` the event
    dates touched in between, `as_of_ts` the data's own present (None: no data), `built_as_of_ts` the one as of which
    the last whole build was (None: there was none). `build_seq` tells builds apart where the published copy follows
    them.
    """

    load_seq: int
    mark: int
    dirty: tuple[date, ...]
    as_of_ts: datetime | None
    built_as_of_ts: datetime | None
    build_seq: int = 0

    def present(self, is_whole: bool) -> datetime | None:
        """As of when a build judges. One of some tables reads others as the last whole build left them: to a later
        present, of loads that they have not taken in, what those brought would look like silence."""
        return self.as_of_ts if is_whole else self.built_as_of_ts or self.as_of_ts


@dataclass(frozen=True)
class Built:
    """The warehouse after dbt.

    `query` gives the rows of a statement; `keep` adds a build to the history of builds and says what went wrong with
    that; `vouch` remembers that everything was built, from what a build started from.
    """

    query: Callable[[str], Sequence[Sequence[Any]]]
    keep: Callable[[Build, Callable[[str], None]], None]
    vouch: Callable[[Start], None]


def begin_build(platform: PlatformResource, run: str) -> Start:
    """Give the warehouse its salt and say where a build starts. Raises SaltError for another salt than it has."""
    from contracts.salt import salt_of
    from warehouse.duckdb.rebuilt import begin_build as next_build_seq

    with open_raw(platform, run) as (con, raw):
        raw.put_salt(con, salt_of(platform.settings().state))
        mark = raw.build_mark(con, WAREHOUSE_MARK)
        return Start(
            load_seq=raw.latest_load_seq(con),
            mark=mark,
            dirty=tuple(raw.dirty_days(con, mark)),
            as_of_ts=raw.data_time(con),
            built_as_of_ts=_moment(raw.build_mark(con, PRESENT_MARK)),
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
    from warehouse.duckdb.raw import set_build_mark

    def query(sql: str) -> Sequence[Sequence[Any]]:
        return con.execute(sql).fetchall()

    return Built(
        query=query,
        keep=partial(keep_history, duckdb_ops(con), query),
        vouch=partial(_vouch, partial(set_build_mark, con)),
    )


def _on_snowflake(
    con: SnowflakeConnection, dbt: DbtSession | None, ops: AbstractContextManager[OpsSession]
) -> Built:
    from warehouse.snowflake.raw import set_build_mark
    from warehouse.snowflake.session import run

    query = partial(run, con)
    # A build in a schema of one's own vouches for nothing that others read, and is no part of their history.
    if dbt is not None and dbt.is_own:
        return Built(query, keep=lambda _build, _complain: None, vouch=lambda _start: None)
    return Built(
        query,
        keep=partial(keep_history, ops, query),
        vouch=partial(_vouch, partial(set_build_mark, con)),
    )


def _vouch(set_mark: Callable[[str, int], None], start: Start) -> None:
    # The present first: without the other mark the next whole build takes the same again.
    if start.as_of_ts is not None:
        set_mark(PRESENT_MARK, (start.as_of_ts - _EPOCH) // _MICROSECOND)
    set_mark(WAREHOUSE_MARK, start.load_seq)


def _moment(epoch_us: int) -> datetime | None:
    return _EPOCH + epoch_us * _MICROSECOND if epoch_us else None
