"""The catalogue: one truth whoever rolls up and wherever they die, and readers that do not list history."""

import contextlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lake import catalogue, layout
from lake.catalogue import CatalogueDamagedError, fingerprint, landed_fingerprint, newest_generation, roll_up
from lake.extract import land_extract
from lake.landing import (
    chain_end,
    day_manifests,
    landed_end,
    list_claims,
    list_manifests,
    open_claims,
    open_claims_of_streams,
    verify_chain,
)
from lake.settings import CompactionSettings
from lake.store import LocalStore, ObjectStore

STREAM = "cluster.telemetry.topic1"
START = datetime(2026, 6, 1, 0, 30)
HOUR = timedelta(hours=1)
LATER = START + timedelta(days=400)

Claiming = Callable[..., Any]
Watched = Callable[[ObjectStore], Any]


@pytest.fixture
def history(claim_telemetry: Claiming, finish: Claiming) -> Callable[..., list[Any]]:
    def land(store: ObjectStore, first: int, last: int, partition: int = 0) -> list[Any]:
        """Ranges of one offset each, one an hour."""
        return [
            finish(store, claim_telemetry(store, n, 1, START + n * HOUR, partition))
            for n in range(first, last)
        ]

    return land


@pytest.mark.also_on_s3
def test_readers_see_the_same_before_and_after(lake: ObjectStore, history: Any, claim_telemetry: Any) -> None:
    history(lake, 0, 5)
    history(lake, 0, 3, partition=1)
    unfinished = claim_telemetry(lake, 5, 2, START + 5 * HOUR)

    def seen() -> Any:
        return (
            list_manifests(lake),
            list_claims(lake),
            [chain_end(lake, STREAM, p) for p in (0, 1, 2)],
            [landed_end(lake, STREAM, p) for p in (0, 1, 2)],
            [open_claims(lake, STREAM, p) for p in (0, 1, 2)],
            open_claims_of_streams(lake, "cluster."),
            open_claims_of_streams(lake, "other."),
            landed_fingerprint(lake),
            day_manifests(lake, "telemetry_events", START.date()),
        )

    before = seen()
    assert before[2:7] == ([7, 3, 0], [5, 3, 0], [[unfinished], [], []], [unfinished], [])
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.ranges == 8
    assert seen() == before
    assert roll_up(lake, LATER) == generation


@pytest.mark.also_on_s3
def test_only_closed_hours_are_rolled_up(lake: ObjectStore, history: Any) -> None:
    history(lake, 0, 4)
    assert roll_up(lake, START + 2 * HOUR) is not None
    generation = newest_generation(lake)
    assert generation is not None and generation.frontier(STREAM, 0) == 2


def test_a_late_claim_holds_the_frontier_until_it_is_finished(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    history(lake, 0, 2)
    late = claim_telemetry(lake, 2, 1, START + 2 * HOUR)
    history(lake, 3, 6)
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.frontier(STREAM, 0) == 2
    assert open_claims(lake, STREAM, 0) == [late]
    finish(lake, late)
    assert [m.start for m in list_manifests(lake)] == [0, 1, 2, 3, 4, 5]
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.frontier(STREAM, 0) == 6
    assert [m.start for m in list_manifests(lake)] == [0, 1, 2, 3, 4, 5]


def test_a_clock_that_jumped_does_not_hold_the_frontier(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    finish(lake, claim_telemetry(lake, 0, 1, LATER + timedelta(days=900)))
    history(lake, 1, 3)
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.frontier(STREAM, 0) == 3


def test_new_streams_and_partitions_are_found(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    history(lake, 0, 3)
    roll_up(lake, LATER)
    history(lake, 0, 1, partition=7)
    finish(lake, claim_telemetry(lake, 0, 1, START, stream="cluster.telemetry.topic2"))
    assert [m.range_key for m in list_manifests(lake)] == [
        *((STREAM, 0, n) for n in range(3)),
        (STREAM, 7, 0),
        ("cluster.telemetry.topic2", 0, 0),
    ]


def clinics() -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "business_key": ["C"],
            "op": ["snapshot"],
            "changed_at": pa.array([START], pa.timestamp("us")),
            "clinic_id": ["C"],
            "name": ["C"],
            "district": pa.array([None], pa.string()),
            "timezone": ["Europe/Zurich"],
            "payload": ["{}"],
        }
    )


def an_extract(store: ObjectStore, number: int, rows: int = 1) -> Any:
    return land_extract(
        store,
        source="crm",
        feed="clinics",
        extract_id=f"x{number:04}",
        table=clinics().slice(0, rows),
        complete=True,
        extracted_at=START,
        claimed_at=START,
    )


@pytest.mark.also_on_s3
def test_extracts_are_rolled_up_and_not_looked_for_again(lake: ObjectStore, watched: Watched) -> None:
    landed = [an_extract(lake, n, rows=n % 2) for n in range(6)]
    roll_up(lake, LATER)
    store = watched(lake)
    assert list_manifests(store, {m.range_key for m in landed}) == []
    # The newest generation and the names of the streams.
    assert store.counts == {"listings": 2, "keys": 1, "gets": 1}


def reading(store: Any, work: Callable[[ObjectStore], Any]) -> dict[str, int]:
    store.counts.clear()
    work(store)
    return dict(store.counts)


@pytest.mark.parametrize("name", ["local", "s3"])
def test_what_is_read_follows_the_tail_and_not_history(
    name: str, tmp_path: Any, request: pytest.FixtureRequest, history: Any, watched: Watched
) -> None:
    """A history eight times as long costs the same requests."""
    costs = []
    for hours in (3, 24):
        lake = _fresh_lake(name, tmp_path / str(hours), request)
        history(lake, 0, hours)
        roll_up(lake, LATER)
        history(lake, hours, hours + 3)
        store = watched(lake)
        rolled = {(STREAM, 0, n) for n in range(hours)}
        works: list[Callable[[ObjectStore], Any]] = [
            lambda s: chain_end(s, STREAM, 0),
            lambda s: open_claims(s, STREAM, 0),
            lambda s: landed_end(s, STREAM, 0),
            lambda s: open_claims_of_streams(s, ""),
            landed_fingerprint,
            lambda s, known=rolled: list_manifests(s, known),
            list_manifests,
            list_claims,
            lambda s: roll_up(s, START),
        ]
        costs.append([reading(store, work) for work in works])
        assert chain_end(lake, STREAM, 0) == hours + 3
        assert len(list_manifests(lake)) == hours + 3
    assert costs[0] == costs[1]
    assert max(cost["keys"] for cost in costs[0]) <= 10
    # The generation, a segment, and three claims or manifests.
    assert max(cost["gets"] for cost in costs[0]) <= 5


def _fresh_lake(name: str, folder: Any, request: pytest.FixtureRequest) -> ObjectStore:
    if name == "local":
        return LocalStore(folder)
    import boto3

    from lake.store import S3Store

    endpoint = request.getfixturevalue("s3_endpoint")
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket=f"bounded-{folder.name}")
    return S3Store(
        f"bounded-{folder.name}", "lake", endpoint_url=endpoint, access_key_id="k", secret_access_key="s"
    )


def test_segments_merge_as_they_become_many(lake: ObjectStore, history: Any) -> None:
    for hour in range(20):
        history(lake, hour, hour + 1)
        roll_up(lake, START + (hour + 2) * HOUR)
    generation = newest_generation(lake)
    assert generation is not None and generation.n == 20
    # Two merged ones of eight, and four.
    assert [segment.ranges for segment in generation.segments] == [8, 8, 1, 1, 1, 1]
    assert [m.start for m in list_manifests(lake)] == [*range(20)]
    assert landed_fingerprint(lake) == f"20-{fingerprint((STREAM, 0, n) for n in range(20)):032x}"


@pytest.mark.also_on_s3
def test_two_roll_ups_at_once_leave_one_truth(lake: ObjectStore, history: Any, watched: Watched) -> None:
    history(lake, 0, 3)
    store = watched(lake)

    def other_comes_first(key: str) -> None:
        if key.startswith(layout.GENERATIONS):
            store.before_put = lambda _: None
            history(lake, 3, 5)
            roll_up(lake, LATER + timedelta(seconds=5))

    store.before_put = other_comes_first
    generation = roll_up(store, LATER)
    assert generation == newest_generation(lake)
    assert generation is not None and (generation.n, generation.ranges) == (1, 5)
    assert [m.start for m in list_manifests(lake)] == [0, 1, 2, 3, 4]


@pytest.mark.also_on_s3
def test_a_damaged_segment_is_named_and_can_be_written_again(lake: ObjectStore, history: Any) -> None:
    history(lake, 0, 3)
    generation = roll_up(lake, LATER)
    assert generation is not None
    [segment] = generation.segments
    data = lake.get(segment.key)
    lake.delete(segment.key)
    with pytest.raises(CatalogueDamagedError, match=f"{segment.key} is missing"):
        list_manifests(lake)
    lake.put_new(segment.key, data[:-1] + b"x")
    with pytest.raises(CatalogueDamagedError, match="is not what was written"):
        list_claims(lake)
    for info in [*lake.list(layout.GENERATIONS)]:
        lake.delete(info.key)
    assert len(list_manifests(lake)) == 3
    roll_up(lake, LATER + timedelta(seconds=1))
    assert len(list_manifests(lake)) == 3


def test_superseded_files_of_the_catalogue_are_removed_with_age(lake: ObjectStore, history: Any) -> None:
    from lake.upkeep import clean

    for hour in range(10):
        history(lake, hour, hour + 1)
        roll_up(lake, START + (hour + 2) * HOUR)
    last = START + 11 * HOUR
    assert clean(lake, CompactionSettings(clean_after_s=24 * 3600), last) == []
    soon = clean(lake, CompactionSettings(clean_after_s=3 * 3600), last, dry_run=True)
    assert soon == clean(lake, CompactionSettings(clean_after_s=3 * 3600), last)
    # Generations 7 to 10 are not older than the age, 6 was in force when it began.
    assert [layout.generation_of(i.key) for i in lake.list(layout.GENERATIONS)] == [10, 9, 8, 7, 6]
    assert [m.start for m in list_manifests(lake)] == [*range(10)]


def test_a_hole_between_claims_is_left_to_the_reconciliation(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    history(lake, 0, 2)
    finish(lake, claim_telemetry(lake, 9, 1, START))
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.frontier(STREAM, 0) == 2
    assert [c.start for c in list_claims(lake)] == [0, 1, 9]


def test_a_chain_that_begins_above_0_is_rolled_up_once_its_gap_is_closed(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    history(lake, 3, 6)
    assert roll_up(lake, LATER) is None
    assert (chain_end(lake, STREAM, 0), [c.start for c in list_claims(lake)]) == (6, [3, 4, 5])
    finish(lake, claim_telemetry(lake, 0, 3, START))
    generation = roll_up(lake, LATER)
    assert generation is not None and generation.frontier(STREAM, 0) == 6
    assert [c.start for c in list_claims(lake)] == [0, 3, 4, 5]


def test_a_claim_that_overlaps_is_not_hidden_by_a_roll_up(
    lake: ObjectStore, history: Any, claim_telemetry: Any, finish: Any
) -> None:
    history(lake, 0, 2)
    for start, rows in ((2, 3), (3, 2)):
        finish(lake, claim_telemetry(lake, start, rows, START))
    history(lake, 5, 7)
    generation = roll_up(lake, LATER)
    assert generation is not None
    assert generation.frontier(STREAM, 0) == 7
    assert [c.start for c in list_claims(lake)] == [0, 1, 2, 3, 5, 6]


def test_what_comes_before_a_chain_that_was_rolled_up_above_0_is_seen(
    lake: ObjectStore,
    history: Any,
    claim_telemetry: Any,
    finish: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a release did that let a chain begin anywhere."""
    history(lake, 3, 9)
    with monkeypatch.context() as older:
        older.setattr(catalogue, "CHAIN_START", 3)
        roll_up(lake, LATER)
    assert [c.start for c in list_claims(lake)] == [*range(3, 9)]
    finish(lake, claim_telemetry(lake, 0, 3, START))
    history(lake, 9, 11)
    for _ in range(2):
        assert [c.start for c in list_claims(lake)] == [0, *range(3, 11)]
        assert [m.start for m in list_manifests(lake)] == [0, *range(3, 11)]
        assert (chain_end(lake, STREAM, 0), landed_end(lake, STREAM, 0)) == (11, 11)
        generation = roll_up(lake, LATER)
        assert generation is not None and generation.frontier(STREAM, 0) == 11
    verify_chain(list_claims(lake))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 2), st.integers(1, 3)),
        st.tuples(st.just("finish"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("roll_up"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("die"), st.integers(1, 3), st.integers(0, 1)),
    ),
    max_size=25,
)


@settings(
    max_examples=settings.default.max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_whatever_happens_readers_see_what_is_there(
    steps: list[Any], tmp_path_factory: Any, claim_telemetry: Any, finish: Any, watched: Watched
) -> None:
    lake = LocalStore(tmp_path_factory.mktemp("lake"))
    ends: dict[int, int] = {}
    claims: dict[Any, Any] = {}
    done: set[Any] = set()
    for hour, (step, first, second) in enumerate(steps):
        if step == "claim":
            claim = claim_telemetry(lake, ends.get(first, 0), second, START + hour * HOUR, partition=first)
            claims[claim.range_key] = claim
            ends[first] = claim.end
        elif step == "finish" and claims.keys() - done:
            waiting = sorted(claims.keys() - done)
            finish(lake, claims[waiting[first % len(waiting)]])
            done.add(waiting[first % len(waiting)])
        elif step == "roll_up":
            roll_up(lake, START + first * HOUR)
        elif step == "die":
            store = watched(lake)
            store.dies_at_put(first, after=bool(second))
            with contextlib.suppress(KeyboardInterrupt):
                roll_up(store, LATER)
    assert [m.range_key for m in list_manifests(lake)] == sorted(done)
    assert list_claims(lake) == [claims[key] for key in sorted(claims)]
    for partition in range(3):
        unfinished = [claims[key] for key in sorted(claims.keys() - done) if key[1] == partition]
        assert open_claims(lake, STREAM, partition) == unfinished
        assert chain_end(lake, STREAM, partition) == ends.get(partition, 0)
    if done:
        assert landed_fingerprint(lake) == f"{len(done)}-{fingerprint(done):032x}"
    some = {key for key in done if key[2] % 2}
    assert [m.range_key for m in list_manifests(lake, some)] == sorted(done - some)
