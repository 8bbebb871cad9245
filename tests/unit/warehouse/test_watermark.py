"""The watermark under any interleaving of what is produced, landed, marked and loaded, partition by partition."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from contracts.telemetry import NOT_BEFORE
from lake.landing import Manifest
from lake.progress import PartitionSeen, ProgressMark
from warehouse.watermark import (
    PartitionProgress,
    Place,
    advanced,
    oldest_arrival,
    watermark,
    with_loaded,
    with_marks,
)

START = datetime(2026, 6, 1)
TICK = timedelta(minutes=1)


def at(tick: int) -> datetime:
    return START + tick * TICK


def manifest(
    stream_id: str, partition: int, start: int, end: int, arrivals: list[datetime], claimed_at: datetime
) -> Manifest:
    return Manifest(
        stream_id=stream_id,
        partition=partition,
        start=start,
        end=end,
        feed="telemetry_events",
        source_system="petwellness-collar",
        source_file="f",
        rows=len(arrivals),
        rejected_by_reason={},
        consent_dropped=0,
        offset_gaps=0,
        rows_by_event_date={},
        min_event_ts=None,
        max_event_ts=None,
        min_arrival_ts=min(arrivals, default=None),
        max_arrival_ts=max(arrivals, default=None),
        ingested_at=claimed_at,
        bytes=0,
        sha256="",
        schema_version=1,
        decoder="collar-v1@1",
        consent_snapshot_id=None,
        gap_reason=None,
        reject_object=None,
        extract_id=None,
        complete=None,
        extracted_at=None,
    )


@dataclass
class World:
    """A topic of some partitions by a clock of ticks: what is in the logs, landed, marked and loaded."""

    partitions: int
    now: int = 0
    generation: int = 1
    log: list[list[datetime]] = field(default_factory=list)
    landed: list[int] = field(default_factory=list)
    lake: list[Manifest] = field(default_factory=list)
    marks: list[ProgressMark] = field(default_factory=list)
    loaded: int = 0
    progress: dict[Place, PartitionProgress] = field(default_factory=dict)
    present: datetime | None = None

    def __post_init__(self) -> None:
        self.recreate()

    @property
    def stream(self) -> str:
        return f"cluster.telemetry.id{self.generation}"

    def recreate(self) -> None:
        """The topic is made anew; what nobody landed of the old one is gone."""
        self.generation += 1
        self.log = [[] for _ in range(self.partitions)]
        self.landed = [0] * self.partitions
        self.mark()

    def produce(self, partition: int) -> None:
        self.log[partition].append(at(self.now))

    def land(self, partition: int, messages: int) -> None:
        start = self.landed[partition]
        end = min(start + messages, len(self.log[partition]))
        if end > start:
            arrivals = self.log[partition][start:end]
            self.lake.append(manifest(self.stream, partition, start, end, arrivals, at(self.now)))
            self.landed[partition] = end

    def mark(self) -> None:
        seen = [
            PartitionSeen(
                stream_id=self.stream,
                partition=partition,
                end=self.landed[partition],
                at=at(self.now) if self.landed[partition] == len(self.log[partition]) and self.now else None,
            )
            for partition in range(self.partitions)
        ]
        self.marks.append(ProgressMark(marked_at=at(self.now), marked_by="c", partitions=seen))

    def load(self, ranges: int) -> None:
        """Load the next ranges; the others wait."""
        brought = self.lake[self.loaded : self.loaded + ranges]
        waiting = self.lake[self.loaded + ranges :]
        self.loaded += len(brought)
        self.progress = with_marks(with_loaded(self.progress, brought), self.marks)
        self.present = advanced(self.present, self.progress, (), oldest_arrival(waiting))


STEPS = st.one_of(
    st.tuples(st.just("produce"), st.integers(0, 2)),
    st.tuples(st.just("land"), st.integers(0, 2), st.integers(1, 3)),
    st.tuples(st.just("mark")),
    st.tuples(st.just("load"), st.integers(0, 4)),
)


def played(world: World, step: tuple) -> None:
    world.now += 1
    getattr(world, step[0])(*step[1:])


@given(st.lists(STEPS, max_size=40))
def test_whatever_was_received_up_to_the_present_is_loaded_and_the_present_never_falls(steps: list) -> None:
    world = World(partitions=3)
    for step in steps:
        before = world.present
        played(world, step)
        if before is not None:
            assert world.present is not None
            assert world.present >= before
        if world.present is not None:
            loaded = {
                (m.partition, offset) for m in world.lake[: world.loaded] for offset in range(m.start, m.end)
            }
            behind = [
                (partition, arrival)
                for partition, log in enumerate(world.log)
                for offset, arrival in enumerate(log)
                if arrival <= world.present and (partition, offset) not in loaded
            ]
            assert behind == []
            assert world.present <= max(m.ingested_at for m in world.lake)


@settings(max_examples=settings.default.max_examples // 4)
@given(st.lists(st.one_of(STEPS, st.tuples(st.just("recreate"))), max_size=40))
@example([("recreate",)] * 7)
def test_a_topic_that_is_made_anew_moves_nothing_back_and_is_not_held_by_the_old_one(steps: list) -> None:
    world = World(partitions=3)
    for step in steps:
        before = world.present
        played(world, step)
        assert before is None or (world.present is not None and world.present >= before)
    # Two streams of a topic never begin at one moment: which is newer is told by when they were first seen.
    world.now += 1
    world.recreate()
    for partition in range(3):
        world.now += 1
        world.produce(partition)
        world.land(partition, 1)
    world.mark()
    world.load(len(world.lake))
    assert world.present == at(world.now)


def progress(*rows: tuple[str, int, int | None, int | None]) -> dict[Place, PartitionProgress]:
    """Stream, partition, newest arrival and end seen, in ticks."""
    return {
        (stream, partition): PartitionProgress(
            *(stream, partition, 10),
            *(None if tick is None else at(tick) for tick in (newest, end)),
            START + number * TICK,
        )
        for number, (stream, partition, newest, end) in enumerate(rows)
    }


def test_the_partition_that_is_known_least_says_what_now_is() -> None:
    assert watermark(progress(("k.t.1", 0, 9, None), ("k.t.1", 1, 4, None))) == at(4)
    assert watermark(progress(("k.t.1", 0, 9, None), ("k.t.1", 1, 4, 6))) == at(6)
    assert watermark(progress(("k.t.1", 0, 9, None), ("k.u.1", 0, 4, None))) == at(4)


def test_where_all_are_at_their_ends_it_is_the_newest_arrival() -> None:
    assert watermark(progress(("k.t.1", 0, 9, 99), ("k.t.1", 1, 4, 99), ("k.t.1", 2, None, 99))) == at(9)


def test_a_partition_that_is_there_and_of_which_nothing_is_known_holds_it() -> None:
    assert watermark(progress(("k.t.1", 0, 9, 99), ("k.t.1", 1, None, None))) == NOT_BEFORE
    assert watermark({}) is None


def test_dead_streams_do_not_hold_it() -> None:
    found = progress(("k.t.1", 0, 3, None), ("k.t.2", 0, 9, None), ("old.t.1", 0, 4, None))
    assert watermark(found) == at(4)
    assert watermark(found, {"old.t.1"}) == at(9)


def test_what_a_stream_brought_before_it_was_replaced_has_been_present() -> None:
    """A broker that starts again has nothing to bring that has landed before: all of it is at its end."""
    found = progress(
        ("k.t.1", 0, 9, None), ("k.t.1", 1, 4, None), ("k.t.2", 0, None, 99), ("k.t.2", 1, None, 99)
    )
    assert watermark(found) == at(9)
    assert watermark(progress(("k.t.1", 0, 9, None)), {"k.t.1"}) == at(9)


def test_a_mark_counts_once_everything_before_its_end_is_loaded() -> None:
    lagging = with_loaded({}, [manifest("k.t.1", 0, 0, 5, [at(1)], at(2))])
    seen = PartitionSeen(stream_id="k.t.1", partition=0, end=8, at=at(9))
    mark = ProgressMark(marked_at=at(9), marked_by="c", partitions=[seen])
    assert with_marks(lagging, [mark])["k.t.1", 0].at_end_ts is None
    caught_up = with_loaded(lagging, [manifest("k.t.1", 0, 5, 8, [at(7)], at(8))])
    assert with_marks(caught_up, [mark])["k.t.1", 0].at_end_ts == at(9)


def test_nothing_counts_as_received_after_its_claim() -> None:
    ahead = manifest("k.t.1", 0, 0, 1, [datetime(2036, 1, 1)], at(5))
    assert watermark(with_loaded({}, [ahead])) == at(5)


def test_records_and_replayed_rejects_do_not_count() -> None:
    replayed = manifest("rejects.k.t.1", 0, 0, 1, [at(1)], at(2))
    assert with_loaded({}, [replayed]) == {}
