"""Progress marks: found by time, removed once newer ones say as much; streams are declared dead once."""

from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from lake import layout, upkeep
from lake.layout import LayoutError
from lake.progress import (
    DeadStream,
    PartitionSeen,
    ProgressMark,
    dead_streams,
    declare_dead,
    put_progress,
    read_progress,
)
from lake.settings import CompactionSettings
from lake.store import LocalStore

START = datetime(2026, 6, 1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


def mark(store: LocalStore, minute: int, by: str = "c", **ends: bool) -> ProgressMark:
    """A mark of partitions named `p0`, ..., each with whether its end was seen."""
    at = START + minute * MINUTE
    seen = [
        PartitionSeen(stream_id="k.t.1", partition=int(name[1:]), end=minute, at=at if is_seen else None)
        for name, is_seen in ends.items()
    ]
    made = ProgressMark(marked_at=at, marked_by=by, partitions=seen)
    put_progress(store, made)
    return made


def test_marks_come_in_order_of_time_and_from_about_a_moment_on(store: LocalStore) -> None:
    made = [mark(store, minute, by, p0=True) for minute, by in ((0, "b"), (30, "a"), (90, "b"), (91, "a"))]
    assert read_progress(store) == made
    assert read_progress(store, START + 95 * MINUTE) == made[2:]
    assert read_progress(store, START + 300 * MINUTE) == []


def test_a_mark_without_partitions_is_none_and_one_is_left_once(store: LocalStore) -> None:
    mark(store, 0)
    made = mark(store, 1, p0=True)
    put_progress(store, made)
    assert read_progress(store) == [made]


def test_old_marks_go_when_newer_ones_say_as_much_of_each_partition(store: LocalStore) -> None:
    mark(store, 0, p0=True, p1=True)
    last_of_1 = mark(store, 1, p0=True, p1=True)
    mark(store, 2, p0=True, p2=False)
    newest = mark(store, 3, p0=True, p1=False, p2=False)
    after = timedelta(seconds=CompactionSettings().clean_after_s)
    assert upkeep.clean(store, CompactionSettings(), START + after) == []
    removed = upkeep.clean(store, CompactionSettings(), START + after + 10 * MINUTE, dry_run=True)
    assert len(removed) == 2
    assert len(read_progress(store)) == 4
    upkeep.clean(store, CompactionSettings(), START + after + 10 * MINUTE)
    assert read_progress(store) == [last_of_1, newest]


def test_the_first_word_on_a_dead_stream_stands(store: LocalStore) -> None:
    declare_dead(store, ["k.t.1", "k.t.2"], "the topic was deleted", "ada", START)
    declare_dead(store, ["k.t.2"], "otherwise", "bob", START + MINUTE)
    assert dead_streams(store) == {"k.t.1", "k.t.2"}
    said = msgspec.json.decode(store.get(layout.dead_stream_key("k.t.2")), type=DeadStream)
    assert (said.reason, said.declared_by) == ("the topic was deleted", "ada")


def test_other_keys_are_no_marks() -> None:
    with pytest.raises(LayoutError, match="no progress mark"):
        layout.progress_marked_at("_progress/x.json")
    with pytest.raises(LayoutError, match="declares no stream dead"):
        layout.dead_stream_of("_claims/x.json")
