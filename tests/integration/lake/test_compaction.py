"""Compaction: each landed row once for every reader, wherever a compactor dies and whoever comes second."""

import contextlib
import shutil
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from contracts.columns import TELEMETRY_SCHEMA
from lake import compaction, layout
from lake.compaction import (
    CompactionResourceError,
    CompactionTooOldError,
    DamagedObjectError,
    DayOpenError,
    compact_day,
)
from lake.landing import FILLED_BY_CLAIM, Manifest
from lake.proof import RowsDifferError, prove_same_rows
from lake.quarantine import QuarantinedOffsets, Span
from lake.redactions import DeviceArrivals
from lake.settings import CompactionSettings
from lake.snapshots import LandedObject, as_landed, day_files, device_rows, latest_snapshot
from lake.store import LocalStore, ObjectStore
from lake.upkeep import clean, prove_day, ranges_by_day, waiting_days

DAY = date(2026, 6, 3)
CLAIMED = datetime(2026, 6, 3, 10)
NOW = datetime(2026, 6, 4, 12)
SETTINGS = CompactionSettings()
FOREVER = 2**62

Make = Callable[..., Any]


@pytest.fixture
def land(claim_telemetry: Make, finish: Make) -> Make:
    def land(store: ObjectStore, start: int, rows: int = 40, partition: int = 0, **more: Any) -> Manifest:
        """Land a range of the day."""
        return finish(store, claim_telemetry(store, start, rows, CLAIMED, partition, **more))

    return land


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def compact(store: ObjectStore, scratch: Path, settings: CompactionSettings = SETTINGS, **more: Any) -> Any:
    return compact_day(store, DAY, settings, scratch, **{"now": NOW} | more)


def rows_of(store: ObjectStore, keys: list[str]) -> pa.Table:
    tables = [pq.read_table(pa.BufferReader(store.get(key))) for key in keys]
    return pa.concat_tables(tables) if tables else TELEMETRY_SCHEMA.empty_table()


def visible(store: ObjectStore) -> pa.Table:
    """What a reader sees of the day, in order of the records' keys."""
    table = rows_of(store, day_files(store, "telemetry_events", DAY).keys)
    return table.sort_by([(n, "ascending") for n in ("stream_id", "kafka_partition", "kafka_offset")])


def landed(store: ObjectStore, manifests: list[Manifest]) -> pa.Table:
    table = rows_of(store, [m.source_file for m in manifests])
    return table.sort_by([(n, "ascending") for n in ("stream_id", "kafka_partition", "kafka_offset")])


@pytest.mark.also_on_s3
def test_a_day_becomes_one_ordered_file_with_every_column(
    lake: ObjectStore, land: Make, scratch: Path
) -> None:
    manifests = [land(lake, start, partition=p) for p in (0, 1) for start in (0, 40, 80)]
    before = landed(lake, manifests)
    report = compact(lake, scratch)
    snapshot = report.snapshot
    assert report.written and snapshot == latest_snapshot(lake, DAY)
    assert (snapshot.n, snapshot.rows, snapshot.redacted_rows, snapshot.base) == (1, 240, 0, None)
    [file] = snapshot.files
    data = lake.get(file.key)
    assert file.key.startswith("compacted/telemetry_events/date=2026-06-03/")
    table = pq.read_table(pa.BufferReader(data))
    assert table.schema.equals(TELEMETRY_SCHEMA)
    order = [
        (row["capture_clinic_id"] or "", row["device_id"], row["event_ts"], row["kafka_partition"])
        for row in table.to_pylist()
    ]
    assert order == sorted(order)
    assert visible(lake).equals(before)
    assert (file.rows, file.bytes) == (240, len(data))
    assert (file.min_event_ts, file.max_event_ts) == (min(r[2] for r in order), max(r[2] for r in order))
    devices = table["device_id"].to_pylist()
    assert (file.min_device_id, file.max_device_id) == (min(devices), max(devices))
    assert [s.range_key for s in snapshot.ranges] == [m.range_key for m in manifests]
    assert [s.rows for s in snapshot.ranges] == [40] * 6
    metadata = pq.read_metadata(pa.BufferReader(data))
    first = metadata.row_group(0)
    assert [c.column_index for c in first.sorting_columns][:3] == [
        TELEMETRY_SCHEMA.get_field_index(name) for name in ("capture_clinic_id", "device_id", "event_ts")
    ]
    assert first.column(0).has_offset_index
    assert not [*scratch.iterdir()]
    # Landing originals stay, and nothing of the compacted prefix is under them.
    assert len([*lake.list(layout.LANDING)]) == 6


def test_one_devices_rows_are_the_same_before_and_after(lake: ObjectStore, land: Make, scratch: Path) -> None:
    land(lake, 0, 200)
    before = device_rows(lake, DAY, "collar-0003")
    assert before.num_rows
    compact(lake, scratch)
    land(lake, 200, 50)
    after = device_rows(lake, DAY, "collar-0003")
    assert after.filter(pa.compute.less(after["kafka_offset"], 200)).equals(before)
    assert after.num_rows > before.num_rows
    assert device_rows(lake, DAY, "nobody").num_rows == 0


def test_a_devices_day_lies_in_few_row_groups(
    tmp_path: Path, land: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "lake")
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 300)
    monkeypatch.setattr(compaction, "BATCH_ROWS", 100)
    land(store, 0, 3000)
    compact(store, scratch)
    [file] = latest_snapshot(store, DAY).files
    path = store.uri(file.key)
    con = duckdb.connect()
    for device in range(12):
        probed = con.execute(
            "select bloom_filter_excludes from parquet_bloom_probe(?, 'device_id', ?)",
            [path, f"collar-{device:04}"],
        ).fetchall()
        assert 1 <= sum(not excluded for (excluded,) in probed) <= 3
        assert len(probed) >= 10


def test_many_files_parts_and_payloads_keep_their_order(
    tmp_path: Path, land: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorted in several parts and closed after every row group: still one order over all files."""
    store = LocalStore(tmp_path / "lake")
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 64)
    monkeypatch.setattr(compaction, "BATCH_ROWS", 32)
    monkeypatch.setattr(compaction, "_count_parts", lambda raw, memory: 5)
    manifests = [land(store, start, 100, partition=p) for p in (0, 1, 2) for start in (0, 100)]
    before = landed(store, manifests)
    snapshot = compact(store, scratch, CompactionSettings(file_bytes=1)).snapshot
    assert len(snapshot.files) >= 8
    table = rows_of(store, [file.key for file in snapshot.files])
    names = ("device_id", "event_ts", "stream_id", "kafka_partition", "kafka_offset")
    order = [(r["capture_clinic_id"] or "", *(r[n] for n in names)) for r in table.to_pylist()]
    assert order == sorted(order)
    assert visible(store).equals(before)


def test_parts_follow_from_memory() -> None:
    memory = compaction.sort_memory_bytes(SETTINGS)
    assert 1024**3 < memory < 2 * 1024**3
    assert compaction._count_parts(10**9, memory) == 1
    # A day of 50,000 collars.
    assert 4 <= compaction._count_parts(72_000_000 * 640, memory) <= 8


def test_long_payloads_close_row_groups_early() -> None:
    table = TELEMETRY_SCHEMA.empty_table().to_pylist()
    row = dict.fromkeys(TELEMETRY_SCHEMA.names) | {
        "stream_id": "s", "kafka_partition": 0, "kafka_offset": 0, "arrival_ts": CLAIMED, "ingested_at": CLAIMED,
        "source_system": "x", "source_file": "f", "device_id": "d", "event_ts": CLAIMED, "event_id": "e",
        "payload": "x" * 65_536,
    }  # fmt: skip
    whole = pa.Table.from_pylist([*table, *[row] * 1000], schema=TELEMETRY_SCHEMA)
    groups = [*compaction._row_groups(iter(whole.to_batches(max_chunksize=100)))]
    assert sum(group.num_rows for group in groups) == 1000
    assert max(group.nbytes for group in groups) < compaction.ROW_GROUP_BYTES + 8 * 1024**2


def test_an_open_day_is_refused(lake: ObjectStore, land: Make, scratch: Path) -> None:
    land(lake, 0)
    with pytest.raises(DayOpenError, match="2026-06-03 may still get claims"):
        compact(lake, scratch, now=datetime(2026, 6, 4, 0, 59))
    assert waiting_days(lake, SETTINGS, datetime(2026, 6, 4, 0, 59)) == []
    report = compact(lake, scratch, now=datetime(2026, 6, 3, 20), even_if_open=True)
    assert report.snapshot.rows == 40


@pytest.mark.also_on_s3
def test_a_day_without_ranges_has_no_snapshot(lake: ObjectStore, scratch: Path) -> None:
    assert compact(lake, scratch).snapshot is None
    assert day_files(lake, "telemetry_events", DAY).keys == []


@pytest.mark.also_on_s3
def test_ranges_without_rows_are_covered(lake: ObjectStore, claim_telemetry: Make, scratch: Path) -> None:
    from lake.landing import land_range

    claim = claim_telemetry(lake, 0, 5, CLAIMED)
    fields = [f for f in TELEMETRY_SCHEMA if f.name not in FILLED_BY_CLAIM]
    land_range(lake, claim, pa.schema(fields).empty_table(), offset_gaps=5)
    snapshot = compact(lake, scratch).snapshot
    assert (snapshot.rows, snapshot.files, len(snapshot.ranges)) == (0, [], 1)
    assert waiting_days(lake, SETTINGS, NOW) == []
    assert prove_day(lake, DAY, SETTINGS, scratch).passed


def test_a_range_of_a_newer_release_is_refused(
    lake: ObjectStore, land: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lake import landing
    from lake.reading import NewerSchemaError

    monkeypatch.setattr(landing, "SCHEMA_VERSION", landing.SCHEMA_VERSION + 1)
    manifest = land(lake, 0)
    monkeypatch.undo()
    with pytest.raises(NewerSchemaError, match=manifest.source_file.replace("+", ".")):
        compact(lake, scratch)
    assert latest_snapshot(lake, DAY) is None


def test_nothing_new_writes_nothing(lake: ObjectStore, land: Make, scratch: Path) -> None:
    land(lake, 0)
    first = compact(lake, scratch).snapshot
    objects = [*lake.list("")]
    again = compact(lake, scratch)
    assert (again.written, again.snapshot) == (False, first)
    assert [*lake.list("")] == objects


def test_what_lands_late_is_seen_at_once_and_compacted_later(
    lake: ObjectStore, claim_telemetry: Make, finish: Make, land: Make, scratch: Path
) -> None:
    manifests = [land(lake, 0, 400)]
    late = claim_telemetry(lake, 400, 20, CLAIMED)
    first = compact(lake, scratch).snapshot
    assert [d.day for d in waiting_days(lake, SETTINGS, NOW)] == []
    manifests.append(finish(lake, late))
    assert visible(lake).equals(landed(lake, manifests))
    assert [(d.day, d.ranges, d.compacted_ranges) for d in waiting_days(lake, SETTINGS, NOW)] == [(DAY, 2, 1)]
    second = compact(lake, scratch)
    # Few late rows get a file of their own, the others stay.
    assert second.files_kept == 1 and second.rows_sorted == 20
    assert second.snapshot.files[0] == first.files[0]
    assert (second.snapshot.n, second.snapshot.base, second.snapshot.rows) == (2, 1, 420)
    assert visible(lake).equals(landed(lake, manifests))
    manifests.append(land(lake, 420, 100))
    third = compact(lake, scratch)
    # Many are sorted together with all others.
    assert third.files_kept == 0 and third.rows_sorted == 520
    assert visible(lake).equals(landed(lake, manifests))
    assert prove_day(lake, DAY, SETTINGS, scratch).passed


def redacted(device: str, from_us: int = 0, to_us: int = FOREVER, name: str = "r1") -> DeviceArrivals:
    return DeviceArrivals(name, device, from_us, to_us)


def test_redacted_rows_are_left_out_and_counted(lake: ObjectStore, land: Make, scratch: Path) -> None:
    manifests = [land(lake, 0, 200), land(lake, 200, 200)]
    before = landed(lake, manifests)
    gone = pa.compute.sum(pa.compute.equal(before["device_id"], "collar-0003")).as_py()
    assert gone
    first = compact(lake, scratch).snapshot
    rule = [redacted("collar-0003"), redacted("collar-0005", 0, 1, "r1"), redacted("nobody", name="r2")]
    assert [d.reason for d in waiting_days(lake, SETTINGS, NOW, rule)] == ["rows were redacted"]
    # However old the day is; without a redaction nobody looks there.
    assert [d.day for d in waiting_days(lake, SETTINGS, NOW + timedelta(days=900), rule)] == [DAY]
    assert waiting_days(lake, SETTINGS, NOW + timedelta(days=900)) == []
    report = compact(lake, scratch, redactions=rule)
    snapshot = report.snapshot
    assert (snapshot.n, snapshot.redacted_rows, snapshot.rows) == (2, gone, 400 - gone)
    assert snapshot.redactions == ["r1", "r2"]
    assert first.rows == snapshot.rows + snapshot.redacted_rows
    assert sum(s.redacted_rows for s in snapshot.ranges) == gone
    assert "collar-0003" not in visible(lake)["device_id"].to_pylist()
    assert "collar-0005" in visible(lake)["device_id"].to_pylist()
    assert waiting_days(lake, SETTINGS, NOW, rule) == []
    assert not compact(lake, scratch, redactions=rule).written
    proof = prove_day(lake, DAY, SETTINGS, scratch, rule)
    assert proof.passed and proof.proof.redacted_rows == gone
    # Unredacted originals are not what the snapshot holds.
    assert not prove_day(lake, DAY, SETTINGS, scratch).passed


def quarantined(span: Span, is_released: bool = False, name: str = "q1") -> QuarantinedOffsets:
    return QuarantinedOffsets(name, span, is_released)


def test_quarantined_rows_are_left_out_and_come_back_when_they_are_released(
    tmp_path: Path, land: Make, scratch: Path
) -> None:
    lake = LocalStore(tmp_path / "lake")
    first, second = land(lake, 0), land(lake, 40)
    before = landed(lake, [first, second])
    assert compact(lake, scratch).snapshot.rows == 80
    span = Span(first.stream_id, 0, 30, 50)
    rule = [quarantined(span), quarantined(Span("another", 0, 0, 99), name="q2")]
    assert [d.reason for d in waiting_days(lake, SETTINGS, NOW, rule)] == ["rows were quarantined"]
    snapshot = compact(lake, scratch, redactions=rule).snapshot
    assert (snapshot.rows, snapshot.redacted_rows, snapshot.redactions) == (60, 20, ["q1"])
    assert [s.redacted_rows for s in snapshot.ranges] == [10, 10]
    assert visible(lake).column("kafka_offset").to_pylist() == [*range(30), *range(50, 80)]
    assert prove_day(lake, DAY, SETTINGS, scratch, rule).passed
    assert waiting_days(lake, SETTINGS, NOW, rule) == []
    assert not compact(lake, scratch, redactions=rule).written
    # What landed since is compacted without what is quarantined of it.
    third = land(lake, 80)
    rule.append(quarantined(Span(first.stream_id, 0, 119, 120), name="q3"))
    assert compact(lake, scratch, redactions=rule).snapshot.rows == 99
    released = [quarantined(span, is_released=True), *rule[1:]]
    assert prove_day(lake, DAY, SETTINGS, scratch, released).passed
    assert [d.reason for d in waiting_days(lake, SETTINGS, NOW + timedelta(days=900), released)] == [
        "rows were released from quarantine"
    ]
    snapshot = compact(lake, scratch, redactions=released).snapshot
    assert (snapshot.rows, snapshot.redacted_rows, snapshot.redactions) == (119, 1, ["q3"])
    assert prove_day(lake, DAY, SETTINGS, scratch, released).passed
    assert visible(lake).equals(pa.concat_tables([before, landed(lake, [third])])[:119])
    assert waiting_days(lake, SETTINGS, NOW, released) == []


def test_what_a_superseded_claim_repeats_is_compacted_once(tmp_path: Path, land: Make, scratch: Path) -> None:
    lake = LocalStore(tmp_path / "lake")
    later, earlier = land(lake, 20, 20), land(lake, 0, 40)
    with pytest.raises(RowsDifferError, match="2 times"):
        compact(lake, scratch)
    rule = [quarantined(Span(later.stream_id, 0, 20, 40, later.source_file))]
    snapshot = compact(lake, scratch, redactions=rule).snapshot
    assert (snapshot.rows, snapshot.redacted_rows) == (40, 20)
    assert prove_day(lake, DAY, SETTINGS, scratch, rule).passed
    assert visible(lake).equals(landed(lake, [earlier]))


def test_a_redaction_that_concerns_other_files_rewrites_none(
    lake: ObjectStore, land: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(compaction, "BATCH_ROWS", 25)
    land(lake, 0, 400)
    small = CompactionSettings(file_bytes=1)
    first = compact(lake, scratch, small).snapshot
    report = compact(lake, scratch, small, redactions=[redacted("a-device-of-another-day")])
    assert report.files_kept == len(first.files) and report.rows_sorted == 0
    assert report.snapshot.files == first.files and report.snapshot.redactions == ["r1"]
    report = compact(lake, scratch, small, redactions=[redacted("collar-0003", name="r2")])
    assert report.files_kept and report.rows_sorted
    assert "collar-0003" not in visible(lake)["device_id"].to_pylist()


@pytest.mark.also_on_s3
def test_a_replaced_landing_file_is_read_in_its_place(lake: ObjectStore, land: Make, scratch: Path) -> None:
    """As after a purge: the original is deleted, another object holds its rows but for the redacted ones."""
    import hashlib

    from lake.landing import parquet_bytes

    manifests = [land(lake, 0, 100), land(lake, 100, 100)]
    table = rows_of(lake, [manifests[0].source_file])
    kept = table.filter(pa.compute.not_equal(table["device_id"], "collar-0003"))
    data = parquet_bytes(kept)
    lake.put_new("redacted/x.parquet", data)
    lake.delete(manifests[0].source_file)

    def in_force(manifest: Manifest) -> Any:
        if manifest.start == 0:
            return LandedObject("redacted/x.parquet", hashlib.sha256(data).hexdigest(), kept.num_rows)
        return as_landed(manifest)

    with pytest.raises(DamagedObjectError, match="is missing"):
        compact(lake, scratch)
    rule = [redacted("collar-0003")]
    snapshot = compact(lake, scratch, redactions=rule, in_force=in_force).snapshot
    assert snapshot.rows + snapshot.redacted_rows == 200
    assert snapshot.ranges[0].redacted_rows == 100 - kept.num_rows > 0
    assert "collar-0003" not in visible(lake)["device_id"].to_pylist()
    assert prove_day(lake, DAY, SETTINGS, scratch, rule, in_force).passed


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_an_interrupted_compaction_shows_nothing_half(
    lake: ObjectStore,
    land: Make,
    scratch: Path,
    watched: Make,
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    after: bool,
) -> None:
    """Three files and the snapshot: a death before or after each put."""
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 40)
    monkeypatch.setattr(compaction, "BATCH_ROWS", 40)
    small = CompactionSettings(file_bytes=1)
    manifests = [land(lake, start) for start in (0, 40, 80)]
    before = landed(lake, manifests)
    dying = watched(lake)
    dying.dies_at_put(n, after)
    with pytest.raises(KeyboardInterrupt):
        compact(dying, scratch, small)
    assert (latest_snapshot(lake, DAY) is not None) == ((n, after) == (4, True))
    assert visible(lake).equals(before)
    again = compact(lake, scratch, small)
    assert again.snapshot.n == 1 and again.snapshot.rows == 120
    assert visible(lake).equals(before)
    orphans = n - 1 + after if not (n == 4 and after) else 0
    # They are young: nobody may know yet whether their writer is alive.
    assert clean(lake, SETTINGS, NOW + timedelta(hours=1)) == []
    told = clean(lake, SETTINGS, NOW + timedelta(hours=900), dry_run=True)
    assert len(told) == min(orphans, 3)
    assert visible(lake).equals(before)
    assert clean(lake, SETTINGS, NOW + timedelta(hours=900)) == told
    assert len([*lake.list(layout.COMPACTED)]) == 3
    assert visible(lake).equals(before)


@pytest.mark.also_on_s3
def test_of_two_compactions_one_wins_and_the_others_files_go(
    lake: ObjectStore, land: Make, scratch: Path, watched: Make
) -> None:
    manifests = [land(lake, 0), land(lake, 40)]
    before = landed(lake, manifests)
    slow = watched(lake)
    winners = []

    def other_comes_first(key: str) -> None:
        if key.startswith(layout.SNAPSHOTS):
            slow.before_put = lambda _: None
            winners.append(compact(lake, scratch / "other"))

    slow.before_put = other_comes_first
    report = compact(slow, scratch)
    assert (report.written, report.lost) == (False, True)
    assert report.snapshot == winners[0].snapshot
    assert visible(lake).equals(before)
    assert [i.key for i in lake.list(layout.COMPACTED)] == [f.key for f in report.snapshot.files]


@pytest.mark.also_on_s3
def test_lost_answers_are_read_back(lake: ObjectStore, land: Make, scratch: Path, watched: Make) -> None:
    before = landed(lake, [land(lake, 0)])
    store = watched(lake)
    store.loses_the_answer_for("")
    report = compact(store, scratch)
    assert (report.written, report.lost) == (True, False)
    assert visible(lake).equals(before)


@pytest.mark.also_on_s3
def test_a_deleted_or_altered_landing_file_is_named(lake: ObjectStore, land: Make, scratch: Path) -> None:
    first, second = land(lake, 0), land(lake, 40)
    data = lake.get(second.source_file)
    lake.delete(second.source_file)
    with pytest.raises(DamagedObjectError, match=rf"{second.source_file.replace('+', '.')} is missing from"):
        compact(lake, scratch)
    lake.put_new(second.source_file, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(DamagedObjectError, match=rf"{second.source_file.replace('+', '.')} .*sha256 differs"):
        compact(lake, scratch)
    assert latest_snapshot(lake, DAY) is None and [*lake.list(layout.COMPACTED)] == []
    lake.delete(second.source_file)
    lake.put_new(second.source_file, data)
    assert compact(lake, scratch).snapshot.rows == 80
    assert first.rows == 40


def test_a_damaged_compacted_file_is_named_and_the_day_can_be_written_from_landing_files(
    lake: ObjectStore, land: Make, scratch: Path
) -> None:
    manifests = [land(lake, 0)]
    [file] = compact(lake, scratch).snapshot.files
    lake.delete(file.key)
    with pytest.raises(DamagedObjectError, match=f"{file.key} is missing"):
        prove_day(lake, DAY, SETTINGS, scratch)
    manifests.append(land(lake, 40))
    with pytest.raises(DamagedObjectError, match=f"{file.key} is missing"):
        compact(lake, scratch)
    snapshot = compact(lake, scratch, from_landing=True).snapshot
    assert (snapshot.n, snapshot.base) == (2, None)
    assert visible(lake).equals(landed(lake, manifests))


def test_too_little_memory_names_the_setting(tmp_path: Path, land: Make, scratch: Path) -> None:
    store = LocalStore(tmp_path / "lake")
    for start in range(0, 60_000, 20_000):
        land(store, start, 20_000)
    tight = CompactionSettings.model_construct(
        **{**SETTINGS.model_dump(), "memory_bytes": compaction.MEMORY_BESIDE_SORT + 6 * 1024**2}
    )
    with pytest.raises(CompactionResourceError, match="PETWELLNESS_COMPACTION_MEMORY_BYTES"):
        compact(store, scratch, tight)
    assert latest_snapshot(store, DAY) is None
    assert not [*scratch.iterdir()]


def test_too_little_scratch_is_refused_before_the_work(tmp_path: Path, land: Make, scratch: Path) -> None:
    store = LocalStore(tmp_path / "lake")
    land(store, 0, 1000)
    with pytest.raises(CompactionResourceError, match="PETWELLNESS_COMPACTION_SCRATCH_BYTES"):
        compact(store, scratch, CompactionSettings(scratch_bytes=1000))
    assert [*store.list(layout.COMPACTED)] == []


def test_rows_that_got_lost_on_the_way_are_noticed(
    tmp_path: Path, land: Make, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "lake")
    before = landed(store, [land(store, 0)])
    whole = compaction._row_groups
    monkeypatch.setattr(compaction, "_row_groups", lambda reader: (t.slice(1) for t in whole(reader)))
    with pytest.raises(RowsDifferError, match=r"40 were, 39 are stored .* missing after"):
        compact(store, scratch)
    assert latest_snapshot(store, DAY) is None
    assert visible(store).equals(before)


def test_a_compaction_older_than_half_the_age_of_orphans_gives_up(
    lake: ObjectStore, land: Make, scratch: Path
) -> None:
    land(lake, 0)
    with pytest.raises(CompactionTooOldError, match="PETWELLNESS_COMPACTION_CLEAN_AFTER_S"):
        compact(lake, scratch, CompactionSettings(clean_after_s=0.001))
    assert latest_snapshot(lake, DAY) is None


@pytest.mark.also_on_s3
def test_files_of_superseded_snapshots_go_after_the_age(lake: ObjectStore, land: Make, scratch: Path) -> None:
    """Old as they are: a reader may have opened them just before they were superseded."""
    land(lake, 0)
    old = compact(lake, scratch).snapshot
    land(lake, 40)
    new = compact(lake, scratch, now=NOW + timedelta(days=5)).snapshot
    assert clean(lake, SETTINGS, new.created_at + timedelta(hours=23)) == []
    removed = clean(lake, SETTINGS, new.created_at + timedelta(hours=25))
    assert [r.key for r in removed] == [f.key for f in old.files]
    assert visible(lake).num_rows == 80


def test_left_overs_of_a_killed_process_are_cleared_and_those_of_a_live_one_stay(scratch: Path) -> None:
    from lake.scratch import scratch_folder

    dead = scratch / "compaction-dead"
    dead.mkdir(parents=True)
    (dead / "in-use").touch()
    (dead / "spill").write_bytes(b"x" * 100)
    with scratch_folder(scratch, "compaction") as mine:
        assert not dead.exists()
        with scratch_folder(scratch, "compaction") as other:
            assert mine.exists() and other != mine
    assert not [*scratch.iterdir()]


def test_the_proof_finds_what_counts_do_not(tmp_path: Path, land: Make) -> None:
    store = LocalStore(tmp_path / "lake")
    table = rows_of(store, [land(store, 0).source_file])
    con = duckdb.connect()

    def differences(other: pa.Table) -> str:
        con.register("before", table)
        con.register("after", other)
        proof = prove_same_rows(con, "select * from before", "select * from after")
        assert proof.passed == (not proof.differences)
        return "; ".join(proof.differences)

    def with_value(name: str, row: int, value: Any) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        at = table.schema.get_field_index(name)
        return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    shuffled = table.take(pa.array([*range(39, -1, -1)]))
    assert differences(shuffled) == ""
    assert "content differs" in differences(with_value("payload", 7, "{}"))
    assert "content differs" in differences(
        with_value("step_count", 7, None if table["step_count"][7].as_py() else 1)
    )
    assert "offset 7: missing after" in differences(with_value("kafka_offset", 7, 99))
    assert "offset 99: not there before" in differences(with_value("kafka_offset", 7, 99))
    assert "offset 8: 2 times" in differences(pa.concat_tables([table, table.slice(8, 1)]))
    swapped = with_value("event_id", 1, table["event_id"][2].as_py())
    values = swapped["event_id"].to_pylist()
    values[2] = table["event_id"][1].as_py()
    at = table.schema.get_field_index("event_id")
    swapped = swapped.set_column(at, table.schema.field("event_id"), pa.array(values))
    assert "content differs" in differences(swapped)


def test_files_of_an_older_contract_are_read_beside_new_ones(tmp_path: Path, land: Make) -> None:
    from lake.sql import UnknownColumnsError, connect, telemetry_sql

    store = LocalStore(tmp_path / "lake")
    table = rows_of(store, [land(store, 0).source_file])
    old = table.drop_columns(["quality_score"])
    for name, content in (
        ("old", old),
        ("new", table),
        ("newer", table.append_column("x", table["payload"])),
    ):
        pq.write_table(content, tmp_path / f"{name}.parquet")
    with connect() as con:
        both = telemetry_sql(con, [str(tmp_path / "old.parquet"), str(tmp_path / "new.parquet")])
        assert con.sql(both).columns == TELEMETRY_SCHEMA.names
        assert con.sql(both).to_arrow_table().cast(TELEMETRY_SCHEMA).num_rows == 80
        alone = telemetry_sql(con, [str(tmp_path / "old.parquet")])
        assert con.sql(alone).to_arrow_table().cast(TELEMETRY_SCHEMA).schema.equals(TELEMETRY_SCHEMA)
        with pytest.raises(UnknownColumnsError, match=r"\['x'\]"):
            telemetry_sql(con, [str(tmp_path / "newer.parquet")])


def test_days_are_counted_with_and_without_the_catalogue(
    lake: ObjectStore, land: Make, claim_telemetry: Make, finish: Make
) -> None:
    from lake.catalogue import roll_up

    land(lake, 0)
    land(lake, 40)
    finish(lake, claim_telemetry(lake, 80, 5, CLAIMED + timedelta(days=1)))
    expected = {DAY: 2, DAY + timedelta(days=1): 1}
    assert ranges_by_day(lake) == expected
    roll_up(lake, CLAIMED + timedelta(hours=5))
    assert ranges_by_day(lake) == expected
    assert [d.day for d in waiting_days(lake, SETTINGS, NOW)] == [DAY]
    assert waiting_days(lake, SETTINGS, NOW + timedelta(days=90)) == []
    assert len(waiting_days(lake, SETTINGS, NOW + timedelta(days=90), since=DAY)) == 2


steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 1), st.integers(1, 30)),
        st.tuples(st.just("claim and land"), st.integers(0, 1), st.integers(1, 30)),
        st.tuples(st.just("finish"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("compact"), st.just(0), st.just(0)),
        st.tuples(st.just("die"), st.integers(1, 4), st.integers(0, 1)),
        st.tuples(st.just("lose the race"), st.just(0), st.just(0)),
        st.tuples(st.just("roll up"), st.just(0), st.just(0)),
        st.tuples(st.just("clean"), st.just(0), st.just(0)),
    ),
    min_size=3,
    max_size=8,
)


@examples(
    max_examples=examples.default.max_examples // 10,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps)
def test_readers_always_see_the_landed_rows_once(
    steps: list[Any], tmp_path_factory: Any, claim_telemetry: Make, finish: Make, watched: Make
) -> None:
    from lake.catalogue import roll_up

    folder = tmp_path_factory.mktemp("lake")
    lake, scratch = LocalStore(folder / "lake"), folder / "scratch"
    ends: dict[int, int] = {}
    waiting: list[Any] = []
    manifests: list[Manifest] = []
    for step, first, second in steps:
        store = watched(lake)
        if step.startswith("claim"):
            claim = claim_telemetry(lake, ends.get(first, 0), second, CLAIMED, first)
            ends[first] = claim.end
            if step == "claim":
                waiting.append(claim)
            else:
                manifests.append(finish(lake, claim))
        elif step == "finish" and waiting:
            manifests.append(finish(lake, waiting.pop(first % len(waiting))))
        elif step == "compact":
            compact(lake, scratch)
        elif step == "die":
            store.dies_at_put(first, after=bool(second))
            with contextlib.suppress(KeyboardInterrupt):
                compact(store, scratch)
        elif step == "lose the race":
            store.before_put = lambda key: (
                None if not key.startswith(layout.SNAPSHOTS) else _compact_once(lake, scratch)
            )
            compact(store, scratch)
        elif step == "roll up":
            roll_up(lake, NOW)
        elif step == "clean":
            clean(lake, CompactionSettings(clean_after_s=1e-6), datetime(2030, 1, 1))
        assert visible(lake).equals(landed(lake, manifests))
    assert not [*scratch.glob("**/compaction-*")]
    shutil.rmtree(folder)


def _compact_once(lake: ObjectStore, scratch: Path) -> None:
    compact(lake, scratch / "other")
