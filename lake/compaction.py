"""Compaction of an arrival day: many landing files into few large, ordered ones, shown by a snapshot.

Order: clinic at capture, device, event time, then the record's key. The sort runs
out of core, so memory follows a setting and not the day. Nothing is visible before
the snapshot's create-only put, and that only comes after the stored files were read
back and proved equal to what went in. Which files a reader opens is `snapshots`'
business, the comparison is `proof`'s.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from contracts.columns import TELEMETRY_SCHEMA
from contracts.registry import TELEMETRY_FEED
from lake import layout
from lake.landing import COMPRESSION, Manifest, day_manifests, dictionary_columns, utc_now
from lake.proof import LeftOut, Proof, RowsDifferError, prove_same_rows, redaction_sql
from lake.quarantine import QuarantinedOffsets
from lake.reading import check_schema_version
from lake.scratch import scratch_folder
from lake.snapshots import (
    COMPACTION_VERSION,
    CompactedFile,
    InForce,
    Snapshot,
    SourceRange,
    StoredRows,
    as_landed,
    latest_snapshot,
)
from lake.sql import connect, telemetry_sql
from lake.sql_text import literal
from lake.store import LocalStore, ObjectExistsError, ObjectMissingError, ObjectStore

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lake.settings import CompactionSettings

ORDER = ("capture_clinic_id", "device_id", "event_ts", "stream_id", "kafka_partition", "kafka_offset")
_ORDER_SQL = ", ".join((f"{ORDER[0]} nulls first", *ORDER[1:]))

# A device's day is 1,440 rows: it lies in one or two row groups, which are 2.5 MB to read.
ROW_GROUP_ROWS = 32_768
# Long payloads: a row group and what the next batch adds stay small in memory and in a file.
ROW_GROUP_BYTES = 32 * 1024 * 1024
BATCH_ROWS = 4_096
MAX_FILE_BYTES = 128 * 1024 * 1024

# The file being written, what the sort holds beyond its limit and the interpreter take the rest.
MEMORY_BESIDE_SORT = 512 * 1024 * 1024
SORT_MEMORY_SHARE = 0.7
# An out-of-core sort still pins memory in proportion to what it sorts: 1.9 GB of rows fitted in 256 MiB and
# not in 200, 12.6 GB in 1 GiB and not in 512 MiB, which is 120 MB and a fifteenth of the rows. A larger day is
# sorted in parts that need about half of what there is.
SORT_FIXED_BYTES = 120 * 1000**2
PART_BYTES_PER_MEMORY = 8
# Typed columns of one row in memory; its payload comes on top.
ROW_BYTES = 260
FETCH_THREADS = 2

# From this share of late rows on, the day is sorted anew; below it they get files of their own.
RESORT_SHARE = 0.1

MEMORY_SETTING = "PETWELLNESS_COMPACTION_MEMORY_BYTES"
SCRATCH_SETTING = "PETWELLNESS_COMPACTION_SCRATCH_BYTES"

_SORTED_INTEGERS = ("kafka_offset", "arrival_ts", "event_ts")


class CompactionError(Exception):
    """Base of what compaction raises besides the store's own errors."""


class DayOpenError(CompactionError):
    """Ranges of this arrival day can still be claimed."""


class DamagedObjectError(CompactionError):
    """An object that a compaction has to read is missing or is not what its manifest or snapshot says."""


class CompactionResourceError(CompactionError):
    """The allowed memory or scratch space is too small."""


class CompactionTooOldError(CompactionError):
    """A compaction took so long that `clean` may have taken its files for orphans."""


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did. `snapshot` is the one in force afterwards (None: nothing landed that day).

    `written` says whether this compaction put it; `lost` that another one came first
    with its own. Seconds are by wall clock.
    """

    day: date
    snapshot: Snapshot | None
    written: bool = False
    lost: bool = False
    rows_sorted: int = 0
    files_kept: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    """What a compaction reads and what it leaves as it is."""

    base: Snapshot | None
    next_n: int
    kept: list[CompactedFile]
    rewritten: list[CompactedFile]
    fresh: list[tuple[Manifest, StoredRows]]
    redactions: list[LeftOut]

    @property
    def rows(self) -> int:
        return sum(f.rows for f in self.rewritten) + sum(stored.rows for _, stored in self.fresh)

    @property
    def objects(self) -> list[tuple[str, str]]:
        """Keys and sha256 of what is read."""
        return [
            *((file.key, file.sha256) for file in self.rewritten),
            *((stored.key, stored.sha256) for _, stored in self.fresh if stored.rows),
        ]


def closed_before(now: datetime, grace_s: float) -> date:
    """The first arrival day that may still get claims at `now` (naive UTC); earlier ones are closed."""
    return (now - timedelta(seconds=grace_s)).date()


def compact_day(
    store: ObjectStore,
    day: date,
    settings: CompactionSettings,
    scratch: Path,
    *,
    redactions: Sequence[LeftOut] = (),
    in_force: InForce = as_landed,
    now: datetime | None = None,
    even_if_open: bool = False,
    from_landing: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> CompactionReport:
    """Write the next snapshot of an arrival day, unless the one in force already says everything.

    It covers every finished range of the day and leaves out what `redactions` name.
    Files of the snapshot in force that no new redaction touches are kept; with
    `from_landing`, or once rows that it left out are released from quarantine, all rows
    are read from landing files again, from those that `in_force` names for their ranges.
    `now` is naive UTC. `scratch` is a folder for what does not fit in memory.

    Raises DayOpenError for a day that can still get claims (unless `even_if_open`),
    DamagedObjectError naming the object, CompactionResourceError naming the setting,
    NewerSchemaError for a range that a newer release landed,
    RowsDifferError when the stored files are not what went in (no snapshot then).
    """
    started = now or utc_now()
    if not even_if_open and day >= closed_before(started, settings.grace_s):
        raise DayOpenError(
            f"arrival day {day} may still get claims: it is closed {settings.grace_s:.0f} s after its end"
            f" (PETWELLNESS_COMPACTION_GRACE_S). Wait, or `petwellness compact --day {day} --even-if-open`"
        )
    begun = time.monotonic()
    plan = _plan(store, day, redactions, in_force, from_landing)
    if plan is None:
        return CompactionReport(day, latest_snapshot(store, day))
    work = _Work(store, day, settings, plan, started, begun, say)
    with scratch_folder(scratch, "compaction") as folder:
        return work.run(folder)


def _plan(
    store: ObjectStore,
    day: date,
    redactions: Sequence[LeftOut],
    in_force: InForce,
    from_landing: bool,
) -> _Plan | None:
    """What there is to do; None when the snapshot in force covers all ranges and redactions."""
    newest = latest_snapshot(store, day)
    manifests = day_manifests(store, TELEMETRY_FEED, day)
    concerning = _concerning(redactions, manifests, newest)
    base = None if from_landing or (newest and lacks_released_rows(newest, redactions)) else newest
    covered = {source.range_key for source in base.ranges} if base else set()
    fresh = [(m, in_force(m)) for m in manifests if m.range_key not in covered]
    check_schema_version(m for m, _ in fresh)
    applied = set(base.redactions) if base else set()
    pending = [r for r in concerning if r.redaction_id not in applied]
    if not fresh and not pending:
        return None
    files = base.files if base else []
    fresh_rows = sum(stored.rows for _, stored in fresh)
    if fresh_rows and fresh_rows >= RESORT_SHARE * sum(f.rows for f in files):
        rewritten = [*files]
    else:
        rewritten = [f for f in files if any(_may_touch(r, f) for r in pending)]
    kept = [f for f in files if f not in rewritten]
    return _Plan(base, (newest.n if newest else 0) + 1, kept, rewritten, fresh, concerning)


def _concerning(
    redactions: Sequence[LeftOut], manifests: Sequence[Manifest], newest: Snapshot | None
) -> list[LeftOut]:
    """Redactions whose interval meets the day's times of receipt, and those that were applied before."""
    applied = set(newest.redactions) if newest else set()
    low = min((m.min_arrival_ts for m in manifests if m.min_arrival_ts), default=None)
    high = max((m.max_arrival_ts for m in manifests if m.max_arrival_ts), default=None)

    def concerns(left_out: LeftOut) -> bool:
        if isinstance(left_out, QuarantinedOffsets):
            ranges = ((m.stream_id, m.partition, m.start, m.end) for m in manifests)
            return not left_out.is_released and any(left_out.span.meets(*bounds) for bounds in ranges)
        return left_out.redaction_id in applied or (
            low is not None
            and high is not None
            and left_out.from_us <= micros(high)
            and left_out.to_us > micros(low)
        )

    return [*filter(concerns, redactions)]


def lacks_released_rows(snapshot: Snapshot, redactions: Sequence[LeftOut]) -> bool:
    """Whether a snapshot left out rows of an entry of the quarantine that was released since."""
    applied = {*snapshot.redactions}
    return any(
        isinstance(one, QuarantinedOffsets) and one.is_released and one.redaction_id in applied
        for one in redactions
    )


def _may_touch(redaction: LeftOut, file: CompactedFile) -> bool:
    if isinstance(redaction, QuarantinedOffsets):
        # Which offsets a file holds is not known.
        return True
    return (
        file.min_device_id <= redaction.device_id <= file.max_device_id
        and redaction.from_us <= micros(file.max_arrival_ts)
        and redaction.to_us > micros(file.min_arrival_ts)
    )


def micros(moment: datetime) -> int:
    """Epoch microseconds of a naive UTC time."""
    return (moment - datetime(1970, 1, 1)) // timedelta(microseconds=1)


class _Work:
    """One compaction under way."""

    def __init__(
        self,
        store: ObjectStore,
        day: date,
        settings: CompactionSettings,
        plan: _Plan,
        started: datetime,
        begun: float,
        say: Callable[[str], None],
    ) -> None:
        self._begun = begun
        self._store, self._day, self._settings, self._plan = store, day, settings, plan
        self._started, self._say = started, say
        self._writer = uuid.uuid4().hex[:12]
        self._seconds: dict[str, float] = {}
        self._put: list[str] = []

    def run(self, folder: Path) -> CompactionReport:
        plan = self._plan
        self._say(
            f"{self._day}: {plan.rows:,} rows of {len(plan.fresh):,} landing files and"
            f" {len(plan.rewritten)} compacted ones to sort, {len(plan.kept)} files stay"
        )
        with self._timed("fetch"):
            inputs = fetch(self._store, plan.objects, folder, self._say)
        with self._timed("sort_and_write"):
            files = self._sort(inputs, folder) if inputs else []
        with self._timed("prove"):
            proof = self._prove(inputs, files, folder)
        snapshot = self._snapshot(files, proof)
        self._refuse_if_too_old()
        try:
            self._store.put_new(layout.snapshot_key(self._day, plan.next_n), msgspec.json.encode(snapshot))
        except ObjectExistsError:
            # Whether another's or ours with its answer lost is in what is stored.
            return self._after_a_race(snapshot)
        self._say(
            f"{self._day}: snapshot {snapshot.n} with {len(snapshot.files)} files, {snapshot.rows:,} rows,"
            f" {snapshot.bytes:,} bytes"
        )
        return self._report(snapshot, written=True)

    def _after_a_race(self, mine: Snapshot) -> CompactionReport:
        stored = latest_snapshot(self._store, self._day)
        if stored == mine:
            return self._report(stored, written=True)
        for key in self._put:
            self._store.delete(key)
        self._say(f"{self._day}: another compaction put snapshot {mine.n} first; this one's files are gone")
        return self._report(stored, lost=True)

    def _report(
        self, snapshot: Snapshot | None, written: bool = False, lost: bool = False
    ) -> CompactionReport:
        return CompactionReport(
            self._day,
            snapshot,
            written,
            lost,
            rows_sorted=self._plan.rows,
            files_kept=len(self._plan.kept),
            seconds={name: round(seconds, 3) for name, seconds in self._seconds.items()},
        )

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - started

    @contextmanager
    def _session(self, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """DuckDB within the settings; what it lacks becomes an error that names the setting."""
        import duckdb

        spill = folder / "spill"
        spill.mkdir(exist_ok=True)
        settings = self._settings
        try:
            with connect(
                memory_bytes=sort_memory_bytes(settings),
                scratch=spill,
                scratch_bytes=settings.scratch_bytes,
            ) as con:
                yield con
        except (duckdb.OutOfMemoryException, duckdb.IOException, OSError) as error:
            # What fails while rows stream out arrives as an OSError with DuckDB's text.
            reason = str(error).splitlines()[0]
            raise CompactionResourceError(
                f"compacting {self._plan.rows:,} rows of {self._day} failed in {settings.memory_bytes:,} bytes of"
                f" memory and {settings.scratch_bytes:,} of scratch space in {folder.parent} ({reason}); raise"
                f" {MEMORY_SETTING} or {SCRATCH_SETTING}, or free space there"
            ) from error

    def _sort(self, inputs: list[str], folder: Path) -> list[CompactedFile]:
        """Sort everything that is read and store it in files, part by part where it is much."""
        writer = _FileWriter(self._settings.file_bytes, self._store_file)
        with self._session(folder) as con, ThreadPoolExecutor(1) as background:
            rows, _ = redaction_sql(con, telemetry_sql(con, inputs), self._plan.redactions)
            raw_bytes = _raw_bytes(con, inputs)
            parts = _count_parts(raw_bytes, sort_memory_bytes(self._settings))
            self._check_scratch(raw_bytes // parts, folder)
            done = 0
            for condition in _part_conditions(con, rows, parts):
                part = con.sql(f"from ({rows}) where {condition} order by {_ORDER_SQL}")
                reader = part.to_arrow_reader(BATCH_ROWS)
                # One row group is encoded while the next one comes out of the sort.
                pending = None
                for table in _row_groups(reader):
                    if pending is not None:
                        pending.result()
                    pending = background.submit(writer.add, table)
                    done += table.num_rows
                    if done // 1_000_000 > (done - table.num_rows) // 1_000_000:
                        self._say(f"{self._day}: {done:,} of {self._plan.rows:,} rows written")
                if pending is not None:
                    pending.result()
            writer.close()
        return writer.files

    def _check_scratch(self, needed: int, folder: Path) -> None:
        """Refuse before the work what would fail in the middle of it; a sort spills what it sorts at most."""
        free = shutil.disk_usage(folder).free
        if needed > min(free, self._settings.scratch_bytes):
            raise CompactionResourceError(
                f"compacting {self._plan.rows:,} rows of {self._day} may need {needed:,} bytes of scratch space;"
                f" {folder.parent} has {free:,} free and {SCRATCH_SETTING} allows"
                f" {self._settings.scratch_bytes:,}: free space, raise it or set PETWELLNESS_HOME"
            )

    def _store_file(self, data: bytes, position: int) -> str:
        key = layout.compacted_key(TELEMETRY_FEED, self._day, self._started, self._writer, position)
        self._put.append(key)
        # The name is this writer's alone: taken means that the put's answer was lost.
        with contextlib.suppress(ObjectExistsError):
            self._store.put_new(key, data)
        return key

    def _prove(self, inputs: list[str], files: list[CompactedFile], folder: Path) -> Proof:
        """Read back what was stored and hold it against what was read."""
        if not inputs:
            return Proof(0, 0)
        stored = fetch(self._store, [(file.key, file.sha256) for file in files], folder, self._say)
        with self._session(folder) as con:
            before = telemetry_sql(con, inputs)
            after = telemetry_sql(con, stored) if stored else f"from ({before}) where false"
            proof = prove_same_rows(con, before, after, self._plan.redactions)
        if not proof.passed or proof.rows_before != self._plan.rows:
            raise RowsDifferError(
                f"compacting {self._day}: {self._plan.rows:,} rows were to be read, {proof.rows_before:,} were,"
                f" {proof.rows_after:,} are stored and {proof.redacted_rows:,} redacted; no snapshot was"
                f" written. {'; '.join(proof.differences)}"
            )
        return proof

    def _snapshot(self, files: list[CompactedFile], proof: Proof) -> Snapshot:
        plan = self._plan
        before = plan.base.ranges if plan.base else []
        ranges = [
            *(
                msgspec.structs.replace(
                    source,
                    redacted_rows=source.redacted_rows + proof.redacted_by_file.get(source.source_file, 0),
                )
                for source in before
            ),
            *(
                SourceRange(
                    stream_id=m.stream_id,
                    partition=m.partition,
                    start=m.start,
                    end=m.end,
                    source_file=m.source_file,
                    rows=m.rows,
                    # What a replacement of the landing file lacks was redacted before.
                    redacted_rows=m.rows - stored.rows + proof.redacted_by_file.get(m.source_file, 0),
                )
                for m, stored in plan.fresh
            ),
        ]
        all_files = [*plan.kept, *files]
        applied = {*(plan.base.redactions if plan.base else ()), *(r.redaction_id for r in plan.redactions)}
        snapshot = Snapshot(
            feed=TELEMETRY_FEED,
            day=self._day,
            n=plan.next_n,
            created_at=self._started + timedelta(seconds=time.monotonic() - self._begun),
            version=COMPACTION_VERSION,
            base=plan.base.n if plan.base else None,
            rows=sum(file.rows for file in all_files),
            redacted_rows=sum(source.redacted_rows for source in ranges),
            redactions=sorted(applied),
            files=all_files,
            ranges=sorted(ranges, key=lambda source: source.range_key),
        )
        if snapshot.rows + snapshot.redacted_rows != sum(source.rows for source in ranges):
            raise RowsDifferError(
                f"compacting {self._day}: {snapshot.rows:,} rows stored and {snapshot.redacted_rows:,} redacted"
                f" are not the {sum(source.rows for source in ranges):,} that landed; no snapshot was written"
            )
        return snapshot

    def _refuse_if_too_old(self) -> None:
        allowed_s = self._settings.clean_after_s / 2
        if time.monotonic() - self._begun > allowed_s:
            raise CompactionTooOldError(
                f"compacting {self._day} took longer than {allowed_s:.0f} s, half the age at which unnamed files"
                " are removed (PETWELLNESS_COMPACTION_CLEAN_AFTER_S); raise it and compact again"
            )


def _row_groups(reader: Any) -> Iterator[pa.Table]:
    """Batches of a sorted reader as tables of about ROW_GROUP_ROWS, in the contract's schema."""
    import pyarrow as pa

    batches: list[Any] = []
    rows = size = 0
    for batch in reader:
        if not batch.num_rows:
            continue
        batches.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(batches).cast(TELEMETRY_SCHEMA)
            batches, rows, size = [], 0, 0
    if batches:
        yield pa.Table.from_batches(batches).cast(TELEMETRY_SCHEMA)


def sort_memory_bytes(settings: CompactionSettings) -> int:
    """What of the allowed memory the sort gets."""
    return int((settings.memory_bytes - MEMORY_BESIDE_SORT) * SORT_MEMORY_SHARE)


def _raw_bytes(con: duckdb.DuckDBPyConnection, paths: list[str]) -> int:
    """Size in memory of all rows of some files, from their footers."""
    [(size,)] = con.execute(
        "select coalesce(sum(num_values) * ? + sum(total_uncompressed_size), 0) from parquet_metadata(?)"
        " where path_in_schema = 'payload'",
        [ROW_BYTES, paths],
    ).fetchall()
    return int(size)


def _count_parts(raw_bytes: int, memory_bytes: int) -> int:
    """In how many parts rows are sorted, so that each fits."""
    room = max(1, memory_bytes - SORT_FIXED_BYTES) * PART_BYTES_PER_MEMORY
    return max(1, -(-raw_bytes // room))


def _part_conditions(con: duckdb.DuckDBPyConnection, rows: str, parts: int) -> list[str]:
    """Conditions that cut rows into parts of about equal size that follow one another in the order of files.

    Each part reads all rows again: 0.45 us of CPU a row, against 5 to sort and write it.
    Scattering them to scratch files first costs 2.3 once, and a third of the day in space.
    """
    if parts == 1:
        return ["true"]
    starts = con.execute(
        f"""
        with devices as (
            select capture_clinic_id, device_id, count(*) as row_count from ({rows}) group by all
        ),
        placed as (
            select capture_clinic_id, device_id, row_count,
                sum(row_count) over (order by capture_clinic_id nulls first, device_id) as rows_through,
                sum(row_count) over () as all_rows
            from devices
        ),
        cut as (
            select capture_clinic_id, device_id, (rows_through - row_count) * ? // all_rows as part from placed
        )
        select capture_clinic_id, device_id from cut
        qualify row_number() over (partition by part order by capture_clinic_id nulls first, device_id) = 1
        order by capture_clinic_id nulls first, device_id
        """,
        [parts],
    ).fetchall()
    edges = [None, *starts[1:], None]
    conditions = []
    for low, high in pairwise(edges):
        bounds = [f"not {_is_before(*low)}"] if low else []
        bounds += [_is_before(*high)] if high else []
        conditions.append(" and ".join(bounds) or "true")
    return conditions


def _is_before(clinic_id: str | None, device_id: str) -> str:
    """Condition of rows whose clinic and device come before the given ones in the order of files."""
    device = f"device_id < {literal(device_id)}"
    if clinic_id is None:
        return f"(capture_clinic_id is null and {device})"
    clinic = literal(clinic_id)
    return (
        f"(capture_clinic_id is null or capture_clinic_id < {clinic}"
        f" or (capture_clinic_id = {clinic} and {device}))"
    )


class _FileWriter:
    """Row groups in order into files of about `file_bytes`; each full file goes to `store`."""

    def __init__(self, file_bytes: int, store: Callable[[bytes, int], str]) -> None:
        self.files: list[CompactedFile] = []
        self._file_bytes, self._store = file_bytes, store
        self._sink: io.BytesIO | None = None
        self._parquet: Any = None
        self._bounds: dict[str, list[Any]] = {}
        self._rows = 0

    def add(self, table: pa.Table) -> None:
        """Write a row group; closes the file when it is full."""
        import pyarrow.compute as pc

        if self._parquet is None:
            self._open()
        assert self._sink is not None
        self._parquet.write_table(table, row_group_size=table.num_rows)
        self._rows += table.num_rows
        for name in ("event_ts", "arrival_ts", "device_id", "capture_clinic_id"):
            bounds = pc.min_max(table[name]).as_py()
            known = [value for value in bounds.values() if value is not None]
            self._bounds[name] = [*self._bounds.get(name, []), *known]
        if self._sink.tell() >= self._file_bytes:
            self.close()

    def close(self) -> None:
        """Store what is left."""
        if self._parquet is None:
            return
        assert self._sink is not None
        self._parquet.close()
        data = self._sink.getvalue()
        if len(data) > MAX_FILE_BYTES:
            raise CompactionError(f"a compacted file of {len(data):,} bytes exceeds {MAX_FILE_BYTES:,}")
        key = self._store(data, len(self.files))
        low: dict[str, Any] = {name: min(values, default=None) for name, values in self._bounds.items()}
        high: dict[str, Any] = {name: max(values, default=None) for name, values in self._bounds.items()}
        self.files.append(
            CompactedFile(
                key=key,
                rows=self._rows,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                min_event_ts=low["event_ts"],
                max_event_ts=high["event_ts"],
                min_arrival_ts=low["arrival_ts"],
                max_arrival_ts=high["arrival_ts"],
                min_device_id=low["device_id"],
                max_device_id=high["device_id"],
                min_clinic_id=low["capture_clinic_id"],
                max_clinic_id=high["capture_clinic_id"],
            )
        )
        self._sink, self._parquet, self._bounds, self._rows = None, None, {}, 0

    def _open(self) -> None:
        import pyarrow.parquet as pq

        self._sink = io.BytesIO()
        position = {name: i for i, name in enumerate(TELEMETRY_SCHEMA.names)}
        self._parquet = pq.ParquetWriter(
            self._sink,
            TELEMETRY_SCHEMA,
            compression=COMPRESSION,
            use_dictionary=dictionary_columns(TELEMETRY_SCHEMA),
            column_encoding=dict.fromkeys(_SORTED_INTEGERS, "DELTA_BINARY_PACKED"),
            store_decimal_as_integer=True,
            write_page_index=True,
            sorting_columns=[
                pq.SortingColumn(position[name], nulls_first=name == "capture_clinic_id") for name in ORDER
            ],
            # Devices of one clinic span all ids, so that bounds alone do not tell row groups apart.
            bloom_filter_options={"device_id": {"ndv": 256, "fpp": 0.01}},
        )


def fetch(
    store: ObjectStore, objects: Sequence[tuple[str, str]], folder: Path, say: Callable[[str], None]
) -> list[str]:
    """Local paths of objects whose sha256 is as given, in the same order; copies them where they are remote.

    Raises DamagedObjectError naming the first that is missing or differs.
    """

    def one(item: tuple[str, str]) -> str:
        key, sha256 = item
        try:
            data = store.get(key)
        except ObjectMissingError as error:
            raise DamagedObjectError(
                f"{key} is missing from {store.url}; restore it from the lake's backup"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedObjectError(
                f"{key} in {store.url} is not what its manifest or snapshot says (sha256 differs); restore it"
                " from the lake's backup"
            )
        if isinstance(store, LocalStore):
            return store.uri(key)
        path = folder / hashlib.sha256(key.encode()).hexdigest()
        path.write_bytes(data)
        return str(path)

    with ThreadPoolExecutor(FETCH_THREADS) as pool:
        return [*pool.map(one, objects)]
