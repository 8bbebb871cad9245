"""What pipes say of themselves, and holding one still, without Snowflake."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from warehouse.snowflake import pipes as snowflake_pipes
from warehouse.snowflake.pipes import (
    FILE_SKIPPED,
    MISSING,
    PAUSED,
    PIPE_DEAF,
    PIPE_FAILING,
    PIPE_MISSING,
    PIPE_PAUSED,
    PIPE_RECREATED,
    PIPE_STOPPED,
    RUNNING,
    CopiedFile,
    PipeAnswerError,
    PipeBusyError,
    PipeStatus,
    held_still,
    parse_status,
    pipe_gaps,
    skipped_gaps,
)

NOW = datetime(2026, 6, 10, 12)
HOUR = timedelta(hours=1)


def test_a_status_is_read_with_its_times_in_utc():
    answer = (
        '{"executionState":"RUNNING","pendingFileCount":3,'
        '"lastIngestedTimestamp":"2026-06-10T09:00:00Z","lastReceivedMessageTimestamp":"2026-06-10T12:00:00.5+02:00",'
        '"notificationChannelName":"arn:aws:sqs:eu-central-1:1:sf-snowpipe","lastForwardedMessageTimestamp":""}'
    )
    status = parse_status("owners", answer)
    assert status == PipeStatus(
        "owners",
        RUNNING,
        3,
        received_at=datetime(2026, 6, 10, 10, 0, 0, 500_000),
        ingested_at=datetime(2026, 6, 10, 9),
        channel="arn:aws:sqs:eu-central-1:1:sf-snowpipe",
    )
    assert not status.is_quiet


@pytest.mark.parametrize("word", ["error", "fault"])
def test_a_status_tells_its_error(word):
    status = parse_status("owners", f'{{"executionState":"RUNNING","{word}":"no access to the bucket"}}')
    assert (status.error, status.pending_files) == ("no access to the bucket", 0)


@pytest.mark.parametrize(
    "answer", ["", "null", "[]", "{}", '{"executionState":"RUNNING","pendingFileCount":"x"}']
)
def test_an_answer_that_cannot_be_read_is_an_error_that_quotes_it(answer):
    with pytest.raises(PipeAnswerError, match="pipe owners"):
        parse_status("owners", answer)


@pytest.mark.parametrize(
    ("state", "pending", "is_quiet"),
    [
        (RUNNING, 0, False),
        (PAUSED, 1, False),
        (PAUSED, 0, True),
        ("STOPPED_MISSING_TABLE", 0, True),
        (MISSING, 0, True),
    ],
)
def test_a_pipe_is_quiet_when_it_does_not_run_and_has_nothing_left(state, pending, is_quiet):
    assert PipeStatus("owners", state, pending).is_quiet is is_quiet


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (PipeStatus("owners", RUNNING, received_at=NOW), []),
        (PipeStatus("owners", RUNNING, error="denied", received_at=NOW), [PIPE_FAILING]),
        (PipeStatus("owners", PAUSED, 2), [PIPE_PAUSED]),
        (PipeStatus("owners", MISSING), [PIPE_MISSING]),
        (PipeStatus("owners", "STOPPED_STAGE_DROPPED"), [PIPE_STOPPED]),
        (PipeStatus("owners", "STALLED_EXECUTION_ERROR", error="x"), [PIPE_STOPPED]),
    ],
)
def test_each_trouble_of_a_pipe_is_named(status, expected):
    gaps = pipe_gaps(status, NOW, newest_landed_at=NOW - 2 * HOUR)
    assert [gap.kind for gap in gaps] == expected
    assert all(gap.where == "pipe owners" and gap.kind.fix for gap in gaps)


@pytest.mark.parametrize(
    ("received_at", "newest", "is_deaf"),
    [
        (None, NOW - HOUR, True),
        (NOW - 5 * HOUR, NOW - HOUR, True),
        (NOW - HOUR, NOW - HOUR, False),
        (None, NOW - timedelta(minutes=5), False),  # Its notification may be on its way.
        (None, None, False),
    ],
)
def test_a_pipe_that_hears_nothing_of_what_lands_is_deaf(received_at, newest, is_deaf):
    gaps = pipe_gaps(PipeStatus("owners", RUNNING, received_at=received_at), NOW, newest)
    assert [gap.kind for gap in gaps] == ([PIPE_DEAF] if is_deaf else [])


@pytest.mark.parametrize(
    ("created_at", "first_load", "is_new"),
    [
        (NOW - HOUR, NOW - 10 * HOUR, True),
        (NOW - 10 * HOUR, NOW - HOUR, False),
        (
            NOW - timedelta(days=15),
            NOW - timedelta(days=30),
            False,
        ),  # By now it remembers all that it may meet.
        (NOW - HOUR, None, False),
        (None, NOW - HOUR, False),
    ],
)
def test_a_pipe_made_after_the_first_load_has_lost_its_memory(created_at, first_load, is_new):
    gaps = pipe_gaps(PipeStatus("owners", RUNNING, received_at=NOW), NOW, NOW, created_at, first_load)
    assert [gap.kind for gap in gaps] == ([PIPE_RECREATED] if is_new else [])
    assert not any(gap.kind.is_open for gap in gaps)


def copied(path: str, status: str, hours: int) -> CopiedFile:
    return CopiedFile("owners", path, status, 0, "bad value", "OWNERS", NOW + hours * HOUR)


def test_a_skipped_file_is_told_until_it_is_loaded():
    history = [
        copied("owners/1", "Load failed", 0),
        copied("owners/2", "Load failed", 0),
        copied("owners/2", "Loaded", 1),
        copied("owners/3", "Load failed", 0),
        copied("owners/4", "Loaded", 0),
    ]
    gaps = skipped_gaps(history, {"1": False, "3": True})
    assert [(gap.kind, gap.where) for gap in gaps] == [(FILE_SKIPPED, "owners: 1")]
    assert "bad value" in gaps[0].detail


@dataclass
class ScriptedPipes:
    """Answers with the given pending counts while paused, one after the other."""

    state: str = RUNNING
    pending: list[int] = field(default_factory=lambda: [0])
    calls: list[str] = field(default_factory=list)

    def status(self, feed: str) -> PipeStatus:
        left = self.pending if self.state == RUNNING or len(self.pending) == 1 else self.pending[1:]
        if self.state != RUNNING:
            self.pending = left
        return PipeStatus(feed, self.state, self.pending[0])

    def pause(self, feed: str) -> None:
        self.calls.append("pause")
        self.state = PAUSED

    def resume(self, feed: str) -> None:
        self.calls.append("resume")
        self.state = RUNNING

    def created_at(self, feed: str) -> datetime | None:
        return None

    def copied_since(self, feed: str, since: datetime) -> list[CopiedFile]:
        return []


@pytest.fixture
def marks(monkeypatch) -> set[str]:
    """`raw.build_marks`, as a set."""
    found: set[str] = set()
    monkeypatch.setattr(snowflake_pipes, "_is_marked", lambda con, mark: mark in found)
    monkeypatch.setattr(snowflake_pipes, "ensure_mark", lambda con, mark: found.add(mark))
    monkeypatch.setattr(snowflake_pipes, "_clear_mark", lambda con, mark: found.discard(mark))
    return found


NO_SESSION: Any = None


def test_a_pipe_is_paused_until_it_has_loaded_what_was_queued(marks):
    pipes = ScriptedPipes(pending=[5, 4, 2, 0])
    waits: list[float] = []
    with held_still(NO_SESSION, pipes, "owners", 60, clock=lambda: 0, wait=waits.append):
        assert (pipes.state, pipes.pending, marks) == (PAUSED, [0], {"paused pipe owners"})
    assert len(waits) == 2
    assert (pipes.calls, marks) == (["pause", "resume"], set())


def test_waiting_for_a_pipe_has_an_end_and_the_pipe_runs_again(marks):
    pipes = ScriptedPipes(pending=[5])
    moments = iter(range(100))
    with (
        pytest.raises(PipeBusyError, match=r"5 files queued.*PIPE_DRAIN_S"),
        held_still(NO_SESSION, pipes, "owners", 10, clock=lambda: next(moments), wait=lambda _: None),
    ):
        pytest.fail("copied beside a pipe at work")
    assert (pipes.calls, marks) == (["pause", "resume"], set())


def test_a_pipe_runs_again_after_an_error(marks):
    pipes = ScriptedPipes()
    with pytest.raises(KeyboardInterrupt), held_still(NO_SESSION, pipes, "owners", 10):
        raise KeyboardInterrupt
    assert (pipes.calls, marks) == (["pause", "resume"], set())


def test_a_mark_stays_where_the_pipe_could_not_be_resumed(marks):
    pipes = ScriptedPipes()

    def refuse(_: str) -> None:
        raise PipeAnswerError("no")

    pipes.resume = refuse  # type: ignore[method-assign]
    with pytest.raises(PipeAnswerError), held_still(NO_SESSION, pipes, "owners", 10):
        pass
    assert marks == {"paused pipe owners"}


@pytest.mark.parametrize("state", [PAUSED, "STOPPED_MISSING_TABLE", MISSING])
def test_a_pipe_that_others_stopped_stays_as_it_is(marks, state):
    pipes = ScriptedPipes(state=state)
    with held_still(NO_SESSION, pipes, "owners", 10):
        pass
    assert (pipes.calls, pipes.state) == ([], state)


def test_a_pause_of_a_dead_load_is_ended(marks):
    marks.add("paused pipe owners")
    pipes = ScriptedPipes(state=PAUSED)
    with held_still(NO_SESSION, pipes, "owners", 10):
        pass
    assert (pipes.calls, marks) == (["resume"], set())
