"""The pipes that bring landed files into `raw`: what they say of themselves, and holding one still.

The loader and the pipes write the same tables. Whoever copies files by name first
pauses the pipe and waits until it has loaded what it had queued; a mark in
`raw.build_marks` says whose pause it is, so that one left by a run that died is ended
by the next, and one made by hand stays. What Snowflake is asked is in
`SnowflakePipes`; no emulator answers it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from warehouse.gaps import Gap, Kind
from warehouse.snowflake.session import PrivilegeMissingError, SnowflakeError, run, run_many
from warehouse.snowflake.sql import RAW

if TYPE_CHECKING:
    from snowflake.connector import SnowflakeConnection

RUNNING, PAUSED = "RUNNING", "PAUSED"
# Ours: the account has no such pipe, or the role does not see it.
MISSING = "MISSING"

MARK_PREFIX = "paused pipe "
POLL_S = 2.0

# How long a pipe remembers the files it has loaded.
MEMORY = timedelta(days=14)
# Between a file's landing and its notification there are seconds, now and then minutes.
NOTIFICATION_GRACE = timedelta(minutes=30)

APPLY = "`python -m infrastructure.snowflake apply`"
PIPE_MISSING = Kind(
    "pipe missing", "no pipe, or the role does not see it", f"{APPLY} makes it and grants MONITOR"
)
PIPE_PAUSED = Kind(
    "pipe paused",
    "paused by hand, or by a load that died",
    "the next load resumes a pause of a load; by hand: `alter pipe ... set pipe_execution_paused = false`",
)
PIPE_STOPPED = Kind(
    "pipe stopped",
    "stopped by Snowflake",
    f"mend what the state names ({APPLY}), then `select system$pipe_force_resume('...')`; loads go on by COPY INTO",
)
PIPE_FAILING = Kind(
    "pipe failing",
    "reports an error",
    "see its copy history; files it skipped are loaded, or refused by name, by the next load",
)
PIPE_DEAF = Kind(
    "pipe deaf",
    "gets no notifications",
    "set the bucket's notifications to the queue that `show pipes` names; loads go on by COPY INTO",
)
PIPE_RECREATED = Kind(
    "pipe recreated",
    "made anew: does not remember what it loaded before",
    "nothing: rows it brings twice are removed by the next load; do not `alter pipe ... refresh`",
    is_open=False,
)
FILE_SKIPPED = Kind(
    "file skipped",
    "a pipe could not load a file",
    "the next load tries by COPY INTO, and names what is wrong with the file if it cannot either",
    is_open=False,
)


class PipeBusyError(SnowflakeError):
    """A paused pipe still had files to load when its time was over; nothing was copied, it runs again."""


class PipeAnswerError(SnowflakeError):
    """Snowflake's answer about a pipe cannot be read."""


@dataclass(frozen=True)
class PipeStatus:
    """What a pipe says of itself; times are naive UTC, None where it says nothing.

    `pending_files` are queued for loading; `error` is its own text, of the last failure.
    """

    feed: str
    state: str
    pending_files: int = 0
    received_at: datetime | None = None
    forwarded_at: datetime | None = None
    ingested_at: datetime | None = None
    channel: str | None = None
    error: str | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether it brings nothing until somebody lets it: not running, and nothing queued."""
        return self.state != RUNNING and self.pending_files == 0


def parse_status(feed: str, answer: str) -> PipeStatus:
    """The answer of SYSTEM$PIPE_STATUS. Raises PipeAnswerError naming what is missing or malformed."""
    try:
        said = json.loads(answer)
        fault = said.get("error") or said.get("fault")
        return PipeStatus(
            feed,
            said["executionState"],
            int(said.get("pendingFileCount", 0)),
            _moment(said.get("lastReceivedMessageTimestamp")),
            _moment(said.get("lastForwardedMessageTimestamp")),
            _moment(said.get("lastIngestedTimestamp")),
            said.get("notificationChannelName"),
            str(fault) if fault else None,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PipeAnswerError(f"pipe {feed}: cannot read its status ({error!r}): {answer[:300]}") from error


def _moment(text: str | None) -> datetime | None:
    return _naive(datetime.fromisoformat(text)) if text else None


@dataclass(frozen=True)
class CopiedFile:
    """One line of a table's copy history: a file that a pipe or COPY INTO took up, and with what success.

    `path` is as Snowflake gives it, more or less of the way from the stage on. `loaded_at` is naive UTC.
    """

    feed: str
    path: str
    status: str
    rows: int
    error: str | None
    pipe: str | None
    loaded_at: datetime

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def is_loaded(self) -> bool:
        return self.status.upper() == "LOADED"


class Pipes(Protocol):
    """What the loader asks of pipes."""

    def status(self, feed: str) -> PipeStatus: ...

    def pause(self, feed: str) -> None: ...

    def resume(self, feed: str) -> None: ...

    def created_at(self, feed: str) -> datetime | None: ...

    def copied_since(self, feed: str, since: datetime) -> list[CopiedFile]: ...


@dataclass(frozen=True)
class SnowflakePipes:
    """The pipes of an account, one a feed, by its name."""

    con: SnowflakeConnection

    def status(self, feed: str) -> PipeStatus:
        try:
            [(answer,)] = run(self.con, status_statement(feed))
        except PrivilegeMissingError:
            return PipeStatus(feed, MISSING)
        return parse_status(feed, answer)

    def pause(self, feed: str) -> None:
        run(self.con, pause_statement(feed, True))

    def resume(self, feed: str) -> None:
        run(self.con, pause_statement(feed, False))

    def created_at(self, feed: str) -> datetime | None:
        rows = run(self.con, created_statement(feed))
        return _naive(rows[0][0]) if rows else None

    def copied_since(self, feed: str, since: datetime) -> list[CopiedFile]:
        return [
            CopiedFile(feed, path, status, int(rows or 0), error, pipe, _naive(loaded_at))
            for path, status, rows, error, pipe, loaded_at in run(self.con, copied_statement(feed, since))
        ]


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def status_statement(feed: str) -> str:
    """Asks a pipe for its status; needs MONITOR."""
    return f"select system$pipe_status('{RAW}.{feed}') as pipe_status"


def pause_statement(feed: str, is_paused: bool) -> str:
    """Pauses or resumes a pipe; needs OPERATE."""
    return f"alter pipe {RAW}.{feed} set pipe_execution_paused = {str(is_paused).lower()}"


def created_statement(feed: str) -> str:
    """Asks when a pipe was made."""
    return (
        "select created from information_schema.pipes"
        f" where pipe_schema = '{RAW.upper()}' and pipe_name = '{feed.upper()}'"
    )


def copied_statement(feed: str, since: datetime) -> str:
    """Asks for the files that pipes and COPY INTO took up since a moment (UTC); 14 days are kept."""
    return (
        "select file_name, status, row_count, first_error_message, pipe_name, last_load_time"
        f" from table(information_schema.copy_history(table_name => '{RAW.upper()}.{feed.upper()}',"
        f" start_time => '{since:%Y-%m-%d %H:%M:%S} +0000'::timestamp_tz))"
    )


@contextmanager
def held_still(
    con: SnowflakeConnection,
    pipes: Pipes,
    feed: str,
    drain_s: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], Any] = time.sleep,
) -> Iterator[PipeStatus]:
    """A feed's pipe paused and drained while inside, running again afterwards, whatever happens.

    A pipe that somebody else paused, that Snowflake stopped or that is not there stays as it is. Yields the
    status found before. Raises PipeBusyError where files are still queued after `drain_s` seconds.
    """
    mark = f"{MARK_PREFIX}{feed}"
    before = pipes.status(feed)
    is_ours = before.state == RUNNING or (before.state == PAUSED and _is_marked(con, mark))
    try:
        if before.state == RUNNING:
            # The mark first: a pause without one would be taken for somebody else's.
            ensure_mark(con, mark)
            pipes.pause(feed)
        deadline = clock() + drain_s
        while not (now := pipes.status(feed)).is_quiet:
            if clock() >= deadline:
                raise PipeBusyError(
                    f"pipe {feed} still has {now.pending_files} files queued ({now.state}) after {drain_s:.0f} s;"
                    " nothing was copied. The next load tries again; raise PETWELLNESS_SNOWFLAKE_PIPE_DRAIN_S if"
                    " it never comes to rest"
                )
            wait(POLL_S)
        yield before
    finally:
        if is_ours:
            pipes.resume(feed)
            _clear_mark(con, mark)


def _is_marked(con: SnowflakeConnection, mark: str) -> bool:
    return bool(run(con, f"select 1 as found from {RAW}.build_marks where mark = %s", [mark]))


def ensure_mark(con: SnowflakeConnection, mark: str) -> None:
    """A row of `raw.build_marks` for something that has no load to name: a pause, the lock of loads."""
    if not _is_marked(con, mark):
        run_many(con, f"insert into {RAW}.build_marks (mark, load_seq) values (%s, %s)", [(mark, 0)])


def _clear_mark(con: SnowflakeConnection, mark: str) -> None:
    run(con, f"delete from {RAW}.build_marks where mark = %s", [mark])


def pipe_gaps(
    status: PipeStatus,
    now: datetime,
    newest_landed_at: datetime | None = None,
    created_at: datetime | None = None,
    first_loaded_at: datetime | None = None,
) -> list[Gap]:
    """What is wrong with one pipe; [] when nothing is.

    `newest_landed_at` is the claim of the feed's newest landed file, `first_loaded_at` the feed's first load
    (naive UTC, like `now`): a pipe that heard nothing since the one gets no notifications, and one
    `created_at` after the other was made anew.
    """
    gaps = [Gap(kind, f"pipe {status.feed}", 0, detail) for kind, detail in _troubles(status)]
    if (
        status.state == RUNNING
        and newest_landed_at is not None
        and newest_landed_at < now - NOTIFICATION_GRACE
        and (status.received_at is None or status.received_at < newest_landed_at - NOTIFICATION_GRACE)
    ):
        heard = f"last notification {status.received_at or 'never'}, newest file {newest_landed_at}"
        gaps.append(Gap(PIPE_DEAF, f"pipe {status.feed}", 0, heard))
    if created_at and first_loaded_at and first_loaded_at < created_at and created_at > now - MEMORY:
        detail = f"made {created_at}, first load {first_loaded_at}"
        gaps.append(Gap(PIPE_RECREATED, f"pipe {status.feed}", 0, detail))
    return gaps


def _troubles(status: PipeStatus) -> Iterator[tuple[Kind, str]]:
    if status.state == MISSING:
        yield PIPE_MISSING, "SYSTEM$PIPE_STATUS does not know it"
    elif status.state == PAUSED:
        yield PIPE_PAUSED, f"{status.pending_files} files queued"
    elif status.state != RUNNING:
        yield PIPE_STOPPED, status.state + (f": {status.error}" if status.error else "")
    elif status.error:
        yield PIPE_FAILING, status.error


def skipped_gaps(copied: Iterable[CopiedFile], is_loaded: Mapping[str, bool]) -> list[Gap]:
    """Files that were tried and not loaded, by the newest line of their history; `is_loaded` tells by the file's
    name, which holds its range, what the ledger has since."""
    newest: dict[tuple[str, str], CopiedFile] = {}
    for one in sorted(copied, key=lambda one: one.loaded_at):
        newest[one.feed, one.name] = one
    return [
        Gap(FILE_SKIPPED, f"{feed}: {one.name}", 0, f"{one.status}: {one.error or 'no reason given'}")
        for (feed, _), one in sorted(newest.items())
        if not one.is_loaded and not is_loaded.get(one.name, False)
    ]
