"""The landing protocol on a local store: each range once, whatever step a writer dies at."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import landed
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.columns import REJECT_SCHEMA, TELEMETRY_SCHEMA
from lake import layout
from lake.extract import ExtractChangedError, land_extract
from lake.landing import (
    Claim,
    ClaimChainError,
    LandingError,
    LandingLawError,
    LandingSchemaError,
    chain_end,
    claim_range,
    derive_manifest,
    land_range,
    landed_end,
    list_claims,
    list_manifests,
    open_claims,
    read_manifest,
    recover_range,
    verify_chain,
    verify_law,
)
from lake.store import LocalStore, ObjectStore

CLAIMED_AT = datetime(2026, 6, 3, 12, 30, 0, 5)
NOON = datetime(2026, 6, 1, 12)


def a_claim(start: int = 0, end: int = 5, **changes: Any) -> Claim:
    of_mine = {
        "stream_id": "c.telemetry.i",
        "partition": 2,
        "claimed_at": CLAIMED_AT,
        "consent_snapshot_id": "s1",
    }
    return landed.claim(start, end, **{**of_mine, **changes})


def events(offsets: list[int], device: str = "d") -> pa.Table:
    rows = [
        {
            "kafka_offset": offset,
            "arrival_ts": NOON + timedelta(hours=offset),
            "device_id": device,
            "event_ts": NOON + timedelta(hours=offset, minutes=-1),
            "event_id": f"e{offset}",
            "payload": "{}",
        }
        for offset in offsets
    ]
    fields = [f for f in TELEMETRY_SCHEMA if f.name not in _FROM_CLAIM]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


_FROM_CLAIM = {"stream_id", "kafka_partition", "ingested_at", "source_system", "source_file"}


def rejects(offsets: list[int], reason: str = "type") -> pa.Table:
    rows = [
        {
            "stream_id": "c.telemetry.i",
            "kafka_partition": 2,
            "kafka_offset": offset,
            "arrival_ts": NOON,
            "source_system": "petwellness-collar",
            "reason": reason,
            "detail": "step_count is not an integer",
            "payload": b"{",
        }
        for offset in offsets
    ]
    return pa.Table.from_pylist(rows, schema=REJECT_SCHEMA)


def land(store: ObjectStore, claim: Claim, table: pa.Table | None = None) -> Any:
    return land_range(
        store,
        claim,
        events([0, 2]) if table is None else table,
        rejects([1]),
        consent_dropped=1,
        consent_dropped_by_reason={"analytics_opt_out": 1},
        offset_gaps=1,
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "lake")


def test_the_manifest_says_what_is_stored(store: LocalStore) -> None:
    claim = claim_range(store, a_claim())
    manifest = land(store, claim)
    data = store.get(manifest.source_file)
    table = pq.read_table(pa.BufferReader(data))
    assert table.schema.equals(TELEMETRY_SCHEMA)
    assert table["source_file"].to_pylist() == [manifest.source_file] * 2
    assert table["ingested_at"].to_pylist() == [CLAIMED_AT] * 2
    assert table["kafka_partition"].to_pylist() == [2, 2]
    assert manifest.source_file == "landing/telemetry_events/date=2026-06-03/c.telemetry.i+2+0+5.parquet"
    assert (manifest.rows, manifest.rejected_by_reason) == (2, {"type": 1})
    assert (manifest.consent_dropped, manifest.offset_gaps, manifest.rejected) == (1, 1, 1)
    assert manifest.consent_dropped_by_reason == {"analytics_opt_out": 1}
    assert manifest.rows_by_event_date == {"2026-06-01": 2}
    assert (manifest.min_arrival_ts, manifest.max_arrival_ts) == (NOON, NOON + timedelta(hours=2))
    assert manifest.min_event_ts == NOON - timedelta(minutes=1)
    assert manifest.max_event_ts == NOON + timedelta(minutes=119)
    assert (manifest.bytes, manifest.ingested_at) == (len(data), CLAIMED_AT)
    assert manifest.reject_object is not None
    dead = pq.read_table(pa.BufferReader(store.get(manifest.reject_object)))
    assert dead["kafka_offset"].to_pylist() == [1]
    assert derive_manifest(manifest.source_file, data) == manifest
    assert read_manifest(store, claim.range_key) == manifest


def test_reasons_that_do_not_add_up_to_the_drops_are_refused(store: LocalStore) -> None:
    claim = claim_range(store, a_claim())
    with pytest.raises(
        LandingLawError, match="1 messages dropped for consent, but their reasons add up to 2"
    ):
        land_range(
            store,
            claim,
            events([0, 2]),
            rejects([1]),
            consent_dropped=1,
            consent_dropped_by_reason={"erased": 2},
            offset_gaps=1,
        )
    assert [*store.list(layout.LANDING)] == []


def test_an_empty_range_is_written_too(store: LocalStore) -> None:
    manifest = land_range(store, claim_range(store, a_claim()), events([]), offset_gaps=5)
    assert pq.read_table(pa.BufferReader(store.get(manifest.source_file))).num_rows == 0
    assert (manifest.rows, manifest.min_event_ts, manifest.rows_by_event_date) == (0, None, {})
    assert manifest.reject_object is None


def test_counts_that_do_not_add_up_store_nothing(store: LocalStore) -> None:
    claim = claim_range(store, a_claim())
    with pytest.raises(LandingLawError, match=r"c.telemetry.i partition 2 \[0, 5\): 2 rows"):
        land_range(store, claim, events([0, 2]))
    with pytest.raises(LandingLawError):
        land_range(store, claim, events([0, 1, 2, 3, 4, 5]), offset_gaps=-1)
    assert [info.key for info in store.list("")] == [layout.claim_key(*claim.range_key)]


def test_the_law_is_checked_of_any_manifest(store: LocalStore) -> None:
    manifest = land(store, claim_range(store, a_claim()))
    verify_law(manifest)
    with pytest.raises(LandingLawError):
        verify_law(msgspec.structs.replace(manifest, rows=3))


def test_whoever_writes_first_defines_the_range(store: LocalStore) -> None:
    claim = claim_range(store, a_claim())
    first = land(store, claim)
    assert land(store, claim, events([0, 2], device="other")) == first
    assert pq.read_table(pa.BufferReader(store.get(first.source_file)))["device_id"].to_pylist() == ["d", "d"]


def test_a_claim_that_lost_comes_back_as_the_one_in_force(store: LocalStore) -> None:
    mine = claim_range(store, a_claim())
    assert claim_range(store, a_claim(end=9, claimed_by="zombie")) == mine
    assert chain_end(store, "c.telemetry.i", 2) == 5


class Dying(LocalStore):
    """A store whose process dies before or after its n-th put."""

    def __init__(self, root: Path, puts: int, after: bool) -> None:
        super().__init__(root)
        self.puts, self.after = puts, after

    def put_new(self, key: str, data: bytes) -> None:
        self.puts -= 1
        if self.puts == 0 and not self.after:
            raise KeyboardInterrupt
        super().put_new(key, data)
        if self.puts == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("puts", [1, 2, 3, 4])
def test_a_writer_may_die_at_any_step(tmp_path: Path, puts: int, after: bool) -> None:
    dying, healthy = Dying(tmp_path, puts, after), LocalStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        land(dying, claim_range(dying, a_claim()))

    if not list_claims(healthy):
        assert (puts, after) == (1, False)
        claim = claim_range(healthy, a_claim(claimed_by="successor", end=5))
    elif not (unfinished := open_claims(healthy, "c.telemetry.i", 2)):
        assert (puts, after) == (4, True)
        claim = list_claims(healthy)[0]
    else:
        [claim] = unfinished
    manifest = recover_range(healthy, claim) or land(healthy, claim)

    assert list_manifests(healthy) == [manifest]
    assert open_claims(healthy, "c.telemetry.i", 2) == []
    mains = [*healthy.list(layout.LANDING)]
    assert len(mains) == 1
    assert pq.read_table(pa.BufferReader(healthy.get(mains[0].key)))["kafka_offset"].to_pylist() == [0, 2]
    assert manifest.reject_object in {info.key for info in healthy.list(layout.REJECTS)}


class Counting(LocalStore):
    """Counts reads."""

    reads = 0

    def get(self, key: str) -> bytes:
        self.reads += 1
        return super().get(key)


def test_known_manifests_are_not_read(tmp_path: Path) -> None:
    store = Counting(tmp_path)
    ranges = [
        land_range(store, claim_range(store, a_claim(start, start + 5)), events([]), offset_gaps=5)
        for start in (0, 5, 10)
    ]
    store.reads = 0
    assert list_manifests(store, {ranges[0].range_key, ranges[2].range_key}) == [ranges[1]]
    assert store.reads == 1
    assert landed_end(store, "c.telemetry.i", 2) == 15


def test_chains_are_checked_for_holes_and_overlaps() -> None:
    verify_chain([a_claim(5, 9), a_claim(0, 5), a_claim(0, 50, partition=1), a_claim(0, 0, partition=3)])
    for broken, why in (
        ([a_claim(0, 5), a_claim(6, 9)], "not contiguous"),
        ([a_claim(0, 5), a_claim(4, 9)], "overlap"),
        ([a_claim(5, 9)], "begins at 5, not at 0; `petwellness claims supersede`"),
    ):
        with pytest.raises(ClaimChainError, match=rf"c\.telemetry\.i partition 2: .*{why}"):
            verify_chain(broken)


def test_a_partition_without_claims_goes_on_at_0(store: LocalStore) -> None:
    assert chain_end(store, "c.telemetry.i", 2) == 0


def test_tables_off_the_contract_are_refused_by_column(store: LocalStore) -> None:
    claim = claim_range(store, a_claim(end=2))
    good = events([0, 1])
    nulls = pa.nulls(2, pa.string())
    off: Iterator[tuple[pa.Table, str]] = iter(
        [
            (good.drop(["event_id"]), "'event_id' is missing"),
            (good.append_column("extra", nulls), "extra"),
            (
                good.set_column(good.schema.get_field_index("event_id"), "event_id", nulls),
                "'event_id'.*is null",
            ),
            (
                good.set_column(good.schema.get_field_index("event_ts"), "event_ts", pa.array(["x", "y"])),
                "event_ts",
            ),
        ]
    )
    for table, text in off:
        with pytest.raises(LandingSchemaError, match=text):
            land_range(store, claim, table)
    assert [*store.list(layout.LANDING)] == []


def test_a_foreign_file_is_no_range() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(LandingError, match="some/file"):
        derive_manifest("some/file", sink.getvalue().to_pybytes())


def breeds(count: int) -> pa.Table:
    return pa.table(
        {
            "business_key": pa.array([f"b{i}" for i in range(count)], pa.string()),
            "op": pa.array(["snapshot"] * count, pa.string()),
            "changed_at": pa.array([NOON] * count, pa.timestamp("us")),
            "payload": pa.array(["{}"] * count, pa.string()),
            "breed_id": pa.array([f"b{i}" for i in range(count)], pa.string()),
            "breed": pa.array(["Beagle"] * count, pa.string()),
            **{name: pa.nulls(count, pa.string()) for name in ("species", "breed_group")},
            **{
                f"{bound}_{name}": pa.nulls(count, pa.decimal128(5, 1))
                for bound in ("min", "max")
                for name in ("weight_kg", "height_cm", "life_expectancy_years")
            },
        }
    )


def land_breeds(store: ObjectStore, table: pa.Table, extract_id: str = "x1") -> Any:
    return land_extract(
        store,
        source="shelter",
        feed="breeds",
        extract_id=extract_id,
        table=table,
        complete=True,
        extracted_at=NOON,
    )


def test_an_extract_lands_once_whatever_is_offered_under_its_id(store: LocalStore) -> None:
    manifest = land_breeds(store, breeds(3))
    assert land_breeds(store, breeds(4)) == manifest
    table = pq.read_table(pa.BufferReader(store.get(manifest.source_file)))
    assert table["kafka_offset"].to_pylist() == [0, 1, 2]
    assert table["arrival_ts"].to_pylist() == table["extracted_at"].to_pylist() == [NOON] * 3
    assert (manifest.stream_id, manifest.partition, manifest.end) == ("shelter.breeds.x1", 0, 3)
    assert (manifest.extract_id, manifest.complete, manifest.extracted_at) == ("x1", True, NOON)


def test_an_extract_without_rows_is_a_statement_too(store: LocalStore) -> None:
    assert land_breeds(store, breeds(0)).complete is True


def test_an_extract_off_the_contract_claims_nothing(store: LocalStore) -> None:
    with pytest.raises(LandingSchemaError, match="breeds: column 'breed_group' is missing"):
        land_breeds(store, breeds(2).drop(["breed_group"]))
    assert [*store.list("")] == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("puts", [1, 2, 3])
def test_an_extract_cut_short_is_finished_by_landing_it_again(tmp_path: Path, puts: int, after: bool) -> None:
    with pytest.raises(KeyboardInterrupt):
        land_breeds(Dying(tmp_path, puts, after), breeds(3))
    healthy = LocalStore(tmp_path)
    manifest = land_breeds(healthy, breeds(3))
    assert list_manifests(healthy) == [manifest]
    assert manifest.rows == 3
    assert len([*healthy.list(layout.LANDING)]) == 1


def test_an_extract_that_changed_while_its_claim_waited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        land_breeds(Dying(tmp_path, 1, True), breeds(3))
    with pytest.raises(ExtractChangedError, match="claimed with 3 rows and has 4"):
        land_breeds(LocalStore(tmp_path), breeds(4))
