"""The catalogue: finished ranges of closed hours rolled up into Parquet, so that nobody lists history.

A generation `_catalogue/generations/{n}.json` is created once and names the Parquet
segments that hold the claims and manifests of every range before each partition's
frontier; the newest generation wins. A frontier only advances over contiguous
finished ranges, so what is beyond it, however late it is finished, is found by
listing from there on. Rows keep both objects byte for byte: what a claim or a
manifest means is `landing`'s business.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from lake import layout
from lake.chains import CHAIN_START
from lake.layout import RangeKey
from lake.store import READ_THREADS, ObjectExistsError, ObjectMissingError, ObjectStore

if TYPE_CHECKING:
    import pyarrow as pa

# A claim's hour is closed when this long has passed since: clocks of workers differ.
HOUR_GRACE = timedelta(minutes=10)
# Ranges of one generation: bounds the memory of a roll-up that has much to catch up.
RANGES_PER_GENERATION = 20_000
# So many segments of a size are merged into one, up to a size that is read at once.
FAN_OUT = 8
MERGED_RANGES = 100_000
LOST_RACES = 10

_MODULUS = 2**128


class CatalogueDamagedError(Exception):
    """A file of the catalogue is missing or altered; the message says how to have it written again."""


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Ranges of one partition that a segment holds: contiguous from `first_start` to `end`.

    `is_whole` marks a stream that is one range and cannot grow (an extract).
    """

    stream_id: str
    partition: int
    first_start: int
    last_start: int
    end: int
    ranges: int
    is_whole: bool


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One Parquet file of rolled-up ranges.

    `days` counts ranges by feed and by date of claim (UTC), `fingerprint` is the sum of
    their keys' hashes.
    """

    key: str
    sha256: str
    bytes: int
    ranges: int
    level: int
    days: dict[str, dict[date, int]]
    fingerprint: str
    spans: list[Span]


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """A state of the catalogue: every segment in force. `cut_off` is the end of the last closed hour."""

    n: int
    cut_off: datetime
    created_at: datetime
    segments: list[Segment]

    @property
    def ranges(self) -> int:
        return sum(segment.ranges for segment in self.segments)

    def frontiers(self) -> dict[tuple[str, int], Span]:
        """The last span of each partition: its `end` is up to where everything is rolled up."""
        found: dict[tuple[str, int], Span] = {}
        for segment in self.segments:
            for span in segment.spans:
                place = (span.stream_id, span.partition)
                if place not in found or span.end > found[place].end:
                    found[place] = span
        return found

    def begins(self) -> dict[tuple[str, int], int]:
        """Where what is rolled up of each partition begins: above 0 only for chains of a release that allowed it."""
        found: dict[tuple[str, int], int] = {}
        for segment in self.segments:
            for span in segment.spans:
                place = (span.stream_id, span.partition)
                found[place] = min(span.first_start, found.get(place, span.first_start))
        return found

    def frontier(self, stream_id: str, partition: int) -> int:
        """Up to where a partition is rolled up."""
        ends = (
            span.end
            for segment in self.segments
            for span in segment.spans
            if span.stream_id == stream_id and span.partition == partition
        )
        return max(ends, default=CHAIN_START)


class _RangeFacts(msgspec.Struct, frozen=True):
    """What the catalogue has to know of a claim or manifest; further fields pass by."""

    stream_id: str
    partition: int
    start: int
    end: int
    feed: str
    extract_id: str | None = None
    claimed_at: datetime | None = None
    source_file: str | None = None
    rows: int | None = None
    bytes: int | None = None
    min_event_ts: datetime | None = None
    max_event_ts: datetime | None = None
    min_arrival_ts: datetime | None = None
    max_arrival_ts: datetime | None = None


class _FeedAndTime(msgspec.Struct, frozen=True):
    feed: str
    ingested_at: datetime


@dataclass(frozen=True)
class RolledRange:
    """One rolled-up range: its key, and its claim and manifest as they were stored."""

    key: RangeKey
    claim: bytes
    manifest: bytes


def newest_generation(store: ObjectStore) -> Generation | None:
    """The catalogue in force; None before the first roll-up. One listing of one key, one read."""
    for info in store.list(layout.GENERATIONS, limit=1):
        return read_generation(store, info.key)
    return None


def read_generation(store: ObjectStore, key: str) -> Generation:
    """A stored generation. Raises ObjectMissingError."""
    return msgspec.json.decode(store.get(key), type=Generation)


def forget_generations(store: ObjectStore) -> None:
    """Let the next roll-up begin anew, as claims came to lie before a frontier. Until then readers list everything."""
    for info in [*store.list(layout.GENERATIONS)]:
        store.delete(info.key)


def rolled_ranges(
    store: ObjectStore,
    generation: Generation | None,
    known: Collection[RangeKey] = frozenset(),
    wanted: Callable[[Segment], bool] = lambda _: True,
) -> Iterator[RolledRange]:
    """Ranges of the catalogue that are not `known`, of segments that are `wanted`.

    A segment of which everything is known is not read.
    """
    if generation is None:
        return
    count_known = _counter_of_known(known)
    needed = [
        segment
        for segment in generation.segments
        if wanted(segment) and any(count_known(span) < span.ranges for span in segment.spans)
    ]
    for segment in needed:
        table = _read_segment(store, segment)
        columns = (
            table[name].to_pylist() for name in ("stream_id", "partition", "start", "claim", "manifest")
        )
        for stream_id, partition, start, claim, manifest in zip(*columns, strict=True):
            key = (stream_id, partition, start)
            if key not in known:
                yield RolledRange(key, claim, manifest)


def tail_keys(
    store: ObjectStore, root: str, generation: Generation | None, stream_prefix: str = ""
) -> list[str]:
    """Keys of claims or manifests (`root`) that are not rolled up, in order.

    They lie beyond the catalogue's frontiers, or before a chain that was rolled up
    although it began above 0. One listing per partition of each stream that can still
    grow, and one of the streams' names; `stream_prefix` restricts the streams.
    """
    frontiers: dict[str, dict[int, Span]] = defaultdict(dict)
    for (stream_id, partition), span in (generation.frontiers() if generation else {}).items():
        frontiers[stream_id][partition] = span
    begins = generation.begins() if generation else {}

    def of_stream(stream_id: str) -> list[tuple[str, str, str]]:
        """Prefixes to list, each with the key to start after and the one to end before ("": none)."""
        spans = frontiers.get(stream_id)
        if spans is None:
            return [(f"{root}{stream_id}/", "", "")]
        if any(span.is_whole for span in spans.values()):
            return []
        listed = []
        for folder in store.folders(f"{root}{stream_id}/"):
            prefix = f"{root}{stream_id}/{folder}/"
            span = spans.get(int(folder))
            # Ranges that start at the frontier's end or later.
            listed.append((prefix, f"{prefix}{span.end - 1:020}.json" if span and span.end else "", ""))
            begin = begins.get((stream_id, int(folder)), CHAIN_START)
            if begin > CHAIN_START:
                listed.append((prefix, "", f"{prefix}{begin:020}.json"))
        return listed

    streams = [name for name in store.folders(root) if name.startswith(stream_prefix)]
    with ThreadPoolExecutor(READ_THREADS) as pool:
        places = [place for found in pool.map(of_stream, streams) for place in found]
        keys = pool.map(lambda place: _keys_between(store, *place), places)
        return sorted(key for found in keys for key in found)


def _keys_between(store: ObjectStore, prefix: str, start_after: str, end_before: str) -> list[str]:
    keys = (info.key for info in store.list(prefix, start_after))
    return [*takewhile(lambda key: not end_before or key < end_before, keys)]


def fingerprint(keys: Iterable[RangeKey]) -> int:
    """A number for a set of ranges, whatever their order; those of disjoint sets add up (modulo 2**128)."""
    return (
        sum(
            int.from_bytes(hashlib.sha256(f"{stream}/{partition}/{start}".encode()).digest()[:16])
            for stream, partition, start in keys
        )
        % _MODULUS
    )


def landed_fingerprint(store: ObjectStore) -> str | None:
    """Short name of the set of landed ranges: how many, and a hash; None when nothing has landed.

    The same before and after a roll-up. Reads the newest generation and lists what is beyond it.
    """
    generation = newest_generation(store)
    tail = [layout.range_of(key) for key in tail_keys(store, layout.MANIFESTS, generation)]
    count = len(tail) + (generation.ranges if generation else 0)
    total = fingerprint(tail)
    for segment in generation.segments if generation else ():
        total = (total + int(segment.fingerprint, 16)) % _MODULUS
    return f"{count}-{total:032x}" if count else None


def feeds_and_days(manifests: Iterable[bytes]) -> Iterator[tuple[str, date]]:
    """Feed and date of claim (UTC) of each stored manifest."""
    decoder = msgspec.json.Decoder(_FeedAndTime)
    for data in manifests:
        found = decoder.decode(data)
        yield found.feed, found.ingested_at.date()


def roll_up(store: ObjectStore, now: datetime) -> Generation | None:
    """Roll up the finished ranges of hours that are closed at `now` (naive UTC).

    Returns the generation in force afterwards. Two at once, or one that dies at any
    put, leave one catalogue: a generation is create-only and built on the one before.
    """
    cut_off = (now - HOUR_GRACE).replace(minute=0, second=0, microsecond=0)
    lost = 0
    while True:
        generation = newest_generation(store)
        found = _finished_ranges(store, generation, cut_off)
        if not found:
            return generation
        segments = _with_segment(store, generation, found, now)
        following = Generation(
            n=generation.n + 1 if generation else 1, cut_off=cut_off, created_at=now, segments=segments
        )
        try:
            store.put_new(layout.generation_key(following.n), msgspec.json.encode(following))
        except ObjectExistsError:
            # Another roll-up was here: go on from what it wrote.
            lost += 1
            if lost == LOST_RACES:
                raise


def _finished_ranges(
    store: ObjectStore, generation: Generation | None, cut_off: datetime
) -> list[tuple[_RangeFacts, datetime, bytes, bytes]]:
    """What can be rolled up, in key order: contiguous finished ranges up to the last one of a closed hour."""
    claims = tail_keys(store, layout.CLAIMS, generation)
    finished = {layout.range_of(key) for key in tail_keys(store, layout.MANIFESTS, generation)}
    frontiers = generation.frontiers() if generation else {}
    found: list[tuple[_RangeFacts, datetime, bytes, bytes]] = []
    by_place: dict[tuple[str, int], list[RangeKey]] = defaultdict(list)
    for range_key in map(layout.range_of, claims):
        by_place[range_key[:2]].append(range_key)
    for place, range_keys in by_place.items():
        room = RANGES_PER_GENERATION - len(found)
        if room <= 0:
            break
        expected = frontiers[place].end if place in frontiers else CHAIN_START
        # What came before a chain that is rolled up already stays outside: a span has no hole.
        beyond = [range_key for range_key in range_keys if range_key[2] >= expected]
        leading = [*takewhile(finished.__contains__, beyond[:room])]
        found += _closed(store, leading, expected, cut_off)
    return found


def _closed(
    store: ObjectStore, range_keys: list[RangeKey], expected: int, cut_off: datetime
) -> list[tuple[_RangeFacts, datetime, bytes, bytes]]:
    """Of a partition's finished ranges those that follow one another, up to the last one claimed in a closed hour.

    A later claim closes the ones before it, whatever their clocks said. Of a chain that
    does not begin at 0 (`chains`) nothing is taken until it does.
    """
    claims = store.get_many([layout.claim_key(*range_key) for range_key in range_keys])
    facts = []
    closed = 0
    decoder = msgspec.json.Decoder(_RangeFacts)
    for data in claims:
        claim = decoder.decode(data)
        if claim.start > expected:
            break
        # One that overlaps is taken, too: beyond the frontier nobody would find it.
        expected = max(expected, claim.end)
        facts.append(claim)
        if claim.claimed_at is not None and claim.claimed_at < cut_off:
            closed = len(facts)
    manifests = store.get_many([layout.manifest_key(*range_key) for range_key in range_keys[:closed]])
    found = []
    for claim, claim_data, manifest_data in zip(facts, claims, manifests, strict=False):
        manifest = decoder.decode(manifest_data)
        if manifest.end != claim.end:
            break
        assert claim.claimed_at is not None
        found.append((manifest, claim.claimed_at, claim_data, manifest_data))
    return found


def _with_segment(
    store: ObjectStore,
    generation: Generation | None,
    found: list[tuple[_RangeFacts, datetime, bytes, bytes]],
    now: datetime,
) -> list[Segment]:
    """The segments of the next generation: those before and a new one, merged where many are of a size."""
    segments = [*generation.segments] if generation else []
    table = _segment_table(found)
    level = 0
    while True:
        # What is merged in one go is stored once.
        last = segments[len(segments) - (FAN_OUT - 1) :]
        mergeable = (
            len(last) == FAN_OUT - 1
            and all(segment.level == level for segment in last)
            and table.num_rows + sum(segment.ranges for segment in last) <= MERGED_RANGES
        )
        if not mergeable:
            return [*segments, _put_segment(store, table, level, now)]
        table = _merged(store, last, table)
        segments, level = segments[: -len(last)], level + 1


def _segment_table(found: list[tuple[_RangeFacts, datetime, bytes, bytes]]) -> pa.Table:
    import pyarrow as pa

    moment = pa.timestamp("us")
    facts = [item[0] for item in found]
    columns: dict[str, pa.Array] = {
        "stream_id": pa.array([f.stream_id for f in facts], pa.string()),
        "partition": pa.array([f.partition for f in facts], pa.int32()),
        "start": pa.array([f.start for f in facts], pa.int64()),
        "end": pa.array([f.end for f in facts], pa.int64()),
        "feed": pa.array([f.feed for f in facts], pa.string()),
        "claimed_at": pa.array([item[1] for item in found], moment),
        "is_whole": pa.array([f.extract_id is not None for f in facts], pa.bool_()),
        "source_file": pa.array([f.source_file for f in facts], pa.string()),
        "rows": pa.array([f.rows for f in facts], pa.int64()),
        "bytes": pa.array([f.bytes for f in facts], pa.int64()),
        "min_event_ts": pa.array([f.min_event_ts for f in facts], moment),
        "max_event_ts": pa.array([f.max_event_ts for f in facts], moment),
        "min_arrival_ts": pa.array([f.min_arrival_ts for f in facts], moment),
        "max_arrival_ts": pa.array([f.max_arrival_ts for f in facts], moment),
        "claim": pa.array([item[2] for item in found], pa.binary()),
        "manifest": pa.array([item[3] for item in found], pa.binary()),
    }
    return pa.table(columns)


def _merged(store: ObjectStore, segments: list[Segment], newest: pa.Table) -> pa.Table:
    import pyarrow as pa

    tables = [_read_segment(store, segment) for segment in segments]
    whole = pa.concat_tables([*tables, newest])
    return whole.sort_by([(name, "ascending") for name in ("stream_id", "partition", "start")])


def _put_segment(store: ObjectStore, table: pa.Table, level: int, now: datetime) -> Segment:
    import io

    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=["stream_id", "partition", "feed"],
        row_group_size=16_384,
    )
    data = sink.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    key = layout.segment_key(now, sha256)
    # Taken means the same content: the same ranges, from another roll-up of the same second.
    with contextlib.suppress(ObjectExistsError):
        store.put_new(key, data)
    return _described(table, key, sha256, len(data), level)


def _described(table: pa.Table, key: str, sha256: str, size: int, level: int) -> Segment:
    days: dict[str, Counter[date]] = defaultdict(Counter)
    for feed, claimed_at in zip(table["feed"].to_pylist(), table["claimed_at"].to_pylist(), strict=True):
        days[feed][claimed_at.date()] += 1
    places: dict[tuple[str, int], list[tuple[int, int, bool]]] = defaultdict(list)
    columns = (table[name].to_pylist() for name in ("stream_id", "partition", "start", "end", "is_whole"))
    for stream_id, partition, start, end, is_whole in zip(*columns, strict=True):
        places[stream_id, partition].append((start, end, is_whole))
    spans = [
        Span(
            stream_id,
            partition,
            first_start=min(start for start, _, _ in ranges),
            last_start=max(start for start, _, _ in ranges),
            end=max(end for _, end, _ in ranges),
            ranges=len(ranges),
            is_whole=any(is_whole for _, _, is_whole in ranges),
        )
        for (stream_id, partition), ranges in sorted(places.items())
    ]
    total = fingerprint(
        (stream_id, partition, start)
        for (stream_id, partition), ranges in places.items()
        for start, _, _ in ranges
    )
    return Segment(
        key=key,
        sha256=sha256,
        bytes=size,
        ranges=table.num_rows,
        level=level,
        days={feed: dict(sorted(counted.items())) for feed, counted in sorted(days.items())},
        fingerprint=f"{total:032x}",
        spans=spans,
    )


def _read_segment(store: ObjectStore, segment: Segment) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    cure = (
        f"remove everything under {layout.GENERATIONS} and roll up again (`petwellness catalogue`):"
        " claims and manifests are still there"
    )
    try:
        data = store.get(segment.key)
    except ObjectMissingError as error:
        raise CatalogueDamagedError(f"{segment.key} is missing from {store.url}; {cure}") from error
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        raise CatalogueDamagedError(f"{segment.key} in {store.url} is not what was written; {cure}")
    return pq.read_table(pa.BufferReader(data))


def _counter_of_known(known: Collection[RangeKey]) -> Callable[[Span], int]:
    """How many of a span's ranges are known, without a look at the ranges."""
    starts: dict[tuple[str, int], list[int]] = defaultdict(list)
    for stream_id, partition, start in known:
        starts[stream_id, partition].append(start)
    for found in starts.values():
        found.sort()

    def count(span: Span) -> int:
        of_place = starts.get((span.stream_id, span.partition), [])
        return bisect_right(of_place, span.last_start) - bisect_left(of_place, span.first_start)

    return count
